"""What a config may call: nothing that does another's bidding, wherever and however it is named."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf, open_dict

from feedtune.config.compose import compose_config
from feedtune.config.trust import MAKERS, TRUSTED, is_under, resolve
from feedtune.errors import UserError
from feedtune.runs.assembly import checked
from small_runs import overrides, write_rows

NOT_TRUSTED = {
    "os.system": "command: 'touch CANARY'",
    "os.mkdir": "path: CANARY",
    "subprocess.run": "args: [touch, CANARY]",
    "subprocess.Popen": "args: [touch, CANARY]",
    "builtins.eval": "_args_: [\"open('CANARY', 'w')\"]",
    "builtins.exec": "_args_: [\"open('CANARY', 'w')\"]",
    "builtins.open": "file: CANARY, mode: w",
    "builtins.__import__": "name: evil",
    "importlib.import_module": "name: evil",
    "runpy.run_path": "path_name: evil.py",
    "pip.main": "args: [install, evil]",
    "pip._internal.cli.main.main": "args: [install, evil]",
    "torch.load": "f: bomb.pt, weights_only: false",
    "torch.hub.load": "repo_or_dir: ., source: local, model: evil",
    "pickle.load": "file: bomb.pt",
    "shutil.copy": "src: evil.py, dst: CANARY",
    "pathlib.Path.touch": "self: CANARY",
    "logging.FileHandler": "filename: CANARY",
}
"""What others have made, and how it would be called here."""

NO_PARTS = {
    # Of trusted packages, and yet each would run what its arguments name.
    "lightning.pytorch.cli.instantiate_class": (
        "args: [], init: {class_path: subprocess.Popen, init_args: {args: [touch, CANARY]}}"
    ),
    "lightning.pytorch.cli.LightningCLI": "args: [fit]",
    "lightning.fabric.utilities.cloud_io._load": "path_or_url: bomb.pt, weights_only: false",
    "lightning.pytorch.core.saving._load_from_checkpoint": "cls: null, checkpoint_path: bomb.pt",
    "lightning.fabric.utilities.load._lazy_load": "filename: bomb.pt",
    "lightning.pytorch.LightningDataModule": "x: 1",
    "feedtune.cli.main": "arguments: [train, 'trust=[os]', '+callbacks.mine._target_=os.mkdir']",
    "feedtune.commands.train.main": "arguments: ['trust=[os]']",
    "feedtune.config.trust.trust": "prefixes: [os]",
    "feedtune.config.trust.resolve": "path: os.mkdir, key: x",
    "feedtune.config.build.build": "config: {}, key: x",
    "feedtune.runs.export.load": "folder: ., trust: true",
    "feedtune.load": "folder: .",
    "feedtune_plugins.rewards.imports.load_function": "path: evil.py:f",
    "feedtune_plugins.rewards.imports.import_file": "file: evil.py",
    "feedtune_plugins.environments.making.make_environment": "name: x, options: {}, reward: null, noun: x",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with rows, and a module and a pickle that leave a canary wherever they run."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path)
    (tmp_path / "evil.py").write_text(
        "open('canary', 'w')\ndef f(responses): return [0.0 for _ in responses]\n"
    )
    (tmp_path / "bomb.pt").write_bytes(b"cos\nmkdir\n(S'canary'\ntR.")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("evil", None)


@cache
def tiny() -> DictConfig:
    """The config of a tiny run."""
    return compose_config(overrides(Path("rows.jsonl"), "ngram", "sft"))


def refused(*typed: str) -> str:
    """What is said of a tiny run with these overrides too; whatever was done before that shows on disk."""
    with pytest.raises(UserError) as caught:
        checked(compose_config([*overrides(Path("rows.jsonl"), "ngram", "sft"), *typed]), Path("run"))
    assert not Path("canary").exists()
    return str(caught.value)


def test_the_bomb_is_one(place: Path) -> None:
    import pickle

    pickle.loads((place / "bomb.pt").read_bytes())
    assert (place / "canary").is_dir()


@pytest.mark.parametrize("path", [*NOT_TRUSTED, *NO_PARTS])
def test_gadgets_are_refused_by_name(path: str, place: Path) -> None:
    arguments = (NOT_TRUSTED | NO_PARTS)[path].replace("CANARY", "canary")
    config = tiny().copy()
    with open_dict(config):
        config.callbacks.mine = OmegaConf.create(f"{{_target_: {path}, {arguments}}}")
    with pytest.raises(UserError) as caught:
        checked(config, Path("run"))
    assert not Path("canary").exists()
    said = str(caught.value)
    assert said.startswith(f"callbacks.mine._target_: '{path}'")
    assert ("is not trusted" if path in NOT_TRUSTED else "is no part of a run") in said


@pytest.mark.parametrize(
    "typed",
    [
        "+callbacks.mine={_target_: feedtune.callbacks.Progress, x: [[{y: {_target_: os.mkdir, path: c}}]]}",
        "+trainer.plugins=[[{_target_: os.mkdir, path: canary}]]",
        "+parameter_groups.value.lr={_target_: os.mkdir, path: canary}",
        "+evaluation.decoding.top_k={_target_: os.mkdir, path: canary}",
        "+callbacks.mine={_target_: lightning.Trainer, _recursive_: false, x: {_target_: os.mkdir}}",
        "+callbacks.mine={_target_: os.mkdir, _partial_: true, path: canary}",
        "+callbacks.mine={a: os, b: mkdir, path: canary, _target_: '${.a}.${.b}'}",
        "+callbacks.mine={_target_: '${oc.decode:os.mkdir}', path: canary}",
        "+callbacks.mine='${oc.create:\"{_target_: os.mkdir, path: canary}\"}'",
        "callbacks.metrics._target_=os.mkdir",
        "reward._target_=os.mkdir",
        "+logger._target_=os.mkdir",
    ],
)
def test_nowhere_and_in_no_disguise(typed: str, place: Path) -> None:
    assert "'os.mkdir' is not trusted" in refused(typed)


def test_all_that_may_be_named_of_these_packages_is_a_class_or_makes_a_part() -> None:
    """Of everything that is imported by now, which is what a run needs and more."""
    import feedtune.schedulers
    import feedtune.tracking.loggers  # noqa: F401

    modules = [name for name in sys.modules if is_under(name, TRUSTED)]
    allowed: list[tuple[str, object]] = []
    for module in modules:
        for name in list(vars(sys.modules[module])):
            try:
                allowed.append((module, resolve(f"{module}.{name}", "x")))
            except UserError:
                continue
    assert len(modules) > 100
    assert len({id(thing) for _, thing in allowed}) > 100
    functions = [thing for _, thing in allowed if not isinstance(thing, type)]
    assert {thing.__module__ for thing in functions} == set(MAKERS)
    homes = {thing.__module__ for _, thing in allowed if isinstance(thing, type)}
    assert all(is_under(home, TRUSTED) for home in homes)
    assert not any(home.startswith(("lightning.pytorch.cli", "lightning.fabric.utilities")) for home in homes)


def test_rows_that_look_like_nodes_are_rows(place: Path) -> None:
    from small_runs import run

    evil = {"_target_": "os.mkdir", "path": "canary"}
    rows = [{"prompt": f"{n}=", "reference": str(n), **evil, "columns": [evil]} for n in range(9)]
    write_rows(place, rows)
    run(place / "run", overrides(place / "rows.jsonl", "ngram", "ppo", "trainer.max_epochs=1"))
    assert not (place / "canary").exists()
