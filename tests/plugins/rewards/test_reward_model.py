"""A run with a reward head as a reward source: what it reads, by a head that is known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from feedtune.contracts import Sample, Scores
from feedtune.errors import UserError
from feedtune.policy import Policy
from feedtune.runs.export import save
from feedtune.text.codec import Codec
from feedtune.text.tokenizers import TrainedTokenizer
from feedtune_plugins.backbones.ngram import NGram
from feedtune_plugins.backbones.recurrent import Recurrent
from feedtune_plugins.rewards.reward_model import ROWS_AT_ONCE, RewardModel


@pytest.fixture
def codec() -> Codec:
    return TrainedTokenizer(kind="char").build(lambda: ["abc"])


def bigram(codec: Codec) -> Policy:
    """A table over the last two tokens, in which every context scores its own number."""
    policy = Policy(NGram(vocab_size=codec.vocab_size, n=3), heads={"reward": 1})
    weight = policy.heads["reward"].weight.data  # type: ignore[union-attr]
    weight.copy_(torch.arange(len(weight)).float()[:, None])
    return policy


def context(codec: Codec, last: str) -> float:
    """What `bigram` scores a text that ends in this letter and the end-of-text token."""
    letter, end = codec.tokenizer.get_vocab()[last], codec.eos_ids[0]
    return float((letter + 1) + (end + 1) * (codec.vocab_size + 1))


def test_the_head_reads_the_closed_response(codec: Codec, tmp_path: Path) -> None:
    """Two tokens are known to it: the response's last letter, and the end-of-text token after that."""
    source = RewardModel(run=str(save(bigram(codec), codec, tmp_path)))
    samples = [Sample("ab", said) for said in ("a", "b", "acca", "")]
    assert source(samples).tolist() == [context(codec, letter) for letter in ("a", "b", "a", "b")]


def test_a_conversation_is_read_through_the_runs_own_template(codec: Codec, tmp_path: Path) -> None:
    source = RewardModel(run=str(save(bigram(codec), codec, tmp_path)))
    asked = ({"role": "user", "content": "b"},)
    assert source([Sample("b", "ac", asked)]).tolist() == [context(codec, "c")]
    # The assistant's tag stands before an empty response.
    assert source([Sample("b", "", asked)]).tolist() == [context(codec, "<|assistant|>")]


def test_many_are_scored_in_parts_and_in_order(codec: Codec, tmp_path: Path) -> None:
    source = RewardModel(run=str(save(bigram(codec), codec, tmp_path)))
    said = ["abc"[n % 3] * (1 + n % 5) for n in range(ROWS_AT_ONCE + 3)]
    scores = source([Sample("a", one) for one in said])
    assert scores.tolist() == [context(codec, one[-1]) for one in said]
    assert not scores.requires_grad
    assert source([]).tolist() == []


def test_what_does_not_fit_has_no_score(codec: Codec, tmp_path: Path) -> None:
    source = RewardModel(run=str(save(bigram(codec), codec, tmp_path / "run")))
    source.members["run"].policy.backbone.context_length = 4
    fits, does_not = source([Sample("a", "bb"), Sample("a", "bbb")]).tolist()  # 4 and 5 tokens
    assert fits == context(codec, "b")
    assert math.isnan(does_not)


