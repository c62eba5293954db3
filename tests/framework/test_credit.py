"""Credit of tokens beside the records of a rollout: by hand, and in the samples.jsonl of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from feedtune.contracts import Rollout
from feedtune.credit import TOKENS, with_credit
from feedtune.experience import Experience, from_rows
from small_runs import overrides, run, write_rows


def spell(tokens: Sequence[int]) -> list[str]:
    return [f"<{token}>" for token in tokens]


def columns(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)


# Row 0: a prompt of one token, then three actions. Row 1: two actions, an observation (7), an action.
EXP = from_rows([[1, 2, 3, 4], [1, 5, 6, 7, 8]], [[0, 1, 1, 1], [0, 1, 1, 0, 1]], scores=[1.0, 2.0])
LOGP = columns([0.0, -1.0, -2.0, -3.0, 0.0], [0.0, -0.5, -0.25, 0.0, -4.0])
REF = columns([0.0, -1.5, -2.0, -2.0, 0.0], [0.0, -0.5, -1.25, 0.0, -3.0])
ADVANTAGE = columns([0.0, 0.5, -0.25, 1.23456, 0.0], [0.0, 1.0, 2.0, 0.0, 3.0])
RECORDS = [{"response": "first"}, {"response": "second"}]


def rollout_of(exp: Experience, rows: Sequence[int] = (0, 1), records: Sequence[Any] = RECORDS) -> Rollout:
    return Rollout(exp, {}, records, rows)


def test_what_each_token_earned_by_hand() -> None:
    prepared = replace(EXP, sampler_logp=LOGP, ref_logp=REF).with_(advantage=ADVANTAGE)
    first, second = with_credit(rollout_of(EXP), prepared, spell)
    assert first == {
        "response": "first",
        "tokens": ["<2>", "<3>", "<4>"],
        "advantage": [0.5, -0.25, 1.235],  # four digits
        "kl": [0.5, 0.0, -1.0],  # -1 + 1.5, -2 + 2, -3 + 2
    }
    # The observation is told too, so that the response can be read; it earned nothing.
    assert second == {
        "response": "second",
        "tokens": ["<5>", "<6>", "<7>", "<8>"],
        "advantage": [1.0, 2.0, None, 3.0],
        "kl": [0.0, 1.0, None, -1.0],
    }


def test_records_say_which_row_they_are_of() -> None:
    prepared = EXP.with_(advantage=ADVANTAGE)
    found = with_credit(rollout_of(EXP, [1], [{"response": "second"}]), prepared, spell)
    assert [record["tokens"] for record in found] == [["<5>", "<6>", "<7>", "<8>"]]
    assert with_credit(rollout_of(EXP, []), prepared, spell) == RECORDS  # not known
    with pytest.raises(RuntimeError, match="named 1 rows for 2 records"):
        with_credit(rollout_of(EXP, [1]), prepared, spell)


def test_old_log_probabilities_are_those_of_what_acted() -> None:
    prepared = replace(EXP, sampler_logp=LOGP, old_logp=LOGP + 0.5, ref_logp=REF)
    first, _ = with_credit(rollout_of(EXP), prepared, spell)
    assert first["kl"] == [1.0, 0.5, -0.5]
    assert "advantage" not in first


@pytest.mark.parametrize(
    "exp",
    [
        EXP,
        replace(EXP, ref_logp=REF),  # of imitated text nobody knows what acted
        replace(EXP, sampler_logp=LOGP),
        EXP.with_(advantage=torch.tensor([1.0, 2.0])),  # another thing of the same name: one a row
    ],
)
def test_without_numbers_records_stay_as_they_are(exp: Experience) -> None:
    assert with_credit(rollout_of(EXP), exp, spell) == RECORDS


def test_an_algorithm_that_moves_columns_gets_no_credit() -> None:
    assert with_credit(rollout_of(EXP), EXP.with_(advantage=ADVANTAGE).padded(1, 0), spell) == RECORDS


def test_rows_that_take_part_in_nothing() -> None:
    unscored = from_rows([[1, 2], [1, 3]], [[0, 1], [0, 1]], scores=[math.nan, 1.0])
    found = with_credit(rollout_of(unscored), unscored.with_(advantage=torch.ones(2, 2)), spell)
    assert found == [{"response": "first"}, {"response": "second", "tokens": ["<3>"], "advantage": [1.0]}]
    # Left out later, as a row that is not finite is: it was said, but has no number.
    left = replace(EXP, action=EXP.action & torch.tensor([[False], [True]])).with_(advantage=ADVANTAGE)
    assert with_credit(rollout_of(EXP), left, spell)[0]["advantage"] == [None, None, None]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_json_is_null(bad: float) -> None:
    advantage = ADVANTAGE.clone()
    advantage[0, 2] = bad
    found = with_credit(rollout_of(EXP), EXP.with_(advantage=advantage), spell)
    assert found[0]["advantage"] == [0.5, None, 1.235]
    json.dumps(found, allow_nan=False)


def test_few_records_and_bounded_length() -> None:
    long = from_rows([list(range(TOKENS + 50))] * 6, [[False] + [True] * (TOKENS + 49)] * 6)
    advantage = torch.arange(TOKENS + 50.0).expand(6, -1)
    records = [{"response": str(i)} for i in range(6)]
    found = with_credit(rollout_of(long, range(6), records), long.with_(advantage=advantage), spell)
    assert [len(record.get("tokens", ())) for record in found] == [TOKENS] * 4 + [0, 0]
    assert [record["response"] for record in found] == list("012345")
    assert found[0]["advantage"][-1] == TOKENS  # the first action is token 1


def read(folder: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_samples_of_a_run(tmp_path: Path) -> None:
    """Four of a rollout's records, whole, with numbers that are JSON."""
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo", "optimizer.lr=0.05")
    run(tmp_path / "run", chosen)
    samples = read(tmp_path / "run")
    assert len(samples) == 16
    credited = [sample for sample in samples if "tokens" in sample]
    assert [sample["epoch"] for sample in credited] == [0] * 4 + [1] * 4
    for sample in credited:
        said = "".join(token for token in sample["tokens"] if not token.startswith("<"))
        assert said.strip() == sample["response"]
        assert len(sample["tokens"]) == len(sample["advantage"]) == len(sample["kl"]) <= 4
        assert any(sample["advantage"])
    # Before the first step the policy is its reference; afterwards it is not.
    assert not any(value for sample in credited[:4] for value in sample["kl"])
    assert any(value for sample in credited[4:] for value in sample["kl"])


def test_samples_of_an_algorithm_without_advantages(tmp_path: Path) -> None:
    run(tmp_path / "run", overrides(write_rows(tmp_path), "lstm", "q_learning", "trainer.max_epochs=1"))
    samples = read(tmp_path / "run")
    assert samples
    assert not any({"tokens", "advantage", "kl"} & sample.keys() for sample in samples)
