"""Every optimiser of torch is an option, or is known not to be one; and each can be gone on with."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from torch import optim

from feedtune.checkpoints import newest
from feedtune.config.compose import FLAGS, compose_config
from feedtune.config.discovery import own_conf
from feedtune.errors import UserError
from feedtune.optimizers import REFUSED, refuse_unfit
from feedtune.runs.training import train
from small_runs import ROWS, fingerprint, newest_state, overrides, run, write_rows

LEFT_OUT = {*REFUSED, optim.Muon}
"""Muon takes matrices alone; a policy with a single bias or norm has others too."""

FILES = sorted((own_conf() / "optimizer").glob("*.yaml"))

CLASSES = [
    kind
    for _, kind in inspect.getmembers(optim, inspect.isclass)
    if issubclass(kind, optim.Optimizer) and kind is not optim.Optimizer
]


def test_every_optimiser_of_torch_is_an_option_or_left_out() -> None:
    assert len(CLASSES) >= 15
    options = {file.stem: yaml.safe_load(file.read_text())["_target_"] for file in FILES}
    wanted = {kind.__name__.lower(): f"torch.optim.{kind.__name__}" for kind in set(CLASSES) - LEFT_OUT}
    assert options == wanted


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_key_is_an_argument_and_is_used(file: Path) -> None:
    """Each key of the YAML is among the constructor's, and arrives in the groups that it makes."""
    node = yaml.safe_load(file.read_text())
    keys = set(node) - {*FLAGS}
    kind = getattr(optim, node["_target_"].rpartition(".")[2])
    assert {"lr"} <= keys <= set(inspect.signature(kind).parameters)
    elsewhere = {"eps", "beta2_decay"} if kind is optim.Adafactor else set()
    assert keys - elsewhere <= {*kind([torch.nn.Parameter(torch.zeros(2, 2))]).defaults, *elsewhere}


@pytest.fixture(scope="module")
def base() -> list[str]:
    return overrides(Path("rows.jsonl"), "lstm", "sft")


@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_each_trains_and_goes_on_to_the_bit(name: str, base: list[str], tmp_path: Path) -> None:
    """Two epochs in one go, against the second epoch again from the checkpoint of the first."""
    config = compose_config([*base, f"task.path={write_rows(tmp_path, ROWS[:12])}", f"optimizer={name}"])
    folder = tmp_path / "run"
    folder.mkdir()
    train(config, folder)
    whole = fingerprint(folder)
    last = newest_state(folder).parent
    losses = [float(row["loss/policy"]) for row in whole["metrics"]]
    assert losses[1] != losses[0], "nothing was learnt"
    shutil.rmtree(last)
    again = newest(folder)
    assert again is not None
    assert again.parent != last
    train(config, folder, again)
    assert newest_state(folder).parent == last
    assert fingerprint(folder) == whole


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_train_a_policy_says_why(kind: type[optim.Optimizer]) -> None:
    with pytest.raises(UserError, match=rf"^optimizer: {kind.__name__} cannot train a policy: it "):
        refuse_unfit(kind([torch.nn.Parameter(torch.zeros(2, 2))]))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("target", "backbone", "words"),
    [
        ("torch.optim.SparseAdam", "ngram", "optimizer: SparseAdam cannot train a policy"),
        ("torch.optim.Muon", "lstm", "optimizer: Muon only supports 2D parameters"),
    ],
)
def test_another_class_that_does_not_fit_is_refused_in_words(
    target: str, backbone: str, words: str, tmp_path: Path
) -> None:
    node = f"+optimizer={{_target_: {target}, _partial_: true, lr: 1e-3}}"
    chosen = overrides(write_rows(tmp_path), backbone, "sft", "~optimizer", node)
    with pytest.raises(UserError, match=f"^{words}"):
        run(tmp_path / "run", chosen)


def test_muon_trains_what_is_made_of_matrices(tmp_path: Path) -> None:
    """An n-gram table is one; the class is named by its path."""
    node = "+optimizer={_target_: torch.optim.Muon, _partial_: true, lr: 0.02}"
    chosen = overrides(write_rows(tmp_path), "ngram", "sft", "~optimizer", node)
    assert run(tmp_path / "run", chosen)["loss/policy"] > 0
