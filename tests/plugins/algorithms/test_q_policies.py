"""How policies over action values act, on every backbone, and that they come back from disk as they were."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import feedtune
from feedtune.contracts import Backbone
from feedtune.experience import from_rows
from feedtune.policy import Policy
from feedtune.reading import read
from feedtune.runs.export import save
from feedtune.sampling import sample
from feedtune.scoring import score_actions
from feedtune.text.tokenizers import TrainedTokenizer
from feedtune_plugins.algorithms import (
    ILQL,
    Acting,
    ILQLPolicy,
    LinearEpsilon,
    PriorPolicy,
    QLearning,
    QPolicy,
    TargetNetwork,
)
from feedtune_plugins.backbones.ngram import NGram

T, F = True, False
Tiny = Callable[[str], Backbone]


def table(policy: QPolicy, head: str = "q") -> Tensor:
    found: Tensor = policy.heads[head].weight.data  # type: ignore[union-attr,assignment]
    return found


def bigrams() -> NGram:
    return NGram(vocab_size=3, n=2).double()


def acts(policy: Policy, bucket: int = 1) -> list[float]:
    found: list[float] = policy.action_logits(torch.tensor([[bucket]])).softmax(-1)[0].tolist()
    return found


# The acting rule


def test_a_softmax_is_mixed_with_uniform_draws() -> None:
    # Q / temperature = 0, log 2, 0: softmax 1/4, 1/2, 1/4; with epsilon .4: .6 p + .4 / 3
    policy = QPolicy(bigrams(), temperature=0.5, epsilon=0.4)
    table(policy)[1, 1] = 0.5 * math.log(2)
    assert acts(policy) == pytest.approx([0.15 + 0.4 / 3, 0.3 + 0.4 / 3, 0.15 + 0.4 / 3])
    policy.epsilon.fill_(0.0)
    assert acts(policy) == pytest.approx([0.25, 0.5, 0.25])


def test_temperature_0_is_epsilon_greedy_and_shares_ties() -> None:
    policy = QPolicy(bigrams(), temperature=0.0, epsilon=0.3)
    table(policy)[1] = torch.tensor([2.0, -1.0, 2.0])
    assert acts(policy) == pytest.approx([0.7 / 2 + 0.1, 0.1, 0.7 / 2 + 0.1])
    policy.epsilon.fill_(0.0)
    assert acts(policy) == pytest.approx([0.5, 0.0, 0.5])
    drawn = sample(
        policy, [[0]], max_new_tokens=1, eos_ids=[], generator=torch.Generator().manual_seed(0), group_size=40
    )
    assert {token for response in drawn for token in response.tokens} == {0, 2}


def test_epsilon_1_is_uniform() -> None:
    policy = QPolicy(bigrams(), temperature=0.0, epsilon=1.0)
    table(policy)[1] = torch.tensor([2.0, -1.0, 2.0])
    assert acts(policy) == pytest.approx([1 / 3, 1 / 3, 1 / 3])


def test_two_heads_duel() -> None:
    # V = 10, A = 1, 2, 6 with mean 3: Q = 8, 9, 13
    policy = QPolicy(bigrams(), {"value": 1, "advantage": 3})
    table(policy, "value")[1] = 10.0
    table(policy, "advantage")[1] = torch.tensor([1.0, 2.0, 6.0])
    assert policy.q_values(torch.tensor([[1]]))[0].tolist() == [8.0, 9.0, 13.0]


def test_a_prior_is_tilted() -> None:
    # Prior 1/2, 1/4, 1/4; Q / temperature = 0, log 4, 0: weights 1/2, 1, 1/4
    policy = PriorPolicy(bigrams(), temperature=2.0, towers={"prior": bigrams()})
    policy.prior.table.weight.data[1] = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64).log()  # type: ignore[union-attr,operator]
    table(policy)[1, 1] = 2.0 * math.log(4)
    found = policy.action_logits(torch.tensor([[1, 1]])).softmax(-1)[0].tolist()
    assert found == pytest.approx([0.5 / 1.75, 1 / 1.75, 0.25 / 1.75])


def test_a_prior_has_to_be_there_and_tempered() -> None:
    with pytest.raises(ValueError, match="needs it among its towers"):
        PriorPolicy(bigrams())
    with pytest.raises(ValueError, match="temperature must be above 0 with a prior, got 0"):
        PriorPolicy(bigrams(), temperature=0.0, towers={"prior": bigrams()})


# On every backbone


def with_prior(tiny_backbone: Tiny, name: str, **options: Any) -> PriorPolicy:
    """Weights of the prior and of the head differ from the backbone's."""
    prior = tiny_backbone(name)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for parameter in prior.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        policy = PriorPolicy(tiny_backbone(name), towers={"prior": prior}, **options)
        for parameter in policy.heads.parameters():
            parameter.data += torch.randn_like(parameter)
    return policy.eval()


BACKBONES = ["gru", "lstm", "ngram", "transformer"]


