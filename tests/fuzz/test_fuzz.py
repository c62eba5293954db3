"""A share of the fuzzing for every change, always the same cases; `python tests/fuzz/run.py` goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from fuzz import checkpoints, configs, rows, tallies
from fuzz.tallies import WrongError, fuzz, smallest, tried

KINDS = {
    # kind: cases, place, how many, and what has to come of some of them
    "configs": (configs.cases, configs.Place, 6, {"trained", "refused"}),
    "rows": (rows.cases, rows.Place, 150, {"read", "refused"}),
    "checkpoints": (checkpoints.cases, checkpoints.Place, 60, {"older"}),
}


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Undo what Hydra does to the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize("kind", KINDS)
def test_no_case_ends_in_a_traceback_a_hang_or_a_damaged_state(kind: str, tmp_path: Path) -> None:
    cases, place, count, wanted = KINDS[kind]
    tally = fuzz(kind, cases(), place(tmp_path).trial, examples=count, number=6)
    assert tally.failures == []
    assert tally.tried >= count * 0.8  # hypothesis may draw a case twice
    assert wanted <= set(tally.outcomes), tally.line()


@pytest.mark.usefixtures("own_logging")
def test_what_is_to_be_found_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bugs of each kind, put in: the harness names them."""
    place = configs.Place(tmp_path)
    base = ["seed=1", configs.KEPT]
    monkeypatch.setattr(configs, "main", lambda arguments: 0 // ("x=bad" not in arguments))
    assert tried(place.trial, [*base, "x=bad"]) == (
        None,
        "ZeroDivisionError: integer division or modulo by zero",
    )
    assert smallest([*base, "a=1", "x=bad", "b=2"], 2, place.trial) == [*base, "x=bad"]
    for code, said in ((1, "feedtune: KeyError: 'x'"), (2, "usage: no"), (2, "feedtune: Traceback")):

        def told(arguments: Any, code: int = code, said: str = said) -> int:
            import sys

            print(said, file=sys.stderr)
            return code

        monkeypatch.setattr(configs, "main", told)
        assert tried(place.trial, base)[0] is None
    monkeypatch.setattr(configs, "main", lambda arguments: (tmp_path / "canary").mkdir() or 0)
    assert tried(place.trial, base)[1] == "something was called that nobody trusts"
    assert not (tmp_path / "canary").exists()


def test_a_hang_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "CPU_SECONDS", 0.2)

    def forever(case: Any) -> str:
        while True:
            sum(range(1000))

    outcome, happened = tried(forever, None)
    assert outcome is None
    assert happened.startswith("hangs")


def test_a_damaged_state_that_is_taken_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = checkpoints.Place(tmp_path)

    def first(folder: Path) -> Path:
        return folder / "checkpoints" / place.newer.name / "state.ckpt"

    monkeypatch.setattr(checkpoints, "newest", first)
    monkeypatch.setattr(checkpoints.torch, "load", lambda path, weights_only: None)
    files = sorted(file for file in place.newer.rglob("*") if file.is_file())
    state = files.index(place.newer / "state.ckpt")
    flip = checkpoints.Damage(state, "flip", 0.5, b"\x01")
    assert tried(place.trial, [flip]) == (None, "a damaged state was taken for a whole one")


def test_counts_are_kept() -> None:
    def trial(case: int) -> str:
        if case > 50:
            raise WrongError("too large")
        return "even" if case % 2 == 0 else "odd"

    tally = fuzz("numbers", st.integers(0, 99), trial, examples=40, number=1)
    again = fuzz("numbers", st.integers(0, 99), trial, examples=40, number=1)
    assert tally.line() == again.line()
    assert tally.tried == sum(tally.outcomes.values()) + len(tally.failures)
    assert {"even", "odd"} == set(tally.outcomes)
    assert all(case > 50 and happened == "too large" for case, happened in tally.failures)
