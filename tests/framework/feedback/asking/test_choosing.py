"""Which question comes next: everything once, the informative first, some of it twice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from feedtune.contracts import Sample, Scores
from feedtune.errors import UserError
from feedtune.feedback import Answered, Item, item_of, response_of
from feedtune.feedback.asking.choosing import Question, choose, questions, shown
from feedtune.feedback.asking.disagreement import Disagreement


def make_items(count: int, responses: int = 2) -> list[Item]:
    return [
        item_of(f"say {n}", [response_of(f"say {n}", f"word {m} of {n}") for m in range(responses)])
        for n in range(count)
    ]


def answered(question: Question, rater: str) -> Answered:
    return Answered(question.item.id, question.subject, rater)


def test_every_pair_of_different_texts_can_be_asked() -> None:
    [item] = make_items(1, responses=4)
    twin = item_of("x", [response_of("x", "same", run="1"), response_of("x", "same", run="2")])
    assert len(questions([item], "comparison")) == 6  # 4 * 3 / 2
    assert questions([twin], "comparison") == []  # nobody could tell them apart
    assert len(questions([twin], "edit")) == 2


@pytest.mark.parametrize("overlap", [0.0, 0.5, 1.0])
def test_two_raters_are_asked_everything_once_each(overlap: float) -> None:
    asked, answers = questions(make_items(5, 3), "comparison"), []
    for _ in range(len(asked)):
        for rater in ("ann", "bob"):
            one = choose(asked, answers, "comparison", rater, overlap=overlap)
            assert one is not None
            assert one == choose(asked, answers, "comparison", rater, overlap=overlap)  # a page loaded again
            answers.append(answered(one, rater))
    assert len(set(answers)) == 2 * len(asked)
    assert choose(asked, answers, "comparison", "ann", overlap=overlap) is None


def test_without_overlap_the_second_rater_is_asked_what_is_new() -> None:
    asked, answers = questions(make_items(20), "comparison"), []
    for turn in range(20):
        one = choose(asked, answers, "comparison", ("ann", "bob")[turn % 2], overlap=0.0)
        assert one is not None
        answers.append(answered(one, ("ann", "bob")[turn % 2]))
    assert len({one.item for one in answers}) == 20


def test_overlap_is_how_often_a_question_is_shared() -> None:
    asked = questions(make_items(600), "comparison")
    answers = [answered(one, "ann") for one in asked[:300]]
    shared = 0
    for _ in range(200):
        one = choose(asked, answers, "comparison", "bob", overlap=0.3)
        assert one is not None
        shared += one.key in {two.key for two in asked[:300]}
        answers.append(answered(one, "bob"))
    assert shared / 200 == pytest.approx(0.3, abs=0.1)  # three standard errors of 200 draws


def test_raters_see_other_orders_and_begin_elsewhere() -> None:
    asked = questions(make_items(200), "comparison")
    first = [shown(one, "ann")[0] == one.responses[0] for one in asked]
    assert sum(first) / 200 == pytest.approx(0.5, abs=0.11)
    assert first != [shown(one, "bob")[0] == one.responses[0] for one in asked]
    begun = [choose(asked, [], "comparison", f"rater-{n}") for n in range(30)]
    assert len({one.key for one in begun if one}) > 20


def test_what_is_worth_most_comes_first_and_what_is_skipped_does_not() -> None:
    asked = questions(make_items(9), "comparison")
    worth = {one.key: float(n == 4) for n, one in enumerate(asked)}
    assert choose(asked, [], "comparison", "ann", worth=worth) == asked[4]
    passed = choose(asked, [], "comparison", "ann", worth=worth, skipped=[asked[4].key])
    assert passed not in (None, asked[4])
    little = {asked[4].key: 0.1}  # and what is not known is worth nothing
    assert choose(asked, [], "comparison", "ann", worth=little) == asked[4]


class Ensemble:
    """Three members: one likes long words, one short ones, one has no opinion on the word `odd`."""

    def __init__(self) -> None:
        self.scored = 0

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        import torch

        self.scored += len(samples)
        lengths = torch.tensor([float(len(one.response)) for one in samples])
        odd = torch.tensor([math.nan if one.response == "odd" else 0.0 for one in samples])
        return Scores(lengths, {"long": lengths, "short": -lengths, "flat": odd})


def test_disagreement_by_hand() -> None:
    items = [
        item_of("1", [response_of("1", "aaa"), response_of("1", "a")]),  # 2 apart
        item_of("2", [response_of("2", "aa"), response_of("2", "bb")]),  # no difference
        item_of("3", [response_of("3", "aaaa"), response_of("3", "odd")]),  # one member has no opinion
    ]
    asked, reward = questions(items, "comparison"), Ensemble()
    disagreement = Disagreement(reward)
    worth = disagreement(asked)
    # Probabilities sigmoid(2), sigmoid(-2), sigmoid(0) around their mean 1/2.
    p = 1 / (1 + math.exp(-2))
    assert worth[asked[0].key] == pytest.approx(math.sqrt(2 * (p - 0.5) ** 2 / 3))
    assert worth[asked[1].key] == 0.0
    assert worth[asked[2].key] == 0.0
    assert choose(asked, [], "comparison", "ann", worth=worth) == asked[0]
    # Scores 3, -3, 0 of the first response: a spread of sqrt(6).
    rated = questions(items, "rating")
    assert disagreement(rated)[rated[0].key] == pytest.approx(math.sqrt(6))
    assert reward.scored == 6  # each response once, whatever is asked of it


def test_one_opinion_cannot_disagree() -> None:
    def alone(samples: Sequence[Sample]) -> list[float]:
        return [0.0 for _ in samples]

    with pytest.raises(UserError, match=r"feedback\.choose: disagreement needs .* two parts or more.*has 0"):
        Disagreement(alone)(questions(make_items(1), "comparison"))
    assert Disagreement(alone)([]) == {}
