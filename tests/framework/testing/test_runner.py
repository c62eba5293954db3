"""The runner of laws without pytest: what passed, what failed and why, what does not apply."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import feedtune.testing
from feedtune.errors import UserError
from feedtune.testing.runner import LONGEST, measured, readable, run_suite, said
from feedtune.testing.suite import Suite, seeded, untouched_randomness

SEEN: list[Path] = []


class Some(Suite):
    """Laws of all outcomes."""

    group = "reward"

    def make(self) -> Any:
        return self

    def test_it_holds(self) -> None:
        assert True

    def test_it_does_not_hold(self) -> None:
        raise AssertionError("order: the scores\n  do not\tfollow")

    def test_it_says_nothing(self) -> None:
        assert 1 == 2

    def test_it_breaks_down(self) -> None:
        raise KeyError("tokens")

    def test_it_does_not_apply(self) -> None:
        return self.inapplicable("there is no CUDA device here")

    def test_it_gets_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        SEEN.append(tmp_path)

    test_no_parameter_is_without_effect = None  # type: ignore[assignment]


def test_every_law_runs_once_and_says_how_it_went() -> None:
    results = list(run_suite(Some))
    assert [(r.law, r.outcome) for r in results] == [
        ("its docstring says what it is", "passed"),
        ("it holds", "passed"),
        ("it does not hold", "failed"),
        ("it says nothing", "failed"),
        ("it breaks down", "failed"),
        ("it does not apply", "not applicable"),
        ("it gets a folder", "passed"),
    ]
    said = {r.law: r.message for r in results}
    assert said["it does not hold"] == "order: the scores do not follow"
    assert "1 == 2" in said["it says nothing"]
    assert said["it breaks down"].startswith("KeyError: 'tokens' (test_runner.py:")
    assert said["it does not apply"] == "there is no CUDA device here"
    assert all(r.seconds >= 0 for r in results)
    assert not SEEN[-1].exists()


def test_messages_are_one_paragraph_and_not_too_long() -> None:
    assert said(UserError("reward.path: not given;\n  say which")) == "reward.path: not given; say which"
    assert said(AssertionError()) == "this does not hold: ?"
    long = said(AssertionError("word " * 1000))
    assert len(long) == LONGEST + 3
    assert long.endswith("...")


def test_a_law_leaves_the_global_generators_alone() -> None:
    before = torch.get_rng_state(), random.getstate()
    first = measured("it draws", lambda: torch.rand(5))
    assert first.outcome == "passed"
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_seeded_gives_the_same_and_puts_back() -> None:
    state = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with seeded(3):
            drawn.append((float(torch.rand(())), random.random()))
    assert drawn[0] == drawn[1]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("draw", "name"),
    [("torch.rand(1)", "torch"), ("random.random()", "Python"), ("np.random.rand()", "NumPy")],
)
def test_whoever_draws_globally_is_named(draw: str, name: str) -> None:
    import numpy as np

    with (
        seeded(0),
        pytest.raises(AssertionError, match=f"the global generator of {name};"),
        untouched_randomness(),
    ):
        eval(draw, {"torch": torch, "random": random, "np": np})


def test_the_names_of_laws_read_as_words() -> None:
    assert readable("test_rows_may_stand_in_any_order") == "rows may stand in any order"


def test_every_public_name_is_there_and_needs_no_pytest() -> None:
    """In a process that cannot import pytest; and the names come when they are asked for."""
    names = feedtune.testing.__all__
    assert {"BackboneSuite", "AlgorithmSuite", "RewardSuite", "TaskSuite", "CollectorSuite"} <= set(names)
    assert dir(feedtune.testing) == names == sorted(names)
    code = (
        "import sys\n"
        "sys.modules['pytest'] = None\n"
        "import feedtune.testing as t\n"
        "assert 'torch' not in sys.modules\n"
        "print([getattr(t, name).__name__ for name in t.__all__])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == str(names)
    with pytest.raises(AttributeError, match="has no attribute 'Suites'"):
        feedtune.testing.Suites  # type: ignore[attr-defined]  # noqa: B018
