"""A tree of responses with random rewards and a random behaviour, solved in numpy: what Q has to become.

Nothing here uses feedtune's formulas: `solve` and what it is given are written from the definitions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from feedtune.contracts import Algorithm
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune_plugins.backbones.ngram import NGram

PROMPT, EOS, DEPTH = 1, 2, 3
Said = tuple[int, ...]
Table = dict[Said, np.ndarray]


@dataclass
class Tree:
    """Vocabulary 0, 1, 2 (the end), at most three tokens a response: 15 of them.

    With `observed`, a token 0 that nobody chose comes after the first. With `cut`, responses that reach three
    tokens without the end are not done: a value follows. Each response is in the data one to four times.
    """

    observed: bool = False
    cut: bool = False
    seed: int = 0
    responses: list[Said] = field(init=False)
    counts: list[int] = field(init=False)
    reward: Table = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        open_ends: list[Said] = [()]
        self.responses = []
        for _ in range(DEPTH):
            grown = [(*said, token) for said in open_ends for token in (0, 1, 2)]
            self.responses += [said for said in grown if said[-1] == EOS or len(said) == DEPTH]
            open_ends = [said for said in grown if said[-1] != EOS and len(said) < DEPTH]
        self.counts = [int(c) for c in rng.integers(1, 5, len(self.responses))]
        self.reward = {said: rng.normal(size=3) for said in self.states()}

    def states(self) -> list[Said]:
        """What was said before each choice."""
        return sorted({said[:t] for said in self.responses for t in range(len(said))}, key=len)

    def leaves(self) -> list[Said]:
        """What was said where rows were cut."""
        return [said for said in self.responses if self.cut and said[-1] != EOS]

    def tokens(self, said: Said) -> list[int]:
        """The row so far, the observation included."""
        between = [0] if self.observed and said and said[0] != EOS else []
        return [PROMPT, *said[:1], *between, *said[1:]]

    def visits(self, said: Said) -> np.ndarray:
        """How often each token follows in the data, `[3]`."""
        found = np.zeros(3)
        for response, count in zip(self.responses, self.counts, strict=True):
            if response[: len(said)] == said and len(response) > len(said):
                found[response[len(said)]] += count
        return found

    def mu(self, said: Said) -> np.ndarray:
        """The data's behaviour, `[3]`; nowhere 0."""
        return self.visits(said) / self.visits(said).sum()

    def ends(self, said: Said) -> bool:
        """Whether nothing follows."""
        return bool(said) and (said[-1] == EOS or (len(said) == DEPTH and not self.cut))

    @cached_property
    def data(self) -> Experience:
        """Every response as often as it is in the data."""
        rows = [r for r, count in zip(self.responses, self.counts, strict=True) for _ in range(count)]
        tokens = [self.tokens(r) for r in rows]
        observed = [self.observed and r[0] != EOS for r in rows]
        actions = [
            [False, True, *([False] if o else []), *([True] * (len(r) - 1))]
            for r, o in zip(rows, observed, strict=True)
        ]
        exp = from_rows(tokens, actions)
        reward = torch.zeros(exp.tokens.shape, dtype=torch.float64)
        for i, r in enumerate(rows):
            earned = [float(self.reward[r[:t]][token]) for t, token in enumerate(r)]
            reward[i][exp.action[i]] = torch.tensor(earned, dtype=torch.float64)
        done = torch.tensor([self.ends(r) for r in rows])
        return replace(exp, reward=reward, done=done)

    def solve(
        self,
        gamma: float,
        value: Callable[[Said, np.ndarray], float],
        leaf: dict[Said, float] | None = None,
        choose: Callable[[Said, np.ndarray], np.ndarray] = lambda said, y: y,
    ) -> Table:
        """Q of every state, from the end: y = r + gamma V(next) with V = value(next, Q(next)); Q = choose(y).

        `leaf` has the values where rows were cut.
        """
        found: Table = {}
        for said in reversed(self.states()):
            y = self.reward[said].copy()
            for token in range(3):
                after = (*said, token)
                if not self.ends(after):
                    y[token] += gamma * (leaf or {})[after] if after not in found else 0.0
                    y[token] += gamma * value(after, found[after]) if after in found else 0.0
            found[said] = choose(said, y)
        return found

    # Between this tree and a table of feedtune's

    def make_backbone(self) -> NGram:
        """Knows whole rows: each state is an entry of its own."""
        return NGram(vocab_size=3, n=DEPTH + 3).double()

    def build(self, algorithm: Algorithm) -> Policy:
        """The algorithm's policy, with random weights in its language model and in states at a cut."""
        policy = algorithm.build_policy(self.make_backbone)
        generator = torch.Generator().manual_seed(self.seed)
        for backbone in (policy.backbone, *policy.towers.values()):
            weight = backbone.table.weight.data  # type: ignore[union-attr]
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
        for head in policy.heads.values():
            for said in self.leaves():
                row = head.weight.data[self.bucket(policy, said)]  # type: ignore[union-attr,index]
                row.copy_(torch.randn(row.shape, generator=generator, dtype=row.dtype))
        algorithm.setup(policy)
        return policy

    def bucket(self, policy: Policy, said: Said) -> int:
        """Row of the tables for the state after these tokens."""
        tokens = torch.tensor([self.tokens(said)])
        hidden, _ = policy.backbone(tokens, torch.ones_like(tokens, dtype=torch.bool))
        return int(hidden[0, -1, 0])

    def hidden(self, policy: Policy, said: Said) -> Tensor:
        """The policy's hidden state after these tokens, `[H]`."""
        tokens = torch.tensor([self.tokens(said)])
        found: Tensor = policy(tokens, torch.ones_like(tokens, dtype=torch.bool))[0][0, -1]
        return found

    def read(self, policy: Policy, head: str = "q") -> Table:
        """A head's entries of every state, cut ones included."""
        weight = policy.heads[head].weight.data  # type: ignore[union-attr]
        return {s: weight[self.bucket(policy, s)].numpy() for s in [*self.states(), *self.leaves()]}  # type: ignore[index]

    def write(self, policy: Policy, table: Table, head: str = "q") -> None:
        """Set a head's entries."""
        for said, values in table.items():
            policy.heads[head].weight.data[self.bucket(policy, said)] = torch.tensor(values)  # type: ignore[union-attr,index]

    def gradients(self, algorithm: Algorithm, policy: Policy) -> dict[str, Tensor]:
        """Of the whole data's loss as a sum over its tokens, by the name of the head."""
        policy.zero_grad()
        algorithm.loss(self.data, policy).sum.backward()  # type: ignore[no-untyped-call]
        return {n: h.weight.grad.clone() for n, h in policy.heads.items() if h.weight.grad is not None}  # type: ignore[operator,union-attr]

    def fit(self, algorithm: Algorithm, policy: Policy, steps: int, rate: float = 1.0) -> None:
        """Gradient descent on the whole data, each entry's step divided by its visits (fitted iteration)."""
        visits = torch.ones(policy.heads["q" if "q" in policy.heads else "q1"].weight.shape)  # type: ignore[arg-type,union-attr]
        for said in self.states():
            visits[self.bucket(policy, said)] = torch.tensor(self.visits(said)).float()
        for _ in range(steps):
            found = self.gradients(algorithm, policy)
            for name, gradient in found.items():
                by = visits if gradient.shape == visits.shape else visits.sum(-1, keepdim=True)
                policy.heads[name].weight.data -= rate * gradient / by  # type: ignore[union-attr,operator]
            algorithm.after_step(policy)


def close(found: Table, expected: Table, tolerance: float = 1e-9) -> None:
    """Every state's numbers agree, and they are not all 0."""
    assert max(np.abs(v).max() for v in expected.values()) > 0.1
    for said, values in expected.items():
        np.testing.assert_allclose(found[said], values, atol=tolerance, rtol=0, err_msg=str(said))