def test_half_precision_around_it_changes_nothing(codec: Codec, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = Recurrent(vocab_size=codec.vocab_size, embed_size=8, hidden_size=8, layers=1)
        policy = Policy(backbone, heads={"reward": 1})
        for weight in policy.heads.parameters():
            torch.nn.init.normal_(weight)
    source = RewardModel(run=str(save(policy, codec, tmp_path)))
    samples = [Sample("a", said) for said in ("a", "b", "c")]
    expected = source(samples)
    assert len(expected.unique()) == 3
    with torch.autocast("cpu", torch.bfloat16):
        (member,) = source.members.values()
        hidden, _ = member.policy(torch.tensor([[1, 2]]), torch.tensor([[True, True]]))
        assert hidden.dtype == torch.bfloat16  # it would have made a difference
        assert torch.equal(source(samples), expected)


def test_a_run_without_the_head_is_refused(codec: Codec, tmp_path: Path) -> None:
    folder = save(Policy(NGram(vocab_size=codec.vocab_size, n=2)), codec, tmp_path)
    with pytest.raises(UserError) as caught:
        RewardModel(run=str(folder))
    assert str(caught.value) == (
        f"reward.run: {folder} has no head 'reward'; train one with algorithm=reward_model"
    )


# Several: the tables below score a response by its last letter alone.


def saved(codec: Codec, folder: Path, worth: dict[str, float]) -> str:
    """A run that scores what ends in these letters so, and everything else 0."""
    policy = Policy(NGram(vocab_size=codec.vocab_size, n=3), heads={"reward": 1})
    for letter, score in worth.items():
        policy.heads["reward"].weight.data[int(context(codec, letter))] = score  # type: ignore[union-attr, index]
    return str(save(policy, codec, folder))


SAID = [Sample("b", letter) for letter in "abc"]
WORTHS = ({"a": 1.0, "b": 4.0}, {"a": 1.0, "b": -2.0}, {"a": 4.0, "b": 1.0})
"""Of three members: a has mean 2 and deviation sqrt(2), b mean 1 and sqrt(6), c 0 and 0."""


@pytest.mark.parametrize("uncertainty", [0.0, 1.0, 2.5])
def test_an_ensemble_by_hand(codec: Codec, tmp_path: Path, uncertainty: float) -> None:
    # a: squares of 1, 1, 4 about 2: (1 + 1 + 4) / 3 = 2;  b: of 4, -2, 1 about 1: (9 + 9 + 0) / 3 = 6
    runs = [saved(codec, tmp_path / f"judge_{n}", worth) for n, worth in enumerate(WORTHS)]
    scores = RewardModel(run=runs, uncertainty=uncertainty)(SAID)
    assert isinstance(scores, Scores)
    expected = [2 - uncertainty * math.sqrt(2), 1 - uncertainty * math.sqrt(6), 0.0]
    assert scores.total.tolist() == pytest.approx(expected, abs=1e-6)
    assert {name: part.tolist() for name, part in scores.parts.items()} == {
        "judge_0": [1.0, 4.0, 0.0],
        "judge_1": [1.0, -2.0, 0.0],
        "judge_2": [4.0, 1.0, 0.0],
    }


def test_an_ensemble_of_one_is_the_run(codec: Codec, tmp_path: Path) -> None:
    run = saved(codec, tmp_path / "judge", WORTHS[0])
    assert torch.equal(
        torch.as_tensor(RewardModel(run=[run])(SAID)), torch.as_tensor(RewardModel(run=run)(SAID))
    )


def test_members_that_agree_lose_nothing(codec: Codec, tmp_path: Path) -> None:
    runs = [saved(codec, tmp_path / name, WORTHS[0]) for name in ("one", "two")]
    warned = RewardModel(run=runs, uncertainty=9.0)(SAID)
    assert isinstance(warned, Scores)
    assert warned.total.tolist() == [1.0, 4.0, 0.0]


def test_what_does_not_fit_into_one_member_has_no_score(codec: Codec, tmp_path: Path) -> None:
    source = RewardModel(run=[saved(codec, tmp_path / name, WORTHS[0]) for name in ("one", "two")])
    source.members["two"].policy.backbone.context_length = 3
    scores = source([Sample("a", "b"), Sample("a", "bb")])  # 3 and 4 tokens
    assert isinstance(scores, Scores)
    assert scores.total[0] == 4.0
    assert scores.total.isnan().tolist() == [False, True]
    assert scores.parts["one"].tolist() == [4.0, 4.0]  # it has an opinion


def test_members_are_named_by_their_folders_or_else_by_number(codec: Codec, tmp_path: Path) -> None:
    for name in ("x/judge", "y/judge", "y/other"):
        saved(codec, tmp_path / name / "export", {})
    names = {
        ("x/judge/export", "y/other/export"): ["judge", "other"],
        ("x/judge/export", "y/judge/export"): ["1", "2"],
    }
    for runs, expected in names.items():
        assert list(RewardModel(run=[str(tmp_path / run) for run in runs]).members) == expected


@pytest.mark.parametrize(
    ("runs", "uncertainty", "message"),
    [
        ([], 0.0, "reward.run: expected a run folder, or a list of several; got an empty list"),
        (["a"], 1.0, "reward.uncertainty: expected 0 with one run, got 1.0"),
        ("a", 0.5, r"name them as reward.run=\[A,B\]"),
        (["a", "b", "b/export"], 1.0, "reward.run: .*/b is named twice"),
        (["a", "b"], -1.0, "reward.uncertainty: expected 0 or more, got -1.0"),
        (["a", "b"], math.nan, "reward.uncertainty: expected 0 or more, got nan"),
    ],
)
def test_ensembles_that_are_none(runs: str | list[str], uncertainty: float, message: str) -> None:
    """Refused before anything is loaded: these folders do not exist."""
    with pytest.raises(UserError, match=message):
        RewardModel(run=runs, uncertainty=uncertainty)