@pytest.mark.parametrize("name", BACKBONES)
def test_both_models_read_whole_and_in_parts(tiny_backbone: Tiny, name: str) -> None:
    """The laws of a backbone hold for the pair: prefix, and selecting rows."""
    policy = with_prior(tiny_backbone, name)
    tokens = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    with torch.no_grad():
        whole, _ = policy(tokens, mask)
        first, state = policy(tokens[:, :4], mask[:, :4])
        rows = torch.tensor([2, 0, 0])
        rest, _ = policy(tokens[rows, 4:], mask[rows, 4:], policy.select(state, rows))
        torch.testing.assert_close(first, whole[:, :4], atol=1e-5, rtol=0)
        torch.testing.assert_close(rest, whole[rows, 4:], atol=1e-5, rtol=0)
        alone, _ = policy.prior(tokens, mask)
        torch.testing.assert_close(
            policy.prior_logp(whole), policy.prior.unembed(alone).log_softmax(-1), atol=1e-5, rtol=0
        )
        own, _ = policy.backbone(tokens, mask)
        torch.testing.assert_close(policy.q_values(whole), policy.heads["q"](own), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", BACKBONES)
def test_sampling_and_scoring_agree(tiny_backbone: Tiny, name: str) -> None:
    """Log-probabilities while sampling, token by token, are those of the whole row read at once."""
    policy = with_prior(tiny_backbone, name, temperature=0.7, epsilon=0.1)
    generator = torch.Generator().manual_seed(1)
    prompts = [[1, 2, 3], [4, 5]]
    said = sample(policy, prompts, max_new_tokens=5, eos_ids=[0], generator=generator, group_size=3)
    rows = [[*prompts[i // 3], *r.tokens] for i, r in enumerate(said)]
    actions = [[*[F] * len(prompts[i // 3]), *[T] * len(r.tokens)] for i, r in enumerate(said)]
    exp = from_rows(rows, actions, group=[i // 3 for i in range(6)])
    with torch.no_grad():
        scores = score_actions(policy, exp)
        assert torch.isfinite(read(policy, exp)[exp.mask].float()).all()
    for i, response in enumerate(said):
        found = scores.logp[i][exp.action[i]].tolist()
        assert found == pytest.approx(response.logp, abs=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("dueling", [False, True], ids=["q", "dueling"])
def test_gradients_reach_backbone_and_heads_but_not_the_prior(
    tiny_backbone: Tiny, name: str, dueling: bool
) -> None:
    algorithm = QLearning(
        acting=Acting(temperature=0.5, epsilon=0.0),
        backup="soft",
        prior="reference",
        dueling=dueling,
        target=TargetNetwork(),
    )
    policy = algorithm.build_policy(lambda: tiny_backbone(name))
    policy.towers["prior"] = tiny_backbone(name)  # as `init_from` does, with gradient switched on
    algorithm.setup(policy)
    for parameter in policy.heads.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    exp = from_rows([[1, 2, 3], [4, 5, 6]], [[F, T, T], [F, T, T]], scores=[1.0, -1.0])
    algorithm.loss(exp, policy).sum.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.any() for p in policy.heads.parameters())
    assert all(p.grad is None and not p.requires_grad for p in policy.towers.parameters())
    assert name == "ngram" or any(p.grad is not None and p.grad.any() for p in policy.backbone.parameters())
    assert all(p.grad is None for p in algorithm.parameters())
    policy.train()
    assert not any(part.training for part in policy.towers.modules())


# From disk


def randomised(policy: Policy) -> Policy:
    generator = torch.Generator().manual_seed(5)
    for parameter in policy.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)
    return policy.eval()


def after_two_steps(tiny_backbone: Tiny) -> Policy:
    epsilon = LinearEpsilon(start=0.9, end=0.1, steps=4)
    algorithm = QLearning(acting=Acting(temperature=0.0, epsilon=epsilon))
    policy = algorithm.build_policy(lambda: tiny_backbone("gru"))
    for _ in range(2):
        algorithm.after_step(policy)
    return policy


MADE: dict[str, Callable[[Tiny], Policy]] = {
    "epsilon on its way": after_two_steps,
    "dueling": lambda tiny: QLearning(acting=Acting(), dueling=True).build_policy(lambda: tiny("lstm")),
    "prior": lambda tiny: with_prior(tiny, "transformer", temperature=0.3),
    "prior of a table": lambda tiny: with_prior(tiny, "ngram", epsilon=0.2),
    "ilql": lambda tiny: ILQL(target=TargetNetwork(), beta=3.0, temperature=0.8).build_policy(
        lambda: tiny("transformer")
    ),
}


@pytest.mark.parametrize("made", MADE)
def test_it_comes_back_and_acts_as_before(tiny_backbone: Tiny, made: str, tmp_path: Path) -> None:
    policy = randomised(MADE[made](tiny_backbone))
    codec = TrainedTokenizer(kind="char").build(lambda: ["abcd"])
    loaded = feedtune.load(save(policy, codec, tmp_path)).policy
    assert type(loaded) is type(policy)
    assert loaded.config == policy.config
    assert list(loaded.heads) == list(policy.heads)
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    with torch.no_grad():
        before, after = (p.action_logits(p(tokens, mask)[0]) for p in (policy, loaded))
    assert torch.equal(before, after)
    assert before.std() > 0.01


def test_epsilon_comes_back_as_it_was(tiny_backbone: Tiny, tmp_path: Path) -> None:
    policy = after_two_steps(tiny_backbone)
    codec = TrainedTokenizer(kind="char").build(lambda: ["abcd"])
    loaded = feedtune.load(save(policy, codec, tmp_path)).policy
    assert isinstance(loaded, QPolicy)
    assert float(loaded.epsilon) == pytest.approx(0.5)
    assert loaded.temperature == 0.0


def test_parts_have_names_for_learning_rates(tiny_backbone: Tiny) -> None:
    assert set(MADE["dueling"](tiny_backbone).parameter_groups()) == {"backbone", "value", "advantage"}
    assert set(MADE["prior"](tiny_backbone).parameter_groups()) == {"backbone", "q"}
    assert isinstance(MADE["ilql"](tiny_backbone), ILQLPolicy)
