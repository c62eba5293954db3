"""A run whose judge never says the same twice: killed and resumed it hears what it heard, and pays once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from feedtune.checkpoints import newest
from feedtune.config.compose import compose_config
from feedtune.contracts import Sample
from feedtune.runs.training import train
from feedtune_plugins.rewards.http import Http
from judges import Judge, Reply, judging, saying
from small_runs import fingerprint, overrides, run, write_rows


class Killed(BaseException):
    """Stands for the end of the process, past everything that hears of exceptions."""


class Moody:
    """Scores a sample by its length, and each time that it is asked again one more."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()

    def __call__(self, samples: Any) -> Reply:
        return saying({"scores": [self.score(sample) for sample in samples]})

    def score(self, sample: Any) -> float:
        self.times[repr(sample)] += 1
        return len(sample["response"]) + self.times[repr(sample)]


@contextmanager
def killed_after_call(number: int) -> Iterator[None]:
    """Whatever trains inside ends when this call has been answered, before anything is learnt from it."""
    score, calls = Http.__call__, [0]

    def counting(source: Http, samples: Sequence[Sample]) -> Any:
        scores = score(source, samples)
        calls[0] += 1
        if calls[0] == number:
            raise Killed
        return scores

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Http, "__call__", counting)
        yield


def chosen(folder: Path, judge: Judge, *more: str) -> list[str]:
    data = write_rows(folder)
    http = ["reward=http", f"reward.url={judge.url}", "reward.batch_size=3"]
    return overrides(data, "lstm", "ppo", *http, "trainer.max_epochs=4", "optimizer.lr=0.01", *more)


def test_a_resumed_run_hears_the_same_scores_and_pays_nothing_twice(tmp_path: Path) -> None:
    """Of four rollouts, the process dies in the third, whose replies have been paid for, and in the last."""
    mood = Moody()
    with judging(mood) as judge:
        typed = chosen(tmp_path, judge)
        run(tmp_path / "whole", typed)
        expected = fingerprint(tmp_path / "whole")
        assert max(mood.times.values()) == 1
        asked = len(mood.times)

        mood.times.clear()
        folder = tmp_path / "killed"
        with killed_after_call(3), pytest.raises(Killed):
            run(folder, typed)
        for call in (2, None):  # the third rollout and the fourth; then to the end
            checkpoint = newest(folder)
            assert checkpoint is not None
            if call is None:
                train(compose_config(typed), folder, checkpoint)
            else:
                with killed_after_call(call), pytest.raises(Killed):
                    train(compose_config(typed), folder, checkpoint)
        assert fingerprint(folder) == expected
        assert max(mood.times.values()) == 1
        assert len(mood.times) == asked


def test_without_a_cache_it_would_hear_something_else(tmp_path: Path) -> None:
    """What the test above would see if replies were not kept."""
    mood = Moody()
    with judging(mood) as judge:
        typed = chosen(tmp_path, judge, "reward.cache=null")
        run(tmp_path / "whole", typed)
        mood.times.clear()
        folder = tmp_path / "killed"
        with killed_after_call(3), pytest.raises(Killed):
            run(folder, typed)
        train(compose_config(typed), folder, newest(folder))
        assert fingerprint(folder) != fingerprint(tmp_path / "whole")
        assert max(mood.times.values()) > 1


def test_runs_that_share_a_cache_share_their_replies(tmp_path: Path) -> None:
    mood = Moody()
    with judging(mood) as judge:
        cache = f"reward.cache={tmp_path / 'shared.sqlite'}"
        typed = chosen(tmp_path, judge, cache, "trainer.max_epochs=2")
        for name in ("one", "other"):
            run(tmp_path / name, typed)
        assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "other")
        assert max(mood.times.values()) == 1
    assert not (tmp_path / "one" / "replies.sqlite").exists()
