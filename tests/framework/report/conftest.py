"""A run that has all that a report can show."""

from __future__ import annotations

from pathlib import Path

import pytest

from report_pages import answer, make_run


@pytest.fixture
def full_run(tmp_path: Path) -> Path:
    return make_run(
        tmp_path / "tuned",
        metrics=(
            "epoch,rollout/reward,rollout/reward/sentiment,policy/kl,perf/epoch_seconds,mine/own\n"
            "0,,0.5,0.0,30,7\n"
            "1,0.25,0.5,3.5,60,8\n"
            "2,0.75,0.5,9.25,30,9\n"
            "3,nan,0.5,inf,,9\n"
        ),
        samples=[answer(f"p{e}", f"said in {e}", e / 10, epoch=e, **{"reward/tone": 0.5}) for e in range(5)],
        evaluation={
            "metrics": {"eval/reward": 0.875, "eval/perplexity": 1234.0, "eval/new": 3.0},
            "records": [answer("hello", "I love it", 0.9, reference="hey"), answer("bye", "See you", None)],
            "reference": {
                "metrics": {"eval/reward": 0.125, "eval/perplexity": 1300.0},
                "records": [answer("hello", "what", -0.1), answer("bye", "", 0.2)],
            },
        },
        config="seed: 7\n",
        overrides="- algorithm=ppo\n- task.path=my file.txt\n",
    )
