"""A judge that goes by a hidden reward: its numbers worked by hand, and its faults."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.judging import Constitution, Judging, Question, Rubric, revised
from feedtune.testing.rewards import check_reward_source
from feedtune_plugins.judges.simulated import Simulated
from feedtune_plugins.rewards.judge import JudgeReward

RUBRIC = Rubric(name="any", asks="Is it good?", levels=["low", "middle", "high"])


def letters(samples: Sequence[Sample]) -> list[float]:
    """Each letter is worth a tenth."""
    return [len(sample.response) / 10 for sample in samples]


def judging(**options: float) -> Judging:
    return Judging(Simulated(**{"hidden": letters, "worst": 0.0, "best": 1.0, **options}), RUBRIC)  # type: ignore[arg-type]


def test_a_rating_spreads_around_the_worth() -> None:
    """Five letters lie in the middle; one level lower, exp(-1/2) as high. The mean is the middle."""
    (reply,) = Simulated(hidden=letters, worst=0.0, best=1.0, spread=1.0)(
        [Question(system="", user="", words=("1", "2", "3"), texts={"RESPONSE": "xxxxx"})]
    )
    edge = math.exp(-0.5)
    total = 1 + 2 * edge
    assert reply.weights == pytest.approx({"1": edge / total, "2": 1 / total, "3": edge / total})
    assert reply.text == "2"
    scores = judging(spread=1e-3).rate([Sample("Hi", "x" * count) for count in (5, 10, 30, 1)])
    assert scores.tolist() == pytest.approx([0.5, 1.0, 1.0, 0.0])


def test_a_comparison_is_by_bradley_and_terry_with_a_leaning() -> None:
    """0.2 apart at a temperature of 0.1 are 2 logits, and a leaning of 1: sigmoid(3) and sigmoid(-1)."""
    found = judging(temperature=0.1, leaning=1.0)
    (first,) = found.compare([(Sample("Hi", "xxx"), "x")]).first.tolist()
    shown_first, shown_second = 1 / (1 + math.exp(-3)), 1 - 1 / (1 + math.exp(1))
    assert first == pytest.approx((shown_first + shown_second) / 2)
    assert found.counts()["position_bias"] == pytest.approx((shown_first + 1 - shown_second) / 2 - 0.5)


def test_some_questions_have_no_answer_and_always_the_same() -> None:
    samples = [Sample(f"Question {number}", "xxx") for number in range(400)]
    silent = judging(silent=0.25).rate(samples).isnan()
    assert 60 <= int(silent.sum()) <= 140  # 100 are expected, with a standard deviation of 8.7
    assert silent.tolist() == judging(silent=0.25).rate(samples).isnan().tolist()
    assert judging(silent=1.0).rate(samples[:2]).isnan().all()


def test_no_opinion_is_no_answer() -> None:
    judge = Simulated(hidden=lambda samples: [math.nan for _ in samples])
    assert Judging(judge, RUBRIC).rate([Sample("Hi", "Ho")]).isnan().all()


def test_it_obeys_the_laws_of_rewards() -> None:
    judge = Simulated(hidden=letters, worst=0.0, silent=0.1)
    given = [Sample("Hi", "x" * count, columns={"reference": "xx"}) for count in range(1, 8)]
    check_reward_source(JudgeReward(judge=judge, rubric=RUBRIC), given)
    check_reward_source(JudgeReward(judge=judge, rubric=RUBRIC, mode="pairwise"), given)
    assert judge.counts()["requests"] > 0
    assert judge.counts() == {"requests": 0.0, "tokens": 0.0, "cost": 0.0}


def test_it_writes_nothing() -> None:
    with pytest.raises(UserError, match=r"^judge=simulated: it writes no texts"):
        revised(
            Simulated(hidden=letters), Constitution(name="x", principles=["Be kind."]), [Sample("Hi", "Ho")]
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"worst": 1.0}, "judge.best: expected more than judge.worst=1.0, got 1.0"),
        ({"temperature": 0.0}, "judge.temperature: expected a number above 0, got 0.0"),
        ({"spread": 0.0}, "judge.spread: expected a number above 0, got 0.0"),
        ({"silent": 2.0}, "judge.silent: expected a number in [0, 1], got 2.0"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Simulated(hidden=letters, **options)  # type: ignore[arg-type]
    assert str(caught.value) == message
