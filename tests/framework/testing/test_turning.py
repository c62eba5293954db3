"""No parameter without effect: idle keys are found, and none that does something is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch

from feedtune.checks import check_choice, check_unit, check_used
from feedtune.config.trust import trust
from feedtune.contracts import Plan, Sample
from feedtune.testing import RewardSuite
from feedtune.testing.sameness import alike
from feedtune.testing.turning import Refusal, idle_keys, turnable, turned_values

trust([__name__])


class Part:
    """A part of its own."""

    def __init__(self, *, weight: float = 1.0, dead: float = 0.0) -> None:
        self.weight = weight


class Whole:
    """Everything that a key can be, some of it idle."""

    def __init__(
        self,
        *,
        shift: int = 1,
        loud: bool = False,
        mode: Literal["add", "drop"] = "add",
        words: Sequence[str] = ("a",),
        weights: Mapping[str, float] | None = None,
        part: Part | None = None,
        decay: float | None = None,
        share: float = 0.5,
        idle: bool = False,
        checked: float = 0.5,
        forgotten: str = "a",
    ) -> None:
        check_choice("reward.mode", mode, ("add", "drop"))
        check_used("reward.decay", decay, mode == "drop", "reward.mode=drop")
        check_unit("reward.checked", checked)  # and that is all that becomes of it
        self.values = [shift, loud, mode, list(words), weights, part.weight if part else None, decay, share]


NODE = {
    "_target_": f"{__name__}.Whole",
    "shift": 1,
    "loud": False,
    "mode": "add",
    "words": ["a", "b"],
    "weights": {"x": 1.0, "y": 2.0},
    "part": {"_target_": f"{__name__}.Part", "weight": 1.0, "dead": 0.0},
    "decay": None,
    "share": 0.5,
    "idle": False,
    "checked": 0.5,
    "forgotten": "a",
}


def built(node: Mapping[str, Any]) -> Whole:
    part = {name: value for name, value in node["part"].items() if name != "_target_"}
    rest = {name: value for name, value in node.items() if name not in ("_target_", "part")}
    return Whole(**rest, part=Part(**part))


def test_idle_keys_are_found_and_no_others() -> None:
    """`decay` is refused whatever it is, and so read; `checked` is refused where it is out of range only."""
    assert idle_keys(NODE, built, lambda made: made.values) == ["part.dead", "idle", "checked", "forgotten"]


def test_some_may_be_idle() -> None:
    unseen = frozenset({"part.dead", "idle", "checked", "forgotten"})
    assert idle_keys(NODE, built, lambda made: made.values, unseen) == []


def test_every_key_is_turned_with_its_own_type() -> None:
    found = {".".join(path): hint for path, hint in turnable(NODE)}
    assert set(found) == {
        *("shift", "loud", "mode", "words", "weights.x", "weights.y", "part.weight", "part.dead"),
        *("decay", "share", "idle", "checked", "forgotten"),
    }
    assert found["part.weight"] is float
    assert found["weights.x"] is float
    assert found["decay"] == float | None


@pytest.mark.parametrize(
    ("value", "hint", "others"),
    [
        (3, int, [6, 4, 1, 0, 30]),
        (0.25, float, [0.5, 1.25, 0.125, 1.0, 0.0, 2.5]),
        (2, float | None, [4.0, 3.0, 1.0, 0.0, 0.5, 20.0]),
        (False, bool, [True]),
        ("b", Literal["a", "b", "c"], ["a", "c"]),
        (None, Literal["a", "b"] | None, ["a", "b"]),
        (None, float | None, [0.5, 2.0, 0.1, 1.001, 0.0]),
        (None, bool | None, [True]),
        (None, Part | None, []),
        ("file", str, ["filex"]),
        (["a", "b"], Sequence[str], [["b"]]),
        ([], Sequence[str], []),
    ],
)
def test_what_a_value_is_turned_to(value: Any, hint: Any, others: list[Any]) -> None:
    assert list(turned_values(value, hint)) == others


def test_what_never_does_the_same_twice_cannot_be_compared() -> None:
    with pytest.raises(AssertionError, match="made twice from the same config"):
        idle_keys(NODE, built, lambda made: torch.rand(3))


def test_rounding_is_no_effect() -> None:
    node = {"_target_": f"{__name__}.Part", "weight": 1.0}
    assert idle_keys(node, lambda n: n["weight"], lambda w: torch.tensor([1.0]) + 1e-7 * w) == ["weight"]
    assert idle_keys(node, lambda n: n["weight"], lambda w: torch.tensor([1.0]) + 1e-3 * w) == []


class Shouting:
    """Scores the letters of a response, times what; and has a key that nobody reads."""

    def __init__(self, *, scale: float = 1.0, volume: int = 3) -> None:
        self.scale = scale

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        return [self.scale * len(sample.response) for sample in samples]


def test_a_suite_that_knows_its_yaml_names_the_idle_key() -> None:
    class Suite(RewardSuite):
        config: ClassVar[dict[str, Any]] = {"_target_": f"{__name__}.Shouting", "scale": 1.0, "volume": 3}

        def make(self) -> Any:
            return self.built_from(self.config)

    with pytest.raises(AssertionError, match=r"change nothing: volume\. If that is right"):
        Suite().test_no_parameter_is_without_effect()

    class Excused(Suite):
        unseen = frozenset({"volume"})

    Excused().test_no_parameter_is_without_effect()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor([1.0]), torch.tensor([2.0])),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64)),
        (torch.tensor([1.0]), torch.tensor([[1.0]])),
        ({"a": 1}, {"a": 1, "b": None}),
        ([1, 2], [2, 1]),
        ((1, "a"), (1, "b")),
        (Plan(1, 2, 3), Plan(1, 2, 4)),
        (Refusal("a"), Refusal("b")),
        (Plan(1, 2, 3), [1, 2, 3]),
        (1, 1.0),
        (True, 1),
        (np.array([1, 2]), np.array([1, 3])),
        ({"a"}, {"b"}),
        (torch.tensor([float("nan")]), torch.tensor([0.0])),
        (float("nan"), 0.0),
    ],
    ids=str,
)
def test_what_differs_is_not_alike(one: Any, other: Any) -> None:
    assert alike(one, one)
    assert alike(other, other)
    assert not alike(one, other)
    assert not alike(one, other, 1e-5)


def test_numbers_may_be_rounded_and_others_not() -> None:
    assert alike(torch.tensor([1.0]), torch.tensor([1.0 + 1e-6]), within=1e-5)
    assert not alike(torch.tensor([1.0]), torch.tensor([1.0 + 1e-6]))
    assert alike(1.0, 1.0 + 1e-6, within=1e-5)
    assert not alike(torch.tensor([1_000_000]), torch.tensor([1_000_001]), within=1e-5)
