"""Sentiment, toxicity, length and keyword: hand-computed goldens and what their options mean."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedtune.contracts import RewardSource, Sample, as_scores
from feedtune.errors import UserError
from feedtune_plugins.rewards.keywords import Keywords
from feedtune_plugins.rewards.length import Length
from feedtune_plugins.rewards.sentiment import Sentiment
from feedtune_plugins.rewards.toxicity import Toxicity


def score(source: RewardSource, *responses: str, **columns: Any) -> list[float]:
    samples = [Sample("Hi", response, columns=columns) for response in responses]
    return as_scores(source(samples), len(samples), "test").total.tolist()


# VADER adds up the valences of its lexicon to s and scores s / sqrt(s^2 + 15), rounded to 4 digits.
# "good" has 1.9; "not" before it multiplies by -.74; each of up to 4 "!" adds .292.
@pytest.mark.parametrize(
    ("response", "valence"),
    [
        ("good", 1.9),
        ("not good", -0.74 * 1.9),
        ("good!!!", 1.9 + 3 * 0.292),
        ("a table", 0.0),
        ("", 0.0),
        (" \n", 0.0),
    ],
)
def test_sentiment_is_vaders_compound_score(response: str, valence: float) -> None:
    expected = round(valence / math.sqrt(valence**2 + 15), 4)
    assert score(Sentiment(), response) == pytest.approx([expected], abs=1e-6)
    assert score(Sentiment(scale=-2), response) == pytest.approx([-2 * expected], abs=1e-6)


def test_toxicity_penalises_insults() -> None:
    clean, toxic = score(Toxicity(), "Thank you very much.", "You stupid idiot!")
    assert -0.01 < clean <= 0
    assert -1 <= toxic < -0.99


def test_toxicity_of_unknown_words_is_the_classifiers_base_rate() -> None:
    empty, blank, unknown = score(Toxicity(), "", " \n", "qwzxv")
    assert empty == blank == unknown
    assert -0.1 < empty < 0


def test_toxicity_is_minus_the_probability_times_the_scale() -> None:
    from profanity_check import predict_prob

    texts = ["Thank you.", "You idiot!", "", "Well, what a day"]
    assert score(Toxicity(scale=5), *texts) == pytest.approx((-5 * predict_prob(texts)).tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("module", "build", "message"),
    [
        ("vaderSentiment.vaderSentiment", Sentiment, "reward=sentiment needs the package 'vaderSentiment'"),
        ("profanity_check", Toxicity, "reward=toxicity needs the package 'alt-profanity-check'"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    module: str, build: Callable[[], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as caught:
        build()
    assert str(caught.value).startswith(message)
    assert f"feedtune[{build.__name__.lower()}]" in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "expected"),  # at 0, 1, 2, 4, 8 and 16 words with a target of 4
    [
        ("exact", [0, 1 / 4, 1 / 2, 1, 1 / 2, 1 / 4]),
        ("at_least", [0, 1 / 4, 1 / 2, 1, 1, 1]),
        ("at_most", [1, 1, 1, 1, 1 / 2, 1 / 4]),
    ],
)
def test_length_shapes(shape: Any, expected: list[float]) -> None:
    responses = [" ".join(["word"] * n) for n in (0, 1, 2, 4, 8, 16)]
    assert score(Length(target=4, shape=shape), *responses) == expected


@given(n=st.integers(0, 200), target=st.integers(1, 100))
def test_length_always_pays_for_a_step_towards_the_target(n: int, target: int) -> None:
    here, there = score(Length(target=target), "a " * n, "a " * (n + (1 if n < target else -1)))
    assert n == target or there > here


def test_length_in_characters_ignores_padding() -> None:
    source = Length(target=7, unit="characters")
    # "a great": 1 + 1 + 5; the four padded ones are the same text.
    assert score(source, "a great", "  a great\n", "a  \n great", "a\tgreat") == [1.0] * 4
    assert score(source, "我爱北京我爱北") == [1.0]
    assert score(source, "   ", "") == [0.0, 0.0]


def test_length_in_words_counts_what_whitespace_separates() -> None:
    assert score(Length(target=3), "don't  do \n that") == [1.0]


LISTED = ["cat", "thank you", "C++"]


@pytest.mark.parametrize(
    ("options", "response", "expected"),
    [
        ({}, "My cat says thank you", 2 / 3),
        ({"mode": "count"}, "My cat says thank you", 2.0),
        ({"mode": "any"}, "My cat says thank you", 1.0),
        ({"mode": "any"}, "My dog", 0.0),
        ({"mode": "count"}, "cat cat cat", 1.0),  # repeating a word earns nothing
        ({"scale": -0.5, "mode": "count"}, "A cat in C++!", -1.0),
        ({}, "", 0.0),
        ({"scale": -1.0}, " \n", 0.0),
        # Whole words: punctuation and the ends of the text bound them, letters, digits and accents do not.
        ({"mode": "count"}, "concatenate cats bobcat", 0.0),
        ({"mode": "count"}, "cat9 cat\u0301", 0.0),
        ({"mode": "count"}, "concatenate cat", 1.0),
        ({"mode": "count"}, "(cat)", 1.0),
        ({"mode": "count"}, "C++11", 1.0),  # "+" ends the word by itself
        ({"mode": "count", "whole_words": False}, "concatenate", 1.0),
        # Case and whitespace.
        ({"mode": "count"}, "CAT and Thank\n  You", 2.0),
        ({"mode": "count", "case_sensitive": True}, "CAT and Thank you, c++", 0.0),
        ({"mode": "count", "case_sensitive": True}, "cat and thank you", 2.0),
        ({"mode": "count", "words": ["STRASSE"]}, "Auf der Straße.", 1.0),
        ({"mode": "count", "words": ["café"]}, "Un cafe\u0301 ?", 1.0),
        ({"words": ["café"], "case_sensitive": True}, "Un cafe\u0301 ?", 1.0),
        ({"mode": "count", "words": ["cafe"]}, "Un cafe\u0301 ?", 0.0),
        ({"mode": "count", "words": ["हिन्द"]}, "हिन्दी", 0.0),  # a vowel sign continues the word
        ({"mode": "count", "words": ["你好"]}, "请说你好吗", 0.0),
        ({"mode": "count", "words": ["你好"], "whole_words": False}, "请说你好吗", 1.0),
        ({"mode": "count", "words": [":)", "👍"]}, "Fine:)👍", 2.0),
        # One word twice in another writing is one word; a number is a word.
        ({"words": ["Cat", "cat", "dog"]}, "cat", 1 / 2),
        ({"words": [42]}, "It is 42.", 1.0),
        (
            {"words": ["a a"], "mode": "count"},
            "ba a a",
            1.0,
        ),  # the first find is no whole word, the second is
    ],
)
def test_keywords(options: dict[str, Any], response: str, expected: float) -> None:
    assert score(Keywords(**{"words": LISTED, **options}), response) == pytest.approx([expected])


def test_keywords_of_a_column_are_read_instead() -> None:
    source = Keywords(words=["dog"], column="wanted")
    assert score(source, "dog", "A cat", wanted=["cat", "hat"]) == [0.0, 0.5]
    assert score(source, "dog", "A cat hat", wanted="cat hat") == [0.0, 1.0]  # a text is one word


@pytest.mark.parametrize("nothing", [None, "", [], [" "]])
def test_a_row_without_keywords_has_no_opinion(nothing: Any) -> None:
    assert math.isnan(score(Keywords(column="wanted"), "A cat", wanted=nothing)[0])


def test_a_missing_keyword_column_is_named() -> None:
    with pytest.raises(UserError, match=r"row 0 .* no column 'wantd'.*: wanted\. Did you mean 'wanted'\?"):
        score(Keywords(column="wantd"), "A cat", wanted="cat")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Length(target=0), "reward.target: expected 1 or more, got 0"),
        (lambda: Length(shape="atleast"), "got 'atleast'. Did you mean 'at_least'?"),
        (lambda: Length(unit="tokens"), "reward.unit: expected one of words, characters"),
        (lambda: Keywords(), "reward.words: expected at least one word, or reward.column"),
        (lambda: Keywords(words="please"), "reward.words: expected a list, such as [please], got the text"),
        (lambda: Keywords(words=["a", " "]), "reward.words: one of ['a', ' '] is blank"),
        (lambda: Keywords(words=["a"], mode="all"), "reward.mode: expected one of"),
    ],
)
def test_a_bad_option_is_named(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build()
    assert message in str(caught.value)
