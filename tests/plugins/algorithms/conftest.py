"""A world small enough to be enumerated: every response, its probability and its return, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from feedtune.completion import complete
from feedtune.contracts import Algorithm
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune.scoring import score_actions
from feedtune_plugins.backbones.ngram import NGram

PROMPT, EOS = 1, 2


class World:
    """Vocabulary 0, 1 and 2 (the end); at most two tokens a response, so there are seven: 2, 00, 01, ... 12.

    Each token of each response has a reward of its own. The policy is a trigram table with random weights.
    """

    def __init__(self) -> None:
        self.responses = [[EOS], *(list(pair) for pair in itertools.product((0, 1), (0, 1, 2)))]
        self.generator = torch.Generator().manual_seed(12)
        first, second = self.randn(3), self.randn(2, 3)  # a token's reward knows nothing of later tokens
        self.rewards = [
            torch.stack([first[r[0]], *(second[r[0], token] for token in r[1:])]) for r in self.responses
        ]
        self.weights = self.randn(16, 3)  # of the policy's table: 4 x 4 contexts
        self.reference_weights = self.randn(16, 3)
        self.critic = self.randn(16, 1)

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def make_backbone(self) -> NGram:
        backbone = NGram(vocab_size=3, n=3).double()
        backbone.table.weight.data = self.weights.clone()
        return backbone

    def policy(self, algorithm: Algorithm) -> Policy:
        """As the algorithm builds it; a value head gets random weights."""
        policy = algorithm.build_policy(self.make_backbone)
        for head in policy.heads.values():
            head.weight.data = self.critic.clone()
        return policy

    def experience(self, rows: Sequence[int]) -> Experience:
        """These of the seven responses, with their rewards."""
        tokens = [[PROMPT, *self.responses[i]] for i in rows]
        actions = [[False] + [True] * len(self.responses[i]) for i in rows]
        exp = from_rows(tokens, actions)
        reward = torch.zeros(exp.tokens.shape, dtype=torch.float64)
        for row, i in enumerate(rows):
            reward[row, 1 : 1 + len(self.responses[i])] = self.rewards[i]
        return replace(exp, reward=reward)

    def complete(self, exp: Experience, algorithm: Algorithm, policy: Policy) -> Experience:
        """With what the algorithm needs, as the module gives it."""
        needs = algorithm.needs()
        exp = complete(exp, needs - {"reference"}, policy)
        if "reference" in needs:
            exp = replace(exp, ref_logp=self.reference_logp(exp, policy.temperature))
        if "greedy" in needs:
            exp = exp.with_(greedy=(0.25 + 0.5 * exp.group).double())
        return exp

    def reference_logp(self, exp: Experience, temperature: float) -> Tensor:
        backbone = self.make_backbone()
        backbone.table.weight.data = self.reference_weights.clone()
        return score_actions(Policy(backbone, temperature=temperature), exp).logp.detach()

    # The exact side: nothing below uses the code under test

    def distributions(self, policy: Policy, weights: Tensor | None = None) -> dict[tuple[int, ...], Tensor]:
        """log pi(. | prompt, said) `[3]` for each `said`; from the policy's table or another one."""
        table = policy.backbone.table.weight if weights is None else weights  # type: ignore[union-attr]
        found = {}
        for said in ((), (0,), (1,)):
            # The bucket of a context: its last two symbols, token + 1 or 0 where there is none, in base 4.
            older, newer = [0, PROMPT + 1, *(token + 1 for token in said)][-2:]
            found[said] = (table[older + 4 * newer] / policy.temperature).log_softmax(-1)
        return found

    def row_logps(self, policy: Policy, weights: Tensor | None = None) -> Tensor:
        """log P(response) `[7]`, with gradient."""
        per_state = self.distributions(policy, weights)
        return torch.stack(
            [
                torch.stack([per_state[tuple(r[:t])][token] for t, token in enumerate(r)]).sum()
                for r in self.responses
            ]
        )

    def returns(self, gamma: float) -> Tensor:
        """Discounted return of each response, `[7]`."""
        return torch.stack([(gamma ** torch.arange(len(r)).double() * r).sum() for r in self.rewards])

    def exact_gradient(self, policy: Policy, objective: Callable[[], Tensor]) -> Tensor:
        """Of an objective with respect to the policy's table."""
        (gradient,) = torch.autograd.grad(objective(), [policy.backbone.table.weight])  # type: ignore[union-attr]
        return gradient

    def expected_gradient(self, algorithm: Algorithm, policy: Policy, rows: int) -> Tensor:
        """The mean of the loss's gradient over all batches of so many rows, weighted by their probability."""
        p = self.row_logps(policy).detach().exp()
        table = policy.backbone.table.weight  # type: ignore[union-attr]
        total = torch.zeros_like(table)
        for batch in itertools.product(range(len(self.responses)), repeat=rows):
            exp = self.complete(self.experience(batch), algorithm, policy)
            with torch.no_grad():
                exp, _ = algorithm.prepare(exp, policy)
            loss = algorithm.loss(exp, policy)
            (gradient,) = torch.autograd.grad(loss.sum / loss.denominator, [table])
            total += p[list(batch)].prod() * gradient
        return total


@pytest.fixture
def world() -> World:
    """Fresh for each test."""
    return World()
