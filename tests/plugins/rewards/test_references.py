"""BLEU, ROUGE and chrF: hand-computed goldens, independent oracles, and columns as data really holds them."""

from __future__ import annotations

import math
import socket
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from torchmetrics.functional.text import bleu_score, rouge_score

from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune_plugins.rewards.bleu import Bleu
from feedtune_plugins.rewards.chrf import Chrf
from feedtune_plugins.rewards.references import ReferenceReward
from feedtune_plugins.rewards.rouge import Rouge


def score(source: ReferenceReward, response: str, reference: Any) -> float:
    (value,) = source([Sample("Hi", response, columns={"reference": reference})]).tolist()
    return float(value)


# Few words, so that n-grams are shared often.
SENTENCE = st.lists(st.sampled_from(["a", "b", "c", "cats", "cat", "running"]), min_size=1, max_size=9).map(
    " ".join
)


@pytest.mark.parametrize(
    ("source", "response", "reference", "expected"),
    [
        # 2 of 3 words and 1 of 2 pairs match; not shorter than the reference: sqrt(2/3 x 1/2).
        (Bleu(n_gram=2, smooth=False), "the cat sat", "the cat ran", math.sqrt(1 / 3)),
        # With 1 added to the pairs: sqrt(2/3 x (1 + 1)/(2 + 1)).
        (Bleu(n_gram=2), "the cat sat", "the cat ran", 2 / 3),
        # 2/3, (1 + 1)/(2 + 1), (0 + 1)/(1 + 1), (0 + 1)/(0 + 1): the fourth root of 2/9.
        (Bleu(), "the cat sat", "the cat ran", (2 / 9) ** 0.25),
        # There no run of 3 matches, so without smoothing it is 0.
        (Bleu(smooth=False), "the cat sat", "the cat ran", 0.0),
        # All matches, but 2 words for 4: brevity exp(1 - 4/2).
        (Bleu(n_gram=2), "the cat", "the cat sat down", math.exp(-1)),
        (Bleu(n_gram=2, smooth=False), "the cat", "the cat sat down", math.exp(-1)),
        # "the" occurs once in the reference, so once is all that counts of 4.
        (Bleu(n_gram=1), "the the the the", "the cat is", 1 / 4),
        (Bleu(n_gram=1, smooth=False), "the the the the", "the cat is", 1 / 4),
        # Counts are clipped by the richest reference: two a's by the first, the b by the second: 3 of 3.
        (Bleu(n_gram=1), "a a b", ["a a", "a b"], 1.0),
        # 2 and 4 words are equally close to 3: the shorter one is meant, in any order; no brevity.
        (Bleu(n_gram=1), "a b c", ["a b c d", "a b"], 1.0),
        (Bleu(n_gram=1, smooth=False), "a b c", ["a b c d", "a b"], 1.0),
        # One word is a whole answer: 1/1, then (0 + 1)/(0 + 1) three times.
        (Bleu(), "yes", "yes", 1.0),
        (Bleu(), "no", "yes", 0.0),
        # One word by whitespace; 4 characters of which the last differs: sqrt(3/4 x (2 + 1)/(3 + 1)).
        (Bleu(), "我爱北京", "我爱北方", 0.0),
        (Bleu(n_gram=2, unit="characters"), "我爱北京", "我爱北方", 3 / 4),
        (Bleu(n_gram=1, unit="characters", smooth=False), "我爱北京", "我爱北方", 3 / 4),
        # the (twice), cat, on, mat: 5 of 6 on either side.
        (Rouge(metric="rouge1"), "the cat sat on the mat", "The cat is on the mat.", 5 / 6),
        # "the cat", "on the", "the mat": 3 of 5 pairs.
        (Rouge(metric="rouge2"), "the cat sat on the mat", "The cat is on the mat.", 3 / 5),
        # The same words; the longest common subsequence is "the on", 2 of 3.
        (Rouge(metric="rouge1"), "mat the on", "the on mat", 1.0),
        (Rouge(), "mat the on", "the on mat", 2 / 3),
        # 2 of 2 words said, 2 of 4 wanted: F = 2 x 1 x 1/2 / (1 + 1/2).
        (Rouge(measure="precision"), "the cat", "the cat is on", 1.0),
        (Rouge(measure="recall"), "the cat", "the cat is on", 1 / 2),
        (Rouge(), "the cat", "the cat is on", 2 / 3),
        (Rouge(), "the cat", ["a dog", "the cat is on", "the cat is"], 4 / 5),  # the last: P 1, R 2/3
        (Rouge(metric="rouge1"), "cats running", "cat run", 0.0),
        (Rouge(metric="rouge1", stem=True), "cats running", "cat run", 1.0),
        # Other alphabets count: 1 of 2 words; 3 of 4 characters, punctuation left out.
        (Rouge(metric="rouge1"), "Добрый вечер", "добрый день", 1 / 2),
        (Rouge(metric="rouge1", unit="characters"), "我爱北京。", "¡我爱北方!", 3 / 4),
        # Single characters: 1 of 2 on either side.
        (Chrf(n_char_order=1, n_word_order=0), "ab", "ac", 1 / 2),
        # Characters 2/3; pairs ab, bc against ab, bd: 1/2; their mean.
        (Chrf(n_char_order=2, n_word_order=0), "abc", "abd", 7 / 12),
        # P 1, R 1/2, beta 2: 5 x 1/2 / (4 + 1/2). With beta 1: 2/3.
        (Chrf(n_char_order=1, n_word_order=0), "ab", "abcd", 5 / 9),
        (Chrf(n_char_order=1, n_word_order=0, beta=1), "ab", "abcd", 2 / 3),
        # 3 of 4 characters and 1 of 2 words.
        (Chrf(n_char_order=1, n_word_order=1), "ab cd", "ab ce", 5 / 8),
        # "yes" has 3 orders of characters and one word. "ye": P 1, R 2/3 -> 5/7; P 1, R 1/2 -> 5/9; 0; 0.
        (Chrf(), "yes", "yes", 1.0),
        (Chrf(), "ye", "yes", 20 / 63),
        (Chrf(), "YES", "yes", 0.0),
        (Chrf(lowercase=True), "YES", "yes", 1.0),
        (Chrf(n_char_order=1, n_word_order=0), "ab", ["cd", "ab", "abcd"], 1.0),
    ],
)
def test_golden(source: ReferenceReward, response: str, reference: Any, expected: float) -> None:
    assert score(source, response, reference) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("response", ["", "  \n"])
