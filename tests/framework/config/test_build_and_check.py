"""Composing, checking and building: what is called is trusted, and what is wrong is named."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from feedtune.config import hydra_setup
from feedtune.config import trust as trusted
from feedtune.config.build import build
from feedtune.config.check import check
from feedtune.config.compose import compose_config, to_plain
from feedtune.config.discovery import own_conf
from feedtune.config.trust import is_trusted, resolve, trust
from feedtune.config.types import fits, type_name
from feedtune.errors import UserError
from feedtune.runs.assembly import GROUPS, TOP_LEVEL
from feedtune_plugins.rewards.length import Length

LENGTH = "feedtune_plugins.rewards.length.Length"


@dataclass
class Point:
    """Something to build."""

    x: float
    y: Any = None
    names: Sequence[str] = ()


def fails(key: str = "") -> None:
    """A constructor with a mistake of its own."""
    raise ValueError("no\n  good")


def refuses() -> None:
    """A constructor that says itself what is wrong."""
    raise UserError("point.z: expected less")


def needs(x: int, *, given_later: str) -> str:
    """Takes what only exists at run time."""
    return f"{x} {given_later}"


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> str:
    """The prefix of this module, trusted for the length of a test."""
    monkeypatch.setattr(trusted, "_trusted_by_user", [])
    trust([__name__])
    return __name__


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    """The config that `feedtune train task=jsonl` starts from."""
    return compose_config(["task=jsonl", "task.path=rows.jsonl", "run_dir=here"])


# Composing


def test_the_command_line_wins_over_the_experiment() -> None:
    config = compose_config(["experiment=quickstart_ppo", "collector.responses=4", "optimizer=sgd"])
    assert config.collector.responses == 4
    assert config.optimizer._target_ == "torch.optim.SGD"
    assert config.reward._target_.endswith("Sentiment")  # the experiment's


def test_an_algorithm_brings_its_collector_and_buffer() -> None:
    assert compose_config(["algorithm=q_learning"]).buffer._target_.endswith("Replay")
    assert compose_config(["algorithm=sft"]).collector._target_.endswith("Offline")
    assert compose_config(["algorithm=q_learning", "buffer=once"]).buffer._target_.endswith("Epochs")


def test_a_backbone_brings_its_tokenizer() -> None:
    assert compose_config(["backbone=ngram"]).tokenizer.kind == "char"
    assert to_plain(compose_config(["backbone=hf", "backbone.name=x"]))["tokenizer"]["name"] == "x"
    assert compose_config(["backbone=ngram", "tokenizer=word"]).tokenizer.kind == "word"


def test_the_users_own_defaults_are_read_from_conf_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "conf"
    (folder / "local").mkdir(parents=True)
    (folder / "local" / "default.yaml").write_text("# @package _global_\nseed: 7\n")
    for file in own_conf().iterdir():
        if file.name != "local":
            (folder / file.name).symlink_to(file)
    monkeypatch.setattr(hydra_setup, "own_conf", lambda: folder)
    assert compose_config().seed == 7
    assert compose_config(["seed=8"]).seed == 8


def test_composing_inside_a_hydra_application_leaves_it_as_it_is() -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(own_conf()), version_base="1.3"):
        assert compose_config(["seed=5"]).seed == 5
        assert compose("train", ["seed=6"]).seed == 6


# Checking


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", "abc", "seed: expected a whole number, got 'abc'"),
        ("seed", True, "seed: expected a whole number, got True"),
        ("report", 2, "report: expected true or false, got 2"),
        ("init_from", 3, "init_from: expected text or null, got 3"),
        ("trust", [1], "trust: expected a list, each entry text, got [1]"),
        ("optimizer.lr", "abc", "optimizer.lr: expected a number, got 'abc'"),
        ("optimizer.betas", ["a", "b"], "optimizer.betas: expected a list of 2, each entry a number, got"),
        ("optimizer.betas", [0.9], "optimizer.betas: expected a list of 2, each entry a number, got [0.9]"),
        ("optimizer.lrr", 1, "optimizer.lrr: unknown key. Did you mean 'lr'?"),
        ("collector.responses", 1.5, "collector.responses: expected a whole number, got 1.5"),
        ("collector.decoding.top_p", "a", "collector.decoding.top_p: expected a number or null, got 'a'"),
        ("collector.decoding.top_q", 1, "collector.decoding.top_q: unknown key. Did you mean 'top_p'?"),
        ("evaluation.rows", "all", "evaluation.rows: expected a whole number or null, got 'all'"),
        ("evaluation.decoding.greedy", 1, "evaluation.decoding.greedy: expected true or false, got 1"),
        ("evaluation.evry", 1, "evaluation.evry: unknown key. Did you mean 'every'?"),
        (
            "algorithm.aggregation",
            "sum",
            "algorithm.aggregation: expected one of row_sum, row_mean, token_mean, got",
        ),
        ("algorithm.value.clip", "x", "algorithm.value.clip: expected a number or null, got 'x'"),
        ("trainer.max_epochs", "many", "trainer.max_epochs: expected a whole number or null, got 'many'"),
        ("trainer.gradient_clip_val", "x", "trainer.gradient_clip_val: expected a number or null, got 'x'"),
        ("parameter_groups", {"value": 1}, "parameter_groups: expected a mapping, each value a mapping or"),
        ("tokenizer.stop", "x", "tokenizer.stop: expected a list, each entry text, got 'x'"),
        ("task.columns", {"prompt": 3}, "task.columns: expected a mapping, each value text or null, got"),
        ("task.path", "???", "task.path: not given; add task.path=... to the command"),
        ("nonsense", 1, "nonsense: there is no such key."),
        ("algoritm", 1, "algoritm: there is no such key. Did you mean 'algorithm'?"),
    ],
)
def test_a_value_that_cannot_be_meant(composed: DictConfig, key: str, value: Any, message: str) -> None:
    config = composed.copy()
    OmegaConf.update(config, key, value, force_add=True)
    with pytest.raises(UserError) as caught:
        check(config, TOP_LEVEL, GROUPS)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_plain_mapping_is_no_object(composed: DictConfig) -> None:
    config = composed.copy()
    config.algorithm.surrogate = {"low": 0.1}
    with pytest.raises(
        UserError, match=r"^algorithm\.surrogate: expected Surrogate or null.*needs a _target_$"
    ):
        check(config, TOP_LEVEL, GROUPS)


def test_every_mistake_is_told_at_once(composed: DictConfig) -> None:
    config = composed.copy()
    config.seed, config.optimizer.lr = "a", "b"
    del config.trainer
    with pytest.raises(UserError) as caught:
        check(config, TOP_LEVEL, GROUPS)
    assert str(caught.value).splitlines() == [
        "the config lacks trainer",
        "seed: expected a whole number, got 'a'",
        "optimizer.lr: expected a number, got 'b'",
    ]


def test_precision_is_chosen_from_lightnings_list(composed: DictConfig) -> None:
    config = composed.copy()
    config.trainer.precision = "bf17-mixed"
    with pytest.raises(
        UserError, match=r"^trainer\.precision: expected one of .* Did you mean 'bf16-mixed'\?$"
    ):
        check(config, TOP_LEVEL, GROUPS)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1, float, True),
        (1.0, int, False),
        (True, float, False),
        (None, float, False),
        (None, float | None, True),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        (1, Literal[True], False),
        (["a"], Sequence[str], True),
        ([1], Sequence[str], False),
        ("a", Sequence[str], False),  # text is not meant where a list of texts is
        ([1, 2], tuple[int, ...], True),
        ([1, 2], tuple[int, str], False),
        ({"a": 1}, Mapping[str, int], True),
        ({"a": "x"}, Mapping[str, int], False),
        ({"a": 1}, Point, False),
        ({"_target_": "x"}, Point, True),
        ("here", Path, True),
        (3, Path, False),
        ([1], dict, False),
        ("x", Any, True),
    ],
)
def test_what_fits(value: Any, annotation: Any, expected: bool) -> None:
    assert fits(value, annotation) is expected


def test_types_in_words() -> None:
    assert type_name(float | int | None) == "a number or null"
    assert type_name(tuple[float, float]) == "a list of 2, each entry a number"
    assert type_name(Mapping[str, Any]) == "a mapping"
    assert type_name(Point | None) == "Point or null"


# Trust


@pytest.mark.parametrize(
    ("path", "trusted"),
    [
        ("torch.optim.AdamW", True),
        ("torch.optim", True),
        ("torch.optimist.Adam", False),
        ("torch.load", False),
        ("lightning.Trainer", True),
        ("lightningrod.Trainer", False),
        ("feedtune_plugins.rewards.length.Length", True),
        ("feedtune_evil.Length", False),
        ("os.system", False),
        ("builtins.eval", False),
        ("subprocess.run", False),
        ("", False),
    ],
)
def test_prefixes_end_at_a_dot(path: str, trusted: bool) -> None:
    assert is_trusted(path) is trusted


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("os.system", "'os.system' is not trusted"),
        ("builtins.eval", "'builtins.eval' is not trusted"),
        ("subprocess.run", "'subprocess.run' is not trusted"),
        ("torch.load", "'torch.load' is not trusted"),
        # What a trusted module happens to have imported is not its own.
        (
            "feedtune.config.hydra_setup.compose",
            r"'hydra\.compose.*', which 'feedtune.config.hydra_setup.compose' leads to, is not",
        ),
        (
            "feedtune.runs.export.load_file",
            r"'safetensors.*', which 'feedtune.runs.export.load_file' leads to, is not",
        ),
        ("feedtune.config.build.partial", r"'functools\.partial', which"),
        ("feedtune.cli.os", "which 'feedtune.cli.os' leads to, is not trusted"),
        ("feedtune.cli.__builtins__", "which 'feedtune.cli.__builtins__' leads to, is not trusted"),
        ("feedtune.cli.os.system", "cannot import 'feedtune.cli.os.system'"),
        ("feedtune.cli.importlib.import_module", "cannot import"),
        ("feedtune_plugins.rewards.lenght.Length", "cannot import"),
        ("feedtune_plugins.rewards.length.Lenght", r"no 'Lenght'\. Did you mean 'Length'\?"),
        ("feedtune.cli.COMMANDS", "is not trusted"),
        ("feedtune", "expected the dotted path of a class or function, got 'feedtune'"),
        ("feedtune.", "has no ''"),
        (None, "expected the dotted path of a class or function, got None"),
        (5, "expected the dotted path of a class or function, got 5"),
    ],
)
def test_what_may_not_be_called(path: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"^reward\._target_: .*{message}") as caught:
        resolve(path, "reward._target_")
    assert "\n" not in str(caught.value)


def test_what_may_be_called() -> None:
    assert resolve(LENGTH, "reward._target_") is Length


def test_a_module_that_breaks_on_import_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    (tmp_path / "broken_plugin.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    trust(["broken_plugin"])
    with pytest.raises(UserError, match=r"cannot import 'broken_plugin\.It': ZeroDivisionError: division by"):
        resolve("broken_plugin.It", "reward._target_")


def test_the_user_trusts_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str) -> None:
    (tmp_path / "mine.py").write_text("from collections import Counter\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"add trust=\[mine\] on the command line"):
        resolve("mine.Counter", "reward._target_")
    trust(["mine"])
    assert resolve("mine.Counter", "reward._target_").__name__ == "Counter"
    monkeypatch.delitem(sys.modules, "mine")


# Building


@pytest.fixture
def nodes(own: str) -> Any:
    def point(**values: Any) -> dict[str, Any]:
        return {"_target_": f"{own}.Point", **values}

    return point


def test_nodes_inside_nodes_are_built_first(nodes: Any) -> None:
    config = OmegaConf.create(nodes(x=1, y=[{"inner": nodes(x="${x}")}, nodes(x=3)]) | {"x": 1})
    assert build(config, "point") == Point(1, [{"inner": Point(1)}, Point(3)])


def test_arguments_that_exist_only_at_run_time(own: str) -> None:
    assert build({"_target_": f"{own}.needs", "x": 1}, "it", given_later="now") == "1 now"
    # A target gets those that it has a name for.
    assert build({"_target_": f"{own}.needs", "x": 1}, "it", given_later="now", other=2) == "1 now"
    with pytest.raises(UserError, match=r"^it\.given_later: not given, and it has no default$"):
        build({"_target_": f"{own}.needs", "x": 1}, "it")


def test_a_partial_node_is_called_later_and_still_names_its_key(own: str) -> None:
    later = build({"_target_": f"{own}.needs", "_partial_": True, "x": 1}, "it")
    assert later(given_later="tomorrow") == "1 tomorrow"
    late_mistake = build({"_target_": "torch.optim.SGD", "_partial_": True, "lr": -1.0}, "optimizer")
    with pytest.raises(UserError, match=r"^optimizer\.lr: Invalid learning rate: -1\.0$"):
        late_mistake([])


@pytest.mark.parametrize(
    ("values", "begins"),
    [
        ({"eps": -1}, "optimizer.eps: Invalid epsilon value: -1"),
        ({"betas": [0.9, 1.5]}, "optimizer.betas: Invalid beta parameter at index 1: 1.5"),
        ({"weight_decay": -2, "lr": 0.1}, "optimizer.weight_decay: Invalid weight_decay value: -2"),
        ({"differentiable": True, "fused": True}, "optimizer: "),  # names two: which is wrong is not known
    ],
)
def test_what_an_optimizer_says_of_an_argument_names_it(values: dict[str, Any], begins: str) -> None:
    make = build({"_target_": "torch.optim.Adam", "_partial_": True, **values}, "optimizer")
    with pytest.raises(UserError) as refused:
        make([torch.nn.Parameter(torch.zeros(2))])
    assert str(refused.value).startswith(begins)


def test_what_is_not_to_be_recursed_into_stays(nodes: Any) -> None:
    inner = nodes(x=1)
    assert build(nodes(x=0, y=inner, _recursive_=False), "point").y == inner


def test_an_empty_node_is_nothing() -> None:
    assert build({}, "logger") is None
    assert build(None, "logger") is None


@pytest.mark.parametrize("node", [{"scale": 1}, [1], "text"])
def test_a_node_needs_a_target(node: Any) -> None:
    with pytest.raises(UserError, match=r"^reward: expected a mapping with a _target_, got"):
        build(node, "reward")


def test_an_error_of_a_constructor_names_the_key(own: str) -> None:
    with pytest.raises(UserError, match=r"^outer\.y\[0\]: no good$"):
        build({"_target_": f"{own}.Point", "x": 1, "y": [{"_target_": f"{own}.fails"}]}, "outer")
    with pytest.raises(UserError, match=r"^point\.z: expected less$"):
        build({"_target_": f"{own}.refuses"}, "it")
    with pytest.raises(UserError, match=r"^trainer\.max_epochs: .*-5\.$"):  # Lightning's own exception
        build({"_target_": "lightning.Trainer", "max_epochs": -5, "accelerator": "cpu"}, "trainer")


def test_nothing_is_called_before_everything_in_it_is_trusted(nodes: Any, tmp_path: Path) -> None:
    evil = {"_target_": "os.system", "command": f"touch {tmp_path / 'pwned'}"}
    with pytest.raises(UserError, match=r"^point\.y\.a\[0\]\._target_: 'os\.system' is not trusted"):
        build(nodes(x=1, y={"a": [evil]}), "point")
    assert not (tmp_path / "pwned").exists()


def test_text_that_would_be_an_interpolation_if_read_twice_stays_text(nodes: Any) -> None:
    """`oc.create` makes a node of text: read twice, an escaped one would be called unchecked."""
    config = OmegaConf.create(nodes(x=1, y='\\${oc.create:"{_target_: pathlib.Path}"}'))
    assert build(config, "point").y == '${oc.create:"{_target_: pathlib.Path}"}'


def test_an_interpolation_that_makes_a_node_is_checked_like_any_other(nodes: Any) -> None:
    config = OmegaConf.create(nodes(x=1, y='${oc.create:"{_target_: os.system, command: id}"}'))
    with pytest.raises(UserError, match=r"^point\.y\._target_: 'os\.system' is not trusted"):
        build(config, "point")


def test_an_interpolation_to_nowhere_names_its_key() -> None:
    with pytest.raises(UserError, match=r"^a\.b: Interpolation key 'nothere' not found$"):
        to_plain(OmegaConf.create({"a": {"b": "${nothere}"}}))
