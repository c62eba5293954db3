"""Every metric of an evaluation, on policies whose every word is known, against hand-made numbers."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from feedtune.contracts import Sample, Scores
from feedtune.errors import UserError
from feedtune.evaluation import Evaluation, EvaluationOptions, as_json, distinct_n, evaluate
from feedtune.policy import Policy
from feedtune.sampling import Decoding
from feedtune.text.codec import Codec
from feedtune_plugins.backbones.ngram import NGram

WORDS = ["<eos>", "x", "y", "one", "two", "three", "four"]
ID = {word: number for number, word in enumerate(WORDS)}
X, Y = {"prompt": "x"}, {"prompt": "y"}


@pytest.fixture(scope="module")
def codec() -> Codec:
    """A word a token, between blanks."""
    tokenizer = Tokenizer(models.WordLevel(ID, unk_token="x"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Codec(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>"))


def speaking(following: Mapping[str, Mapping[str, float]]) -> Policy:
    """A policy that says each next word with the given probability, and others never."""
    backbone = NGram(vocab_size=len(WORDS), n=2)
    for word, chances in following.items():
        row = torch.full((len(WORDS),), -torch.inf)
        for next_word, chance in chances.items():
            row[ID[next_word]] = math.log(chance)
        backbone.table.weight.data[ID[word] + 1] = row
    return Policy(backbone).eval()


def certain(**following: str) -> Policy:
    return speaking({word: {said: 1.0} for word, said in following.items()} | {"four": {"<eos>": 1.0}})


COUNTING = {"x": "one", "one": "two", "two": "<eos>", "y": "two"}
"""x: "one two"; y: "two"."""


def options(**chosen: Any) -> EvaluationOptions:
    return EvaluationOptions(**{"max_new_tokens": 5, **chosen})


def test_length_ends_and_how_different_the_words_are(codec: Codec) -> None:
    found = evaluate(certain(**COUNTING), codec, [X, Y, X], None, options())
    assert [record["response"] for record in found.records] == ["one two", "two", "one two"]
    assert found.metrics == {
        "eval/length": pytest.approx(8 / 3),  # 3 + 2 + 3 tokens, the ends included
        "eval/ended": 1.0,
        "eval/distinct": pytest.approx(2 / 3),
        "eval/distinct_1": pytest.approx(2 / 5),  # one, two of: one two, two, one two
        "eval/distinct_2": pytest.approx(1 / 2),  # (one, two) twice
    }


def test_rows_cut_at_the_limit_have_not_ended(codec: Codec) -> None:
    found = evaluate(certain(**COUNTING), codec, [X, Y], None, options(max_new_tokens=2))
    assert found.metrics["eval/ended"] == 0.5
    assert found.metrics["eval/length"] == 2.0


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        ([["a", "b", "a"]], 1, 2 / 3),
        ([["a", "b", "a", "b"]], 2, 2 / 3),  # ab, ba, ab
        ([["a"], ["a"]], 2, 0.0),  # no pairs at all
        ([["a", "b"], ["b", "c"]], 2, 1.0),  # pairs end with their text
        ([], 1, 0.0),
    ],
)
def test_distinct(texts: list[list[str]], n: int, expected: float) -> None:
    assert distinct_n(texts, n) == pytest.approx(expected)


def test_kl_and_perplexity_under_the_reference(codec: Codec) -> None:
    """The policy is certain: log p = 0. The reference has x -> one 1/2, one -> two 1/4, two -> end 1/8."""
    reference = speaking(
        {
            "x": {"one": 1 / 2, "four": 1 / 2},
            "y": {"two": 1 / 2, "four": 1 / 2},
            "one": {"two": 1 / 4, "four": 3 / 4},
            "two": {"<eos>": 1 / 8, "four": 7 / 8},
        }
    )
    found = evaluate(certain(**COUNTING), codec, [X, Y], None, options(), reference)
    # "one two <eos>": log 2 + log 4 + log 8 = 6 log 2 nats; "two <eos>": log 2 + log 8 = 4 log 2.
    assert found.metrics["eval/kl"] == pytest.approx(5 * math.log(2), rel=1e-5)
    # 10 log 2 nats over 5 tokens are 2 log 2 a token.
    assert found.metrics["eval/reference_perplexity"] == pytest.approx(4.0, rel=1e-5)
    # Of greedy responses there is no KL, for they are no samples of the policy.
    greedy = evaluate(certain(**COUNTING), codec, [X, Y], None, options(decoding={"greedy": True}), reference)
    assert "eval/kl" not in greedy.metrics
    assert greedy.metrics["eval/reference_perplexity"] == pytest.approx(4.0, rel=1e-5)


def test_a_policy_is_no_distance_from_itself(codec: Codec) -> None:
    policy = speaking({word: dict.fromkeys(WORDS, 1 / len(WORDS)) for word in WORDS})
    found = evaluate(policy, codec, [X, Y] * 40, None, options(), policy)
    assert found.metrics["eval/kl"] == 0.0
    assert found.metrics["eval/reference_perplexity"] == pytest.approx(len(WORDS), rel=1e-5)  # uniform


def test_perplexity_of_the_rows_own_answers(codec: Codec) -> None:
    """x -> two with 1/2, then the end with 1/8: 4 log 2 nats over two tokens, so 2 squared."""
    policy = speaking(
        {"x": {"two": 1 / 2, "one": 1 / 2}, "one": {"two": 1.0}, "two": {"<eos>": 1 / 8, "one": 7 / 8}}
    )
    rows = [{**X, "reference": "two"}, X, {**X, "reference": "  "}]  # rows without an answer take no part
    found = evaluate(policy, codec, rows, None, options())
    assert found.metrics["eval/perplexity"] == pytest.approx(4.0, rel=1e-5)


def test_overlap_with_the_rows_own_answers(codec: Codec) -> None:
    policy = certain(x="one", one="two", two="three", three="four", y="four")
    right = evaluate(policy, codec, [{**X, "reference": "one two three four"}], None, options())
    wrong = evaluate(policy, codec, [{**Y, "reference": "x"}], None, options())
    half = evaluate(policy, codec, [{**X, "reference": "one two x y"}], None, options())
    names = ("eval/bleu", "eval/chrf", "eval/rougeL")
    assert [right.metrics[name] for name in names] == pytest.approx([1.0, 1.0, 1.0])
    assert [wrong.metrics[name] for name in names] == [0.0, 0.0, 0.0]
    # Two words of four are common, in order: precision = recall = F = 1/2. No run of three: BLEU is 0.
    assert half.metrics["eval/rougeL"] == pytest.approx(0.5)
    assert half.metrics["eval/bleu"] == 0.0
    assert right.records[0]["reference"] == "one two three four"


def test_without_the_extra_there_is_no_rouge(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    found = evaluate(certain(**COUNTING), codec, [{**X, "reference": "one two"}], None, options())
    assert "eval/chrf" in found.metrics
    assert "eval/rougeL" not in found.metrics


def test_rewards_by_source_and_rows_without_an_opinion(codec: Codec) -> None:
    shown: list[Sample] = []

    def reward(samples: Sequence[Sample]) -> Scores:
        shown.extend(samples)
        total = torch.tensor([1.0, math.nan, 4.0])
        return Scores(total, {"kind": torch.tensor([2.0, 4.0, 6.0])})

    rows = [{**X, "level": 1}, Y, X]
    found = evaluate(certain(**COUNTING), codec, rows, reward, options())
    assert found.metrics["eval/reward"] == 2.5  # of the two that were scored
    assert found.metrics["eval/reward/kind"] == 4.0
    assert [record["reward"] for record in found.records] == [1.0, None, 4.0]
    assert [record["reward/kind"] for record in found.records] == [2.0, 4.0, 6.0]
    assert shown[0].columns == {**X, "level": 1}
    assert (shown[0].prompt, shown[0].response) == ("x", "one two")


def test_the_first_rows_the_seed_and_the_decoding(codec: Codec) -> None:
    policy = speaking({word: {"one": 0.5, "two": 0.3, "<eos>": 0.2} for word in WORDS})
    rows = [X] * 100

    def said(**chosen: Any) -> list[str]:
        return [r["response"] for r in evaluate(policy, codec, rows, None, options(**chosen)).records]

    assert len(said(rows=7)) == 7
    assert len(said(rows=None)) == 100  # more than are answered at once
    assert said(rows=7) == said(rows=None)[:7]
    assert said(seed=0) == said(seed=0) != said(seed=1)
    assert set(said(decoding={"greedy": True})) == {"one one one one one"}
    assert not any("two" in text for text in said(decoding=Decoding(top_k=1)))


def test_progress_is_told(codec: Codec) -> None:
    done: list[int] = []
    evaluate(certain(**COUNTING), codec, [X] * 100, None, options(rows=None), on_rows=done.append)
    assert done == [64, 100]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"rows": 0}, r"^evaluation\.rows: expected at least 1, got 0$"),
        ({"every": 0}, r"^evaluation\.every: expected at least 1, got 0$"),
        ({"max_new_tokens": 0}, r"^evaluation\.max_new_tokens: expected at least 1, got 0$"),
        ({"seed": -1}, r"^evaluation\.seed: expected at least 0, got -1$"),
        ({"decoding": {"top_p": 0.0}}, r"top_p: expected a number in \(0, 1\], got 0\.0$"),
    ],
)
def test_options_out_of_range(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EvaluationOptions(**chosen)


def test_a_reward_without_any_opinion_stops_nothing(codec: Codec) -> None:
    """Such as one of logged clicks, asked about prompts that nobody was ever shown."""
    found = evaluate(certain(**COUNTING), codec, [X, Y], lambda samples: [math.nan] * len(samples), options())
    assert math.isnan(found.metrics["eval/reward"])
    assert found.metrics["eval/length"] == 2.5  # one two <eos>; two <eos>
    assert [record["reward"] for record in found.records] == [None, None]


def test_json_has_no_nan() -> None:
    before = Evaluation({"eval/reward/kind": math.nan}, [])
    text = json.dumps(as_json(Evaluation({"eval/reward": 1.0}, [{"reward": None}]), before), allow_nan=False)
    assert json.loads(text) == {
        "metrics": {"eval/reward": 1.0},
        "records": [{"reward": None}],
        "reference": {"metrics": {"eval/reward/kind": None}, "records": []},
    }
    assert as_json(before, None)["reference"] is None
    curve = [{"predicted": 0.75, "observed": 0.5, "pairs": 2.0}]
    assert as_json(Evaluation({}, [], curve), None) == {
        "metrics": {},
        "records": [],
        "reliability": curve,
        "reference": None,
    }