@pytest.mark.parametrize("source", [Bleu(), Bleu(smooth=False), Rouge(), Rouge(stem=True), Chrf()])
def test_an_empty_response_scores_0(source: ReferenceReward, response: str) -> None:
    assert score(source, response, "the cat") == 0.0
    assert score(source, response, ["the cat", "a"]) == 0.0


@settings(max_examples=60, deadline=None)
@given(response=SENTENCE, references=st.lists(SENTENCE, min_size=1, max_size=3))
def test_bleu_agrees_with_sacrebleu_and_torchmetrics(response: str, references: list[str]) -> None:
    def oracle(method: str) -> float:
        bleu = BLEU(tokenize="none", smooth_method=method, smooth_value=1 if method == "add-k" else None)
        return float(bleu.sentence_score(response, references).score) / 100

    assert score(Bleu(), response, references) == pytest.approx(oracle("add-k"), abs=1e-6)
    plain = score(Bleu(smooth=False), response, references)
    assert plain == pytest.approx(oracle("none"), abs=1e-6)
    shortest_first = sorted(references, key=lambda reference: len(reference.split()))
    theirs = float(bleu_score([response], [shortest_first], smooth=True))
    if theirs:  # it gives up where an order has no match
        assert score(Bleu(), response, references) == pytest.approx(theirs, abs=1e-6)
    else:
        assert plain == 0.0


# What people write in English, marks and all; no other alphabets, which the oracles drop.
ENGLISH = st.text(st.sampled_from("abAB12 .,'-_\n"), max_size=20) | SENTENCE


