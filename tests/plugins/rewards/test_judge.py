"""A judge as a reward: scores, pairs within a group or against the reference, and what is measured of it."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chat_judges import by_worth, chatting, completion, letters, parts
from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.judging import Question, Rubric
from feedtune.rewards import RewardCalls, guarded, score_samples
from feedtune_plugins.rewards.judge import JudgeReward
from feedtune_plugins.rewards.sum import Sum
from scripted_judges import Scripted, texts_in
from small_runs import overrides, run, write_rows

RUBRIC = Rubric(name="long", asks="Is it long?", levels=["short", "so-so", "long"])
MEASURED = Rubric(
    name="long",
    asks="Is it long?",
    levels=["short", "long"],
    canaries=[
        {"prompt": "Hi", "better": "a long one", "worse": "short"},
        {"prompt": "Ho", "better": "also long", "worse": "as short"},
        {"prompt": "Ha", "better": "b", "worse": "aaa"},  # this one the judge below gets wrong
    ],
)


def by_length(leaning: float = 0.0) -> Scripted:
    """Worth is length / 10; of two, the first wins with 1/2 + the difference of worths + a leaning."""

    def say(question: Question) -> tuple[str, dict[str, float]]:
        shown = texts_in(question)
        if "RESPONSE" in shown:
            worth = len(shown["RESPONSE"]) / 10
            return str(1 + round(worth)), {"1": 1 - worth, question.words[-1]: worth}
        first = 0.5 + (len(shown["RESPONSE A"]) - len(shown["RESPONSE B"])) / 10 + leaning
        return ("A" if first > 0.5 else "B"), {"A": first, "B": 1 - first}

    return Scripted(say)


def samples(*texts: str, prompt: str = "Hi", **columns: Any) -> list[Sample]:
    return [Sample(prompt, text, columns=columns) for text in texts]


def test_a_score_is_from_0_to_1() -> None:
    assert JudgeReward(judge=by_length(), rubric=RUBRIC)(
        samples("xx", "xxxxx", ":")
    ).tolist() == pytest.approx([0.2, 0.5, 0.0])


def test_within_a_group_each_is_compared_with_each() -> None:
    """xxx beats x by 0.7 and xx by 0.6: mean 0.65; xx has 0.6 and 0.4; x has 0.3 and 0.4."""
    judge = by_length(leaning=0.07)
    reward = JudgeReward(judge=judge, rubric=RUBRIC, mode="pairwise", against="group")
    first, second = samples("xxx", "x"), samples("yyyy", "y", prompt="Ho")
    found = reward([first[0], second[0], first[1], second[1], *samples("xx")])
    assert found.tolist() == pytest.approx([0.65, 0.8, 0.35, 0.2, 0.5])
    assert len(judge.asked) == 2 * (3 + 1)
    assert reward.counts()["position_bias"] == pytest.approx(0.07)


def test_conversations_are_other_prompts() -> None:
    talks = [({"role": "user", "content": text},) for text in ("Hi", "Ho")]
    given = [Sample("same", text, talk) for talk in talks for text in ("x", "xx")]
    judge = by_length()
    JudgeReward(judge=judge, rubric=RUBRIC, mode="pairwise", against="group")(given)
    assert len(judge.asked) == 4


def test_against_the_reference_a_score_depends_on_nothing_else() -> None:
    given = [*samples("xxx", reference="x"), *samples("x", reference=["xx", "xxx"]), *samples("x")]
    for against in (None, "reference"):
        reward = JudgeReward(judge=by_length(), rubric=RUBRIC, mode="pairwise", against=against)
        found = reward(given).tolist()
        assert found[:2] == pytest.approx([0.7, 0.35])
        assert math.isnan(found[2])  # nothing to compare with
        assert reward(given[1:2]).tolist() == pytest.approx([0.35])


def test_alone_in_its_group_it_is_compared_with_the_reference() -> None:
    reward = JudgeReward(judge=by_length(), rubric=RUBRIC, mode="pairwise", against="group")
    assert reward(samples("xxx", reference="x")).tolist() == pytest.approx([0.7])
    assert reward(samples("xxx")).isnan().all()


def test_what_the_judge_does_not_answer_leaves_the_others() -> None:
    def say(question: Question) -> tuple[str, None]:
        return ("A" if "x" in question.user else "neither"), None

    reward = JudgeReward(judge=Scripted(say), rubric=RUBRIC, mode="pairwise", against="group")
    found = reward(samples("x", "y", "z"))  # y and z between them are not settled
    assert found.tolist() == [0.5, 0.5, 0.5]


# What is measured


def test_canaries_are_measured_in_the_way_that_is_used() -> None:
    for mode, share in (("score", 2 / 3), ("pairwise", 2 / 3)):
        reward = JudgeReward(judge=by_length(), rubric=MEASURED, mode=mode)  # type: ignore[arg-type]
        assert math.isnan(reward.counts()["canaries"])
        reward(samples("xx", reference="x"))
        assert reward.counts()["canaries"] == pytest.approx(share)


def test_a_judge_that_gets_too_few_right_is_refused() -> None:
    reward = JudgeReward(judge=by_length(), rubric=MEASURED, min_canaries=0.9)
    with pytest.raises(UserError) as caught:
        reward(samples("x"))
    assert str(caught.value) == (
        "reward.min_canaries: scripted/long gets 67% of the rubric's 3 items of known order right, expected "
        "at least 90%; choose another judge or rubric"
    )
    JudgeReward(judge=by_length(), rubric=MEASURED, min_canaries=0.6)(samples("x"))


def test_counts_are_metrics_also_inside_of_a_sum() -> None:
    source = JudgeReward(judge=by_length(), rubric=RUBRIC)
    alone = guarded(source, RewardCalls())
    score_samples(alone, samples("x", "xxx", ":"))
    assert alone.metrics() == {"reward/unreadable": 0.0, "reward/hollow": 1.0, "reward/requests": 2.0}
    both = guarded(Sum(sources={"fair": source, "other": lambda given: [0.0 for _ in given]}), RewardCalls())
    score_samples(both, samples("xx"))
    assert both.metrics() == {
        "reward/fair/unreadable": 0.0,
        "reward/fair/hollow": 0.0,
        "reward/fair/requests": 3.0,  # the scripted judge counts from its beginning
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mode": "pairs"},
            "reward.mode: expected one of score, pairwise, got 'pairs'. Did you mean 'pairwise'?",
        ),
        ({"against": "group"}, "reward.against: only reward.mode=pairwise has a use for it; leave it null"),
        (
            {"mode": "pairwise", "against": "all"},
            "reward.against: expected one of reference, group, got 'all'.",
        ),
        ({"min_canaries": 0.5}, "reward.min_canaries: only a rubric with canaries has a use for it"),
        (
            {"rubric": MEASURED, "min_canaries": 1.5},
            "reward.min_canaries: expected a number in [0, 1], got 1.5",
        ),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        JudgeReward(**{"judge": by_length(), "rubric": RUBRIC, **options})
    assert str(caught.value).startswith(message)


# As `reward=judge`


def chosen(folder: Path, url: str, *more: str) -> list[str]:
    judge = [f"reward.judge.url={url}", "reward.judge.model=tiny"]
    data = write_rows(folder)
    # overrides() chooses a reward of its own: this one comes after it
    return overrides(data, "lstm", "grpo", "reward=judge", *judge, "collector.group_size=4", *more)


def columns(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("mode", ["score", "pairwise"])
def test_a_run_learns_from_a_judge_and_the_next_pays_nothing_for_the_same(mode: str, tmp_path: Path) -> None:
    typed = [
        "trainer.max_epochs=2",
        f"reward.mode={mode}",
        "reward.judge.prompt_price=1",
        "evaluation.every=1",
    ]
    typed += ["reward.against=group"] if mode == "pairwise" else []
    with chatting(by_worth(letters, leaning=0.1)) as judge:
        run(tmp_path / "run", chosen(tmp_path, judge.url, *typed))
        (first, second) = columns(tmp_path / "run")
        asked = len(judge.asked)
        cache = f"reward.judge.cache={tmp_path / 'run' / 'replies.sqlite'}"
        run(tmp_path / "again", chosen(tmp_path, judge.url, *typed, cache))
        assert len(judge.asked) == asked
    assert [row["rollout/reward"] for row in columns(tmp_path / "again")] == [
        *(row["rollout/reward"] for row in (first, second))
    ]
    assert columns(tmp_path / "again")[0]["reward/cost"] == "0.0"
    assert float(first["reward/requests"]) > 0
    assert float(first["reward/cost"]) > 0
    # Of the four canaries this judge of lengths gets one right, and not where it prefers what stands first.
    assert float(first["reward/canaries"]) == {"score": 0.25, "pairwise": 0.0}[mode]
    assert ("reward/position_bias" in first) == (mode == "pairwise")
    assert "eval/requests" in first
    assert first.keys() == second.keys()
    assert len((tmp_path / "run" / "spending.jsonl").read_text().splitlines()) == asked
    assert (tmp_path / "run" / "replies.sqlite").exists()


def test_a_rubric_of_ones_own_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "conf" / "rubric").mkdir(parents=True)
    (tmp_path / "conf" / "rubric" / "brief.yaml").write_text(
        "# feedtune train reward=judge rubric@reward.rubric=brief\n_target_: feedtune.judging.Rubric\n"
        "name: brief\nasks: Is it brief?\nlevels: [long, brief]\ncolumns: []\ncanaries: []\n"
    )
    with chatting(completion("1", {"1": 0.25, "2": 0.75})) as judge:
        typed = ["reward=judge", "rubric@reward.rubric=brief", f"plugins_path={tmp_path}"]
        typed += [f"reward.judge.url={judge.url}", "reward.judge.model=tiny", "reward.judge.cache=null"]
        reward: Callable[[Any], Any] = build(compose_config(typed).reward, "reward")
        assert reward(samples("Ho")).tolist() == [0.75]
    assert parts(judge.asked[0]) == {"PROMPT": "Hi", "RESPONSE": "Ho"}
    assert "Is it brief?" in judge.asked[0]["messages"][0]["content"]
