"""A run with a reward head as a reward source: what it reads, by a head that is known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from feedtune.contracts import Sample
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
    source = RewardModel(run=str(save(bigram(codec), codec, tmp_path)))
    source.policy.backbone.context_length = 4
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
        hidden, _ = source.policy(torch.tensor([[1, 2]]), torch.tensor([[True, True]]))
        assert hidden.dtype == torch.bfloat16  # it would have made a difference
        assert torch.equal(source(samples), expected)


def test_a_run_without_the_head_is_refused(codec: Codec, tmp_path: Path) -> None:
    folder = save(Policy(NGram(vocab_size=codec.vocab_size, n=2)), codec, tmp_path)
    with pytest.raises(UserError) as caught:
        RewardModel(run=str(folder))
    assert str(caught.value) == (
        f"reward.run: {folder} has no head 'reward'; train one with algorithm=reward_model"
    )