@pytest.mark.parametrize("stem", [False, True])
@settings(max_examples=40, deadline=None)
@given(response=ENGLISH, reference=ENGLISH.filter(str.strip))
def test_rouge_agrees_with_rouge_score_and_torchmetrics(stem: bool, response: str, reference: str) -> None:
    oracle = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem).score(reference, response)
    theirs = rouge_score(response, reference, rouge_keys=("rouge1", "rouge2", "rougeL"), use_stemmer=stem)
    for metric in ("rouge1", "rouge2", "rougeL"):
        for measure in ("precision", "recall", "fmeasure"):
            ours = score(Rouge(metric=metric, measure=measure, stem=stem), response, reference)
            assert ours == pytest.approx(getattr(oracle[metric], measure), abs=1e-6)
            assert ours == pytest.approx(float(theirs[f"{metric}_{measure}"]), abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(
    response=ENGLISH.map(str.strip), reference=ENGLISH.map(lambda text: " ".join(text.split())).filter(bool)
)
def test_chrf_agrees_with_sacrebleu(response: str, reference: str) -> None:
    response = " ".join(response.split())  # torchmetrics counts a newline as a character, sacrebleu does not
    orders = {
        "char_order": min(6, len(reference.replace(" ", ""))),
        "word_order": min(2, len(reference.split())),
    }
    oracle = CHRF(eps_smoothing=True, **orders).sentence_score(response, [reference]).score / 100
    assert score(Chrf(), response, reference) == pytest.approx(oracle, abs=1e-5)


@pytest.mark.parametrize("source", [Bleu(), Rouge(), Chrf()])
@pytest.mark.parametrize("nothing", [None, float("nan"), np.float64("nan"), "", " \n", [], ["", " "], ()])
def test_a_row_without_a_reference_has_no_opinion(source: ReferenceReward, nothing: Any) -> None:
    assert math.isnan(score(source, "the cat", nothing))


@pytest.mark.parametrize(
    "several", [["a dog", "the cat"], ("a dog", "the cat"), np.array(["a dog", "the cat"]), ["the cat", ""]]
)
def test_references_come_as_lists_tuples_or_arrays(several: Any) -> None:
    assert score(Rouge(), "the cat", several) == 1.0


def test_another_column_is_read() -> None:
    samples = [Sample("Hi", "the cat", columns={"reference": "no", "answer": "the cat"})]
    assert Bleu(column="answer")(samples).tolist() == [1.0]


@pytest.mark.parametrize(
    "source", [Bleu(column="referense"), Rouge(column="referense"), Chrf(column="referense")]
)
def test_a_missing_column_is_named_with_the_row_and_the_columns_there_are(source: ReferenceReward) -> None:
    good = Sample("Hi", "a", columns={"referense": "a", "level": 1})
    bad = Sample(
        "What is the capital of France, and why is it so?", "b", columns={"reference": "b", "level": 2}
    )
    with pytest.raises(UserError) as caught:
        source([good, bad])
    assert str(caught.value) == (
        "reward.column: row 1 (prompt 'What is the capital of France, and wh...') has no column 'referense'; "
        "its columns are: reference, level. Did you mean 'reference'?"
    )


def test_a_row_without_any_column_says_so() -> None:
    with pytest.raises(UserError, match=r"row 0 .* no column 'reference'; its columns are: none"):
        Bleu()([Sample("Hi", "a")])


@pytest.mark.parametrize("value", [42, {"text": ["a"]}, ["a", 1], b"a", True])
def test_a_reference_that_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(
        UserError, match=rf"row 0 .*'reference' should hold text.*, got {type(value).__name__} "
    ):
        score(Chrf(), "a", value)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Rouge(metric="rougeLsum"),
            "reward.metric: expected one of rouge1, rouge2, rougeL; got 'rougeLsum'",
        ),
        (lambda: Rouge(measure="f1"), "reward.measure: expected one of"),
        (lambda: Rouge(unit="word"), "Did you mean 'words'?"),
        (lambda: Bleu(unit="char"), "reward.unit: expected one of words, characters; got 'char'"),
        (lambda: Bleu(n_gram=0), "reward.n_gram: expected 1 or more, got 0"),
        (lambda: Chrf(n_char_order=0), "reward.n_char_order: expected 1 or more, got 0"),
        (lambda: Chrf(n_word_order=-1), "reward.n_word_order: expected 0 or more, got -1"),
        (lambda: Chrf(beta=float("nan")), "reward.beta: expected 0 or more, got nan"),
    ],
)
def test_a_bad_option_is_named(build: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        build()
    assert message in str(caught.value)


def test_stemming_without_nltk_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk.stem.porter", None)
    with pytest.raises(UserError, match=r"reward\.stem needs the package 'nltk'.*feedtune\[metrics\]"):
        Rouge(stem=True)
    assert score(Rouge(), "a", "a") == 1.0  # and without it nothing is missed


def test_no_metric_needs_the_network_or_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a reward went to the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(nltk, "download", refuse)
    for source in (Bleu(), Bleu(smooth=False), Rouge(), Rouge(metric="rouge2", stem=True), Chrf()):
        assert score(source, "the cat sat there", "the cat sat there") == pytest.approx(1.0)


def test_scores_are_float32_and_an_empty_batch_has_none() -> None:
    assert Bleu()([Sample("Hi", "a", columns={"reference": "a"})]).dtype == torch.float32
    assert Bleu()([]).shape == (0,)
