"""Accuracy and calibration on held-out pairs: by hand, against another package, and where truth is known."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from torchmetrics.functional.classification import binary_calibration_error
from transformers import PreTrainedTokenizerFast

from feedtune.policy import Policy
from feedtune.preference_metrics import BINS, judged, preference_metrics
from feedtune.text.codec import Codec
from feedtune_plugins.backbones.ngram import NGram

WORDS = ["<eos>", "x", "one", "two", "three"]
ID = {word: number for number, word in enumerate(WORDS)}
ACCURACY, ERROR, BRIER = (f"eval/preference_{name}" for name in ("accuracy", "calibration_error", "brier"))
PAIRS = [
    {"prompt": "x", "chosen": "one", "rejected": "two"},
    {"prompt": "x", "chosen": "two", "rejected": "one"},
    {"prompt": "x", "chosen": "one", "rejected": "one"},
    {"prompt": "x", "reference": "three"},  # no pair
    {"prompt": "x", "chosen": "two"},  # nor is one answer
]


@pytest.fixture(scope="module")
def codec() -> Codec:
    """A word a token, between blanks."""
    tokenizer = Tokenizer(models.WordLevel(ID, unk_token="x"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Codec(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>"))


def liking(chances: Mapping[str, float]) -> Policy:
    """Says one of these words to x, and is done."""
    backbone = NGram(vocab_size=len(WORDS), n=2)
    for word, following in {"x": chances, **{said: {"<eos>": 1.0} for said in chances}}.items():
        row = torch.full((len(WORDS),), -torch.inf)
        for next_word, chance in following.items():
            row[ID[next_word]] = math.log(chance)
        backbone.table.weight.data[ID[word] + 1] = row
    return Policy(backbone).eval()


def judge(worth: Mapping[str, float]) -> Policy:
    """The head reads the last token, the end, and with it the word before."""
    made = Policy(NGram(vocab_size=len(WORDS), n=3), heads={"reward": 1}).eval()
    for word, reward in worth.items():
        tokens = torch.tensor([[ID[word], ID["<eos>"]]])
        hidden, _ = made(tokens, torch.ones_like(tokens, dtype=torch.bool))
        made.heads["reward"].weight.data[hidden[0, -1, 0]] = reward  # type: ignore[union-attr, index]
    return made


def test_by_the_log_ratio_to_the_reference(codec: Codec) -> None:
    """A policy that says "one" more often than the reference: right, wrong, and unsure of equals."""
    reference, policy = liking({"one": 0.5, "two": 0.5}), liking({"one": 0.9, "two": 0.1})
    for rows, accuracy in ((PAIRS, 0.5), (PAIRS[:1], 1.0), (PAIRS[1:2], 0.0), (PAIRS[2:3], 0.5)):
        found = preference_metrics(policy, reference, codec, rows)
        assert found.metrics == {ACCURACY: accuracy}  # no probability: nobody knows beta here
        assert found.reliability == []
    fonder = liking({"one": 0.95, "two": 0.05})  # than which the policy likes "one" less
    assert preference_metrics(policy, fonder, codec, PAIRS[:1]).metrics == {ACCURACY: 0.0}


def test_no_way_to_rank_and_nothing_to_rank(codec: Codec) -> None:
    policy = liking({"one": 0.9, "two": 0.1})
    assert preference_metrics(policy, None, codec, PAIRS).metrics == {}
    assert preference_metrics(policy, policy, codec, PAIRS[3:]).metrics == {}
    assert preference_metrics(judge({}), None, codec, PAIRS[3:]).metrics == {}


def test_pairs_that_do_not_fit_count_for_nothing(codec: Codec) -> None:
    policy = judge({"one": 0.5, "two": -0.5})
    policy.backbone.context_length = 3  # x, a word, the end
    long = {"prompt": "x", "chosen": "two two", "rejected": "one"}
    assert preference_metrics(policy, None, codec, [PAIRS[0], long]).metrics[ACCURACY] == 1.0
    assert preference_metrics(policy, None, codec, [long]).metrics == {}


def test_by_the_head_by_hand(codec: Codec) -> None:
    """log 3 ahead is a bet of 3/4: one is won, one lost; the equal ones are a bet of 1/2 that nobody wins."""
    policy = judge({"one": math.log(3) / 2, "two": -math.log(3) / 2})
    found = preference_metrics(policy, None, codec, PAIRS)
    assert found.metrics[ACCURACY] == 0.5
    # Bins 1/2: predicted 1/2, observed 1/2; 3/4: predicted 3/4, observed 1/2. (1 x 0 + 2 x 1/4) / 3
    assert found.metrics[ERROR] == pytest.approx(1 / 6, abs=1e-6)
    # ((1 - 3/4)^2 + (1 - 1/4)^2 + (1 - 1/2)^2) / 3 = (1/16 + 9/16 + 4/16) / 3
    assert found.metrics[BRIER] == pytest.approx(14 / 48, abs=1e-6)
    assert [one["pairs"] for one in found.reliability] == [1, 2]
    assert [one["predicted"] for one in found.reliability] == pytest.approx([0.5, 0.75], abs=1e-6)
    assert [one["observed"] for one in found.reliability] == [0.5, 0.5]


def test_the_head_counts_before_a_reference(codec: Codec) -> None:
    found = preference_metrics(judge({"two": 1.0}), liking({"one": 0.5, "two": 0.5}), codec, PAIRS[:1])
    assert found.metrics[ACCURACY] == 0.0


# Off the edges between bins, where rounding decides.
LEADS = st.lists(
    st.floats(-6, 6).filter(lambda lead: min(p := 20 / (1 + math.exp(-lead)) % 1, 1 - p) > 1e-6),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(leads=LEADS)
def test_each_bet_seen_from_both_sides_is_calibrated_as_well(leads: list[float]) -> None:
    """Another package is given every pair twice, as a and b and as b and a, in bins of [0, 1]."""
    lead = torch.tensor(leads, dtype=torch.float64)
    found = judged(lead)
    probability = torch.cat([lead, -lead]).sigmoid()
    outcome = torch.cat([torch.ones(len(lead)), torch.zeros(len(lead))]).long()
    theirs = binary_calibration_error(probability, outcome, n_bins=2 * BINS, norm="l1")
    assert found.metrics[ERROR] == pytest.approx(float(theirs), abs=1e-6)
    squares = (probability - outcome).square().mean()
    assert found.metrics[BRIER] == pytest.approx(float(squares), abs=1e-12)
    assert sum(one["pairs"] for one in found.reliability) == len(lead)


def labelled(truth: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Leads of the chosen answers, by a Bradley-Terry rater of answers that lie `truth` apart."""
    first = torch.rand(truth.shape, generator=generator, dtype=truth.dtype) < truth.sigmoid()
    return torch.where(first, truth, -truth)


