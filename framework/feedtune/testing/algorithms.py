"""The laws of `Algorithm`, as a suite for pytest to subclass.

A plugin's test module is four lines:

    class TestMine(AlgorithmSuite):
        def make(self) -> Algorithm:
            return Mine()

Rows here are random: ragged, in groups, some with observations between two turns, with a reward on every
action token, some to be bootstrapped. Everything is in float64, and what two ways of computing the same thing
give is compared whole: loss, gradients, metrics and the algorithm's own state.
"""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from feedtune.completion import complete
from feedtune.contracts import Algorithm, Backbone, State
from feedtune.experience import Experience, from_rows, place_scores
from feedtune.policy import Policy
from feedtune.references import FrozenCopy

VOCABULARY = 6


class TinyBackbone(Backbone):
    """The smallest recurrent network that obeys the laws: h_t = tanh(embed(x_t) + W h_{t-1})."""

    def __init__(self, *, vocab_size: int = VOCABULARY, hidden_size: int = 5) -> None:
        super().__init__()
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.config = {"vocab_size": vocab_size, "hidden_size": hidden_size}
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.recurrence = nn.Linear(hidden_size, hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, vocab_size)

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        embedded = self.embedding(tokens)  # [B, T, H]
        last = torch.zeros_like(embedded[:, 0]) if state is None else state  # [B, H]
        hidden = []
        for t in range(tokens.shape[1]):
            last = torch.where(mask[:, t, None], (embedded[:, t] + self.recurrence(last)).tanh(), last)
            hidden.append(last)
        return torch.stack(hidden, 1), last

    def unembed(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.output(hidden)
        return logits

    def select(self, state: State, rows: Tensor) -> State:
        chosen: Tensor = state[rows]
        return chosen

    def head(self, outputs: int) -> nn.Module:
        head = nn.Linear(self.hidden_size, outputs, dtype=self.output.weight.dtype)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head


@dataclass
class Stage:
    """An algorithm with its policy and reference, all with random weights, before a rollout."""

    algorithm: Algorithm
    policy: Policy
    reference: FrozenCopy


@dataclass
class Outcome:
    """What an algorithm makes of a rollout."""

    loss: Tensor
    gradients: dict[str, Tensor]
    metrics: dict[str, float]
    state: dict[str, Tensor]


def random_rollout(seed: int, groups: int, group_size: int) -> Experience:
    """A rollout as a collector returns it, in float64. Row 0 has one action token, and is not done."""
    random = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=random))

    rows: list[list[int]] = []
    actions: list[list[bool]] = []
    for _ in range(groups):
        prompt = [whole(0, VOCABULARY) for _ in range(whole(1, 4))]
        for _ in range(group_size):
            acted = [True] * (1 if not rows else whole(1, 5))
            if rows and whole(0, 3) == 0:
                acted += [False] * whole(1, 3) + [True] * whole(1, 3)  # an observation and another turn
            rows.append(prompt + [whole(0, VOCABULARY) for _ in acted])
            actions.append([False] * len(prompt) + acted)
    group = [number for number in range(groups) for _ in range(group_size)]
    exp = from_rows(rows, actions, scores=[0.0] * len(rows), group=group)
    reward = torch.randn(exp.tokens.shape, generator=random, dtype=torch.float64)
    done = torch.arange(len(rows)) % 5 != 0
    exp = replace(exp, reward=torch.where(exp.action, reward, 0), done=done, ended=done)
    greedy = torch.randn(groups, generator=random, dtype=torch.float64)
    return exp.with_(greedy=greedy.repeat_interleave(group_size))


def right_aligned(exp: Experience) -> Experience:
    """The same rows with their pads in front."""
    rows = [exp[row : row + 1].trim() for row in range(len(exp))]
    return Experience.cat([row.padded(exp.tokens.shape[1] - row.tokens.shape[1], 0) for row in rows])


