"""The policy of calls: limits of time, further attempts, and what a call that failed leaves behind."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from feedtune.config.compose import compose_config
from feedtune.contracts import RewardSource, Sample, Scores
from feedtune.errors import UserError
from feedtune.rewards import (
    CombinedSource,
    Missing,
    RewardCalls,
    SourceFailure,
    call_metrics,
    guarded,
    note_retry,
    rows_missing,
    score_samples,
)
from feedtune.runs.assembly import assemble, checked
from feedtune_plugins.rewards.function import Function
from feedtune_plugins.rewards.length import Length
from feedtune_plugins.rewards.sum import Sum
from small_runs import overrides, write_rows

SAMPLES = [Sample("Hi", "a"), Sample("Hi", "b b")]
PATIENT = RewardCalls(attempts=3, wait=0.0)
FORGIVING = RewardCalls(on_failure="missing")


class Flaky:
    """Fails so many times, each time in its own way, and then scores each response by its length."""

    def __init__(self, *failures: Any) -> None:
        self.failures, self.calls = list(failures), 0

    def __call__(self, samples: Sequence[Sample]) -> Any:
        self.calls += 1
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, Exception):
            raise failure
        return [float(len(one.response)) for one in samples] if failure is None else failure


@pytest.fixture
def hanging() -> Iterator[Callable[[Sequence[Sample]], list[float]]]:
    """A source that hangs until the test is over."""
    over = threading.Event()

    def hang(samples: Sequence[Sample]) -> list[float]:
        over.wait(60)
        return [0.0 for _ in samples]

    yield hang
    over.set()


# Attempts


@pytest.mark.parametrize("failure", [RuntimeError("gone"), [1.0], [math.inf, 0.0], object(), "good"])
def test_whatever_fails_is_tried_again(failure: Any) -> None:
    source = Flaky(failure, failure)
    reward = guarded(source, PATIENT)
    assert score_samples(reward, SAMPLES).total.tolist() == [1.0, 3.0]
    assert source.calls == 3
    assert reward.metrics() == {"reward/failures": 2.0, "reward/retries": 2.0}


def test_after_the_last_attempt_the_last_failure_is_told() -> None:
    source = Flaky(RuntimeError("one"), RuntimeError("two"), RuntimeError("three"))
    with pytest.raises(SourceFailure) as caught:
        score_samples(guarded(source, PATIENT), SAMPLES)
    assert str(caught.value) == (
        "reward 'Flaky' failed on 2 samples (the first prompt: 'Hi'): RuntimeError: three "
        "(test_calls.py:54); tried 3 times"
    )
    assert source.calls == 3


def test_what_the_user_chose_is_not_tried_again_nor_taken_for_missing() -> None:
    source = Flaky(UserError("no column 'answer'"))
    calls = RewardCalls(attempts=3, wait=0.0, on_failure="missing")
    with pytest.raises(UserError, match=r"^no column 'answer'$"):
        score_samples(guarded(source, calls), SAMPLES)
    assert source.calls == 1


def test_by_default_one_attempt_is_all_and_nothing_is_logged() -> None:
    source = Flaky(RuntimeError("gone"))
    reward = guarded(source, RewardCalls())
    with pytest.raises(SourceFailure, match=r"RuntimeError: gone \(test_calls\.py:54\)$"):
        score_samples(reward, SAMPLES)
    assert source.calls == 1
    quiet = guarded(Flaky(), RewardCalls())
    score_samples(quiet, SAMPLES)
    assert quiet.metrics() == {}


def test_attempts_leave_the_runs_random_numbers_alone() -> None:
    """Waiting is drawn by chance, but from nowhere that the run draws from."""
    random.seed(0)
    torch.manual_seed(0)
    before = random.getstate(), torch.get_rng_state()
    score_samples(guarded(Flaky(ValueError()), RewardCalls(attempts=2, wait=0.001)), SAMPLES)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_source_with_attempts_of_its_own_is_counted() -> None:
    def stubborn(samples: Sequence[Sample]) -> list[float]:
        note = note_retry()
        threads = [threading.Thread(target=note) for _ in range(3)]
        for thread in threads:
            thread.start()
            thread.join()
        return [1.0 for _ in samples]

    for timeout in (None, 30.0):
        reward = guarded(stubborn, RewardCalls(timeout=timeout))
        score_samples(reward, SAMPLES)
        assert reward.metrics() == {"reward/retries": 3.0}
        assert reward.metrics() == {}  # they have been taken
    assert stubborn(SAMPLES) == [1.0, 1.0]  # by itself it counts for nobody


def test_more_attempts_need_tenacity_and_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tenacity", None)
    score_samples(guarded(Flaky(), RewardCalls()), SAMPLES)
    with pytest.raises(UserError) as caught:
        guarded(Flaky(), PATIENT)
    assert str(caught.value) == (
        "reward_calls.attempts above 1 needs the package 'tenacity'. "
        "Install it with: pip install 'feedtune[remote]'"
    )


# Limits of time


def test_a_source_that_hangs_is_left_behind(hanging: Any) -> None:
    reward = guarded(hanging, RewardCalls(timeout=0.05))
    began = time.monotonic()
    with pytest.raises(SourceFailure) as caught:
        score_samples(reward, SAMPLES)
    assert time.monotonic() - began < 5
    assert str(caught.value) == (
        "reward 'hang' took more than reward_calls.timeout=0.05 seconds for 2 samples "
        "(the first prompt: 'Hi')"
    )


def test_one_that_hangs_only_once_is_tried_again(hanging: Any) -> None:
    calls: list[int] = []

    def sometimes(samples: Sequence[Sample]) -> list[float]:
        calls.append(len(samples))
        return hanging(samples) if len(calls) == 1 else [2.0 for _ in samples]

    reward = guarded(sometimes, RewardCalls(timeout=0.2, attempts=2, wait=0.0))
    assert score_samples(reward, SAMPLES).total.tolist() == [2.0, 2.0]
    assert reward.metrics() == {"reward/failures": 1.0, "reward/retries": 1.0}


def test_calls_that_hang_do_not_pile_up(hanging: Any, capsys: pytest.CaptureFixture[str]) -> None:
    reward = guarded(hanging, RewardCalls(timeout=0.01, on_failure="missing"))
    for _ in range(8):
        assert reward(SAMPLES).total.isnan().all()
    with pytest.raises(UserError, match=r"^reward 'hang': 8 calls of it hang, long after"):
        reward(SAMPLES)


def test_no_call_that_hangs_keeps_the_process_alive(tmp_path: Path) -> None:
    """One sleeps, the other never stops computing; the message and the exit code still come."""
    script = tmp_path / "hangs.py"
    script.write_text(
        "import sys, time\n"
        "from feedtune.contracts import Sample\n"
        "from feedtune.errors import UserError\n"
        "from feedtune.rewards import RewardCalls, guarded, score_samples\n"
        "def sleeps(samples):\n    time.sleep(600)\n"
        "def computes(samples):\n    while True:\n        pass\n"
        "for source in (sleeps, computes):\n"
        "    try:\n"
        "        score_samples(guarded(source, RewardCalls(timeout=0.1)), [Sample('Hi', 'Ho')])\n"
        "    except UserError as error:\n        print(error)\n"
        "raise SystemExit(3)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert [line.split(" took more than")[0] for line in done.stdout.splitlines()] == [
        "reward 'sleeps'",
        "reward 'computes'",
    ]


# What a failure for good leaves behind


def test_a_failure_is_missing_and_never_0(capsys: pytest.CaptureFixture[str]) -> None:
    reward = guarded(Flaky(RuntimeError("gone"), RuntimeError("gone")), FORGIVING)
    scores = score_samples(reward, SAMPLES)
    assert isinstance(scores, Missing)
    assert scores.total.isnan().tolist() == [True, True]
    assert rows_missing(reward) == 2
    reward(SAMPLES)
    assert reward.metrics() == {"reward/failures": 2.0, "reward/missing": 4.0}
    assert score_samples(reward, SAMPLES).total.tolist() == [1.0, 3.0]
    assert reward.metrics() == {"reward/failures": 0.0, "reward/missing": 0.0}  # a column of every rollout
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "feedtune: reward 'Flaky' failed on 2 samples (the first prompt: 'Hi'): RuntimeError: gone "
        "(test_calls.py:54). "
        "reward_calls.on_failure=missing: 2 rows without a score"
    ]  # once a rollout, however many calls fail in it
    reward.source.source.failures = [RuntimeError("again")]  # type: ignore[attr-defined]
    reward(SAMPLES)
    assert "RuntimeError: again" in capsys.readouterr().err  # the next rollout tells anew


def test_a_source_without_a_policy_has_no_counts() -> None:
    assert call_metrics(Flaky()) == call_metrics(None) == {}
    assert rows_missing(Flaky()) == rows_missing(None) == 0


def test_a_guarded_function_of_the_users_is_tried_again_when_it_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "calls = []\n"
        "def score(responses):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 1:\n        raise OSError('busy')\n"
        "    return [0.5] if len(calls) == 2 else [0.5] * len(responses)\n"
        "def wants(answer):\n    return []\n"
    )
    reward = guarded(Function(path="./mine.py:score"), PATIENT)
    assert score_samples(reward, SAMPLES).total.tolist() == [0.5, 0.5]
    assert reward.metrics()["reward/failures"] == 2.0
    with pytest.raises(UserError, match="wants 'answer'"):
        score_samples(guarded(Function(path="./mine.py:wants"), FORGIVING), SAMPLES)


# Sums


def one(samples: Sequence[Sample]) -> list[float]:
    return [1.0 for _ in samples]


def gone(samples: Sequence[Sample]) -> list[float]:
    raise OSError("gone")


def test_each_source_of_a_sum_is_tried_by_itself_and_named() -> None:
    steady, flaky = Flaky(), Flaky(OSError("busy"))
    reward = guarded(Sum(sources={"steady": steady, "inner": Sum(sources={"flaky": flaky})}), PATIENT)
    assert isinstance(Sum(sources={"one": one}), CombinedSource)
    assert score_samples(reward, SAMPLES).total.tolist() == [2.0, 6.0]
    assert (steady.calls, flaky.calls) == (1, 2)
    nested = guarded(Sum(sources={"one": one, "inner": Sum(sources={"bad": gone})}), RewardCalls())
    with pytest.raises(SourceFailure) as caught:
        score_samples(nested, SAMPLES)
    assert str(caught.value) == (
        "reward.sources.inner: reward.sources.bad: reward 'gone' failed on 2 samples "
        "(the first prompt: 'Hi'): OSError: gone (test_calls.py:266)"
    )


@pytest.mark.parametrize("missing", ["nan", "ignore"])
def test_a_sum_without_one_that_failed_is_no_sum(missing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """`ignore` is for sources without an opinion: a failure would count as 0 beside rows where it spoke."""
    reward = guarded(Sum(sources={"one": one, "bad": gone}, missing=missing), FORGIVING)
    scores = score_samples(reward, SAMPLES)
    assert scores.total.isnan().all()
    assert scores.parts["one"].tolist() == [1.0, 1.0]
    assert scores.parts["bad"].isnan().all()
    assert reward.metrics() == {"reward/failures": 1.0, "reward/missing": 2.0}
    assert capsys.readouterr().err.startswith(
        "feedtune: reward.sources.bad: reward 'gone' failed on 2 samples"
    )


def test_also_where_the_sum_is_within_a_sum() -> None:
    inner = Sum(sources={"one": one, "bad": gone}, missing="ignore")
    reward = guarded(Sum(sources={"one": one, "inner": inner}, missing="ignore"), FORGIVING)
    scores = score_samples(reward, SAMPLES)
    assert scores.total.isnan().all()
    assert scores.parts["inner/one"].tolist() == [1.0, 1.0]


def test_a_source_that_is_only_logged_may_fail() -> None:
    reward = guarded(Sum(sources={"one": one, "bad": gone}, weights={"bad": 0}), FORGIVING)
    assert score_samples(reward, SAMPLES).total.tolist() == [1.0, 1.0]
    assert reward.metrics() == {"reward/failures": 1.0, "reward/missing": 0.0}


# The node of the config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"timeout": 0}, "reward_calls.timeout: expected a number above 0, got 0"),
        ({"timeout": math.nan}, "reward_calls.timeout: expected a number above 0, got nan"),
        ({"timeout": math.inf}, "reward_calls.timeout: expected a finite number; null is no limit"),
        ({"attempts": 0}, "reward_calls.attempts: expected at least 1, got 0"),
        ({"wait": 5.0}, "reward_calls.wait: only reward_calls.attempts above 1 has a use for it"),
        ({"attempts": 2, "wait": -1}, "reward_calls.wait: expected 0 to 3600 seconds, got -1"),
        ({"attempts": 2, "wait": 3601}, "reward_calls.wait: expected 0 to 3600 seconds, got 3601"),
        ({"on_failure": "zero"}, "reward_calls.on_failure: expected one of stop, missing, got 'zero'."),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        RewardCalls(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("reward_calls.timeout=soon", "reward_calls.timeout: expected a number or null, got 'soon'"),
        ("reward_calls.attempts=1.5", "reward_calls.attempts: expected a whole number, got 1.5"),
        ("reward_calls.attempts=0", "reward_calls.attempts: expected at least 1, got 0"),
        ("+reward_calls.atempts=3", "reward_calls.atempts: unknown key. Did you mean 'attempts'?"),
        ("reward_calls=null", "reward_calls: expected a mapping"),
    ],
)
def test_a_bad_value_in_a_config_is_named(typed: str, message: str, tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "ngram", "reinforce", typed)
    with pytest.raises(UserError) as caught:
        assemble(checked(compose_config(chosen), tmp_path))
    assert message in str(caught.value)


def test_without_a_reward_there_is_nothing_to_call(tmp_path: Path) -> None:
    sft = [
        one
        for one in overrides(write_rows(tmp_path), "ngram", "sft", "reward_calls.on_failure=missing")
        if one != "reward=length"
    ]
    with pytest.raises(UserError, match=r"^reward_calls: the run has no reward source to call"):
        assemble(checked(compose_config(sft), tmp_path))


def test_a_runs_reward_is_called_by_its_policy(tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "ngram", "reinforce", "reward_calls.timeout=30")
    reward: Any = assemble(checked(compose_config(chosen), tmp_path)).reward
    assert reward.calls == RewardCalls(timeout=30.0)
    assert isinstance(reward, RewardSource)
    assert isinstance(reward.source.source, Length)


def test_a_guarded_source_says_what_it_says_in_a_thread_or_not() -> None:
    scores: list[Scores] = [
        guarded(Length(target=2), RewardCalls(timeout=timeout))(SAMPLES) for timeout in (None, 30.0)
    ]
    assert torch.equal(scores[0].total, scores[1].total)


def test_evaluation_takes_a_policy_of_its_own(lstm_run: Path, tmp_path: Path, feedtune: Any) -> None:
    out = tmp_path / "evaluation.json"
    typed = ["reward_calls.on_failure=missing", "reward_calls.timeout=30", "--out", str(out)]
    said = feedtune("evaluate", str(lstm_run), *typed)
    assert said.code == 0, said.err
    assert json.loads(out.read_text())["metrics"]["eval/missing"] == 0.0
    feedtune("evaluate", str(lstm_run), "--out", str(out))
    assert "eval/missing" not in json.loads(out.read_text())["metrics"]