def test_true_rewards_are_calibrated_and_louder_or_softer_ones_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    lead = labelled(torch.randn(20_000, generator=generator, dtype=torch.float64) * 2, generator)
    errors = {scale: judged(scale * lead).metrics for scale in (0.3, 1.0, 3.0)}
    chance = math.sqrt(BINS / len(lead)) / 3
    assert errors[1.0][ERROR] < 3 * chance
    assert min(errors[0.3][ERROR], errors[3.0][ERROR]) > 10 * chance
    assert errors[1.0][BRIER] < min(errors[0.3][BRIER], errors[3.0][BRIER])
    assert len({found[ACCURACY] for found in errors.values()}) == 1  # the order is all the same
    too_sure = judged(3.0 * lead).reliability[1:]
    assert all(one["observed"] < one["predicted"] for one in too_sure)


@pytest.mark.parametrize(("lead", "brier"), [(math.inf, 0.0), (-math.inf, 1.0), (800.0, 0.0), (-800.0, 1.0)])
def test_certainty_is_a_bet_too(lead: float, brier: float) -> None:
    found = judged(torch.tensor([lead], dtype=torch.float64))
    assert found.metrics == {ACCURACY: 1 - brier, ERROR: brier, BRIER: brier}
    assert found.reliability == [{"predicted": 1.0, "observed": 1 - brier, "pairs": 1}]


def test_a_diverged_model_has_no_numbers() -> None:
    found = judged(torch.tensor([1.0, math.nan], dtype=torch.float64))
    assert all(math.isnan(value) for value in found.metrics.values())
    assert set(found.metrics) == {ACCURACY, ERROR, BRIER}
    assert found.reliability == []


def test_a_reward_model_by_command(tmp_path: Path, feedtune: Any) -> None:
    """Trained for an epoch, with the numbers in metrics.csv; measured again, drawn by the report."""
    rows = [
        {"prompt": f"say {n}", "chosen": f"yes {n} please", "rejected": f"no {n} thanks"} for n in range(24)
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = ["algorithm=reward_model", "task=jsonl", f"task.path={data}", "task.eval_fraction=0.5"]
    chosen += [
        "tokenizer.kind=char",
        "backbone=gru",
        "backbone.hidden_size=8",
        "backbone.embed_size=8",
        "trainer.max_epochs=1",
    ]
    chosen += ["evaluation.every=1", "evaluation.rows=null", "evaluation.max_new_tokens=2", "callbacks=quiet"]
    run = tmp_path / "run"
    assert feedtune("train", *chosen, "report=false", f"hydra.run.dir={run}").code == 0
    assert {ACCURACY, ERROR, BRIER} <= set((run / "metrics.csv").read_text().splitlines()[0].split(","))
    assert feedtune("evaluate", str(run)).code == 0
    found = json.loads((run / "evaluation.json").read_text())
    assert {ACCURACY, ERROR, BRIER} <= set(found["metrics"])
    assert sum(one["pairs"] for one in found["reliability"]) == 12
    assert feedtune("report", str(run)).code == 0
    assert "Reliability on held-out pairs" in (run / "report.html").read_text()