def nudge(module: nn.Module, seed: int, size: float) -> None:
    """Move every trainable weight by a random amount: a step that nobody asked for."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.requires_grad:
                weight.add_(size * torch.randn(weight.shape, generator=random, dtype=weight.dtype))


class AlgorithmSuite(ABC):
    """Subclass it, return an algorithm from `make`, and pytest checks its laws."""

    group_size = 4
    """Rows to each prompt; 2 for algorithms that compare pairs."""

    unscored_silences_its_group = False
    """Whether a row without a score leaves its whole group nothing to say, as half a pair does."""

    seeds: Sequence[int] = (0, 1, 2)
    """Of the rollouts that laws are tried on."""

    tolerance = 1e-9

    @abstractmethod
    def make(self) -> Algorithm:
        """A fresh algorithm."""

    def make_backbone(self) -> Backbone:
        """What the policy reads with; float64."""
        return TinyBackbone().double()

    def stage(self, seed: int = 0) -> Stage:
        """Everything before a rollout. The reference is another model; the heads are not 0."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            algorithm = self.make().double()
            policy = algorithm.build_policy(self.make_backbone).eval()
            nudge(policy, seed + 1, 0.5)
            reference = FrozenCopy(Policy(self.make_backbone(), temperature=policy.temperature or 1.0))
            algorithm.setup(policy)
        return Stage(algorithm, policy, reference)

    def prepared(self, stage: Stage, exp: Experience) -> tuple[Experience, Mapping[str, float]]:
        """The rollout as the loss will see it, and metrics."""
        with torch.no_grad():
            exp = complete(exp, stage.algorithm.needs(), stage.policy, stage.reference)
            return stage.algorithm.prepare(exp, stage.policy)

    def outcome(self, exp: Experience, stage: Stage | None = None) -> Outcome:
        """A rollout, a step that moves the policy away from where it acted, and the loss of the rollout."""
        stage = stage or self.stage()
        ready, metrics = self.prepared(stage, exp)
        nudge(stage.policy, 3, 0.3)
        return self.measured(stage, ready, metrics)

    def measured(self, stage: Stage, ready: Experience, metrics: Mapping[str, float]) -> Outcome:
        """The loss of a prepared rollout with all that follows from it."""
        stage.policy.zero_grad()
        loss = stage.algorithm.loss(ready, stage.policy)
        value = loss.sum / loss.denominator
        value.backward()  # type: ignore[no-untyped-call]
        gradients = {
            name: weight.grad.clone()
            for name, weight in stage.policy.named_parameters()
            if weight.grad is not None
        }
        state = {name: value.clone() for name, value in stage.algorithm.state_dict().items()}
        numbers = {name: float(number) for name, number in {**metrics, **loss.metrics}.items()}
        return Outcome(value.detach(), gradients, numbers, state)

    def rollout(self, seed: int = 0, groups: int = 3) -> Experience:
        """Random rows in groups."""
        return random_rollout(seed, groups, self.group_size)

    # -- the laws ---------------------------------------------------------------------------------------

    def test_the_same_rollout_gives_the_same_loss(self) -> None:
        exp = self.rollout()
        self.same(self.outcome(exp), self.outcome(exp), "again", tolerance=0)

    def test_it_learns_from_a_rollout(self) -> None:
        """Or all other laws say nothing."""
        found = self.outcome(self.rollout())
        assert max(float(g.abs().max()) for g in found.gradients.values()) > 1e-4
        assert math.isfinite(float(found.loss))

    def test_pads_leave_no_trace(self) -> None:
        for seed in self.seeds:
            exp = self.rollout(seed)
            for pad, (left, right) in itertools.product((0, VOCABULARY - 1), ((0, 3), (2, 0), (1, 2))):
                wide = exp.padded(left, right)
                dirty = replace(wide, tokens=torch.where(wide.mask, wide.tokens, pad))
                what = f"{left} pads of token {pad} on the left, {right} on the right"
                self.same(self.outcome(dirty), self.outcome(exp), what)

    def test_rows_may_be_aligned_at_either_end(self) -> None:
        for seed in self.seeds:
            exp = self.rollout(seed)
            self.same(self.outcome(right_aligned(exp)), self.outcome(exp), "rows aligned at their ends")

    def test_rows_may_stand_in_any_order(self) -> None:
        for seed in self.seeds:
            exp = self.rollout(seed)
            order = torch.randperm(len(exp), generator=torch.Generator().manual_seed(seed))
            self.same(self.outcome(exp[order]), self.outcome(exp), "rows in another order")

    def test_group_numbers_are_only_names(self) -> None:
        exp = self.rollout()
        renamed = replace(exp, group=exp.group.max() * 3 + 5 - 2 * exp.group)
        self.same(self.outcome(renamed), self.outcome(exp), "other group numbers")

    def test_micro_batches_add_up(self) -> None:
        for seed in self.seeds:
            stage, exp = self.stage(), self.rollout(seed)
            ready, _ = self.prepared(stage, exp)
            nudge(stage.policy, 3, 0.3)
            tokens, rows = float(ready.action.sum()), float(ready.action.any(-1).sum())
            counted = replace(ready, step_tokens=tokens, step_rows=rows)
            whole = self.measured(stage, counted, {})
            parts = [
                self.measured(stage, counted[(exp.group == number).nonzero().squeeze(-1)].trim(), {})
                for number in sorted(set(exp.group.tolist()))
            ]
            total = sum(part.loss for part in parts)
            assert_close(total, whole.loss, atol=self.tolerance, rtol=0)
            for name, gradient in whole.gradients.items():
                added = sum(part.gradients.get(name, torch.zeros_like(gradient)) for part in parts)
                assert_close(added, gradient, atol=self.tolerance, rtol=0, msg=f"gradient of {name}")

    def test_a_row_without_a_score_is_as_good_as_absent(self) -> None:
        for seed in self.seeds:
            exp = self.rollout(seed)
            score = exp.score.float()
            score[1] = math.nan
            silent = place_scores(exp, score)
            silent = replace(silent, reward=torch.where(silent.scored[:, None], exp.reward, 0))
            gone = exp.group == exp.group[1] if self.unscored_silences_its_group else score.isnan()
            without = exp[(~gone).nonzero().squeeze(-1)].trim()
            found, expected = self.outcome(silent), self.outcome(without)
            found.metrics = {name: found.metrics[name] for name in expected.metrics}
            self.same(found, expected, "without the row", metrics=not self.unscored_silences_its_group)

    def test_an_empty_response_is_harmless(self) -> None:
        exp = self.rollout()
        first = torch.arange(len(exp)) == 2
        exp = replace(exp, action=exp.action & ~first[:, None])
        found = self.outcome(exp)
        assert all(bool(g.isfinite().all()) for g in found.gradients.values())
        nothing = self.outcome(replace(exp, action=torch.zeros_like(exp.action)))
        assert float(nothing.loss) == 0
        assert not any(bool(g.any()) for g in nothing.gradients.values())
        assert all(bool(value.isfinite().all()) for value in nothing.state.values())

    def test_needs_are_all_that_it_reads(self) -> None:
        """What it does not ask for may be missing; "greedy" among it."""
        stage, exp = self.stage(), self.rollout()
        if "greedy" not in stage.algorithm.needs():
            exp = replace(exp, extra={})
        ready, metrics = self.prepared(stage, exp)
        for name, need in {"ref_logp": "reference", "old_logp": "old_logp"}.items():
            assert (getattr(ready, name) is not None) == (need in stage.algorithm.needs())
        self.measured(stage, ready, metrics)

    def test_its_state_is_all_of_its_memory(self) -> None:
        """After two rollouts with steps, another algorithm that is given the state goes on alike."""
        stage = self.stage()
        for seed in range(2):
            self.outcome(self.rollout(seed), stage)
            stage.algorithm.after_step(stage.policy)
        twin = self.stage(seed=1)
        twin.algorithm.load_state_dict(copy.deepcopy(stage.algorithm.state_dict()))
        twin.policy.load_state_dict(copy.deepcopy(stage.policy.state_dict()))
        twin.reference.load_state_dict(copy.deepcopy(stage.reference.state_dict()))
        for seed in (2, 3):
            one, other = (self.outcome(self.rollout(seed), each) for each in (stage, twin))
            self.same(other, one, "restored", tolerance=0)
            for each in (stage, twin):
                each.algorithm.after_step(each.policy)

    def test_its_docstring_says_what_it_is(self) -> None:
        text = type(self.make()).__doc__ or ""
        assert len(text.split()) >= 8, f"{type(self.make()).__name__} needs a docstring"

    def same(
        self,
        found: Outcome,
        expected: Outcome,
        what: str,
        tolerance: float | None = None,
        metrics: bool = True,
    ) -> None:
        """Loss, gradients, metrics and state are equal."""
        within = self.tolerance if tolerance is None else tolerance
        _equal(found.loss, expected.loss, within, f"{what}: loss")
        _all_equal(found.gradients, expected.gradients, within, f"{what}: gradient")
        _all_equal(found.state, expected.state, within, f"{what}: state")
        if metrics:
            # Some are means that were taken in float32.
            numbers, wanted = (
                {name: torch.tensor(number) for name, number in each.metrics.items()}
                for each in (found, expected)
            )
            _all_equal(numbers, wanted, 1e-5, f"{what}: metric")


def _all_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], within: float, what: str) -> None:
    assert found.keys() == expected.keys(), f"{what}: {sorted(found)} and {sorted(expected)}"
    for name, value in expected.items():
        _equal(found[name], value, within, f"{what} {name}")


def _equal(found: Tensor, expected: Tensor, within: float, what: str) -> None:
    def say(difference: str) -> str:
        return f"{what}: {difference}"

    assert_close(found, expected, atol=within, rtol=within, equal_nan=True, msg=say)
