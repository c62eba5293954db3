"""The laws of `Algorithm`, as a suite for pytest to subclass.

A plugin's test module is four lines:

    class TestMine(AlgorithmSuite):
        def make(self) -> Algorithm:
            return Mine()

Rows here are random: ragged, of one token or none, in groups, some with observations between two turns, with
a reward on every action token, some to be bootstrapped. Everything is in float64, and what two ways of
computing the same thing give is compared whole: loss, gradients, metrics and the algorithm's own state.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from feedtune.completion import complete
from feedtune.contracts import Algorithm, Backbone
from feedtune.errors import UserError
from feedtune.experience import Experience, place_scores
from feedtune.policy import Policy
from feedtune.references import FrozenCopy
from feedtune.testing.rollouts import (
    in_float32,
    nan_at_pads,
    random_rollout,
    right_aligned,
    short_and_good,
)
from feedtune.testing.sameness import close
from feedtune.testing.stages import Outcome, Stage, all_equal, equal, nudge
from feedtune.testing.suite import Suite, require, untouched_randomness
from feedtune.testing.tiny import VOCABULARY, Louder, TinyBackbone


class AlgorithmSuite(Suite):
    """Subclass it, return an algorithm from `make`, and pytest checks its laws."""

    group: ClassVar[str] = "algorithm"

    group_size = 4
    """Rows to each prompt; 2 for algorithms that compare pairs."""

    unscored_silences_its_group = False
    """Whether a row without a score leaves its whole group nothing to say, as half a pair does."""

    compares_rows = False
    """Whether the score of a row says something about other rows, as in baselines and filters."""

    tolerance = 1e-9

    @abstractmethod
    def make(self) -> Algorithm:
        """A fresh algorithm."""

    def make_at(self, temperature: float) -> Algorithm:
        """The same at this temperature; for algorithms with an argument of that name."""
        if self.config is not None:
            made: Algorithm = self.built_from({**self.config, "temperature": temperature})
            return made
        raise NotImplementedError(f"{type(self.make()).__name__} has a temperature: say how to set it")

    @classmethod
    def fitted(cls) -> tuple[type[Suite], str]:
        """What refuses groups of four compares pairs; others show whether they compare rows."""
        try:
            cls().outcome(cls().rollout())
        except UserError:
            own = {"group_size": 2, "unscored_silences_its_group": True}
            return type(cls.__name__, (cls,), own), "compares the two rows of each pair"
        except Exception:  # the laws will say what it is
            return cls, ""
        comparing = type(cls.__name__, (cls,), {"compares_rows": True})
        try:
            comparing().test_an_empty_response_counts_if_rows_are_compared()
        except Exception:
            return cls, "each row speaks for itself"
        return comparing, "compares rows with one another"

    def probe(self, made: Algorithm) -> Any:
        """Two rollouts with a step each: what is learnt from them, and how the policy acts in between."""
        stage, found = self.stage(make=lambda: made), list[Any]()
        found.append(sorted(made.needs()))
        for seed in range(2):
            exp = self.rollout(seed, groups=2) if seed else self.with_a_long_row()
            found.append(self.outcome(exp, stage))
            made.after_step(stage.policy)
            with torch.no_grad():
                hidden, _ = stage.policy(exp.tokens[:2], exp.mask[:2])
                found.append(stage.policy.action_logits(hidden).log_softmax(-1))
        found += [dict(made.state_dict()), dict(stage.policy.state_dict())]
        return found

    def with_a_long_row(self) -> Experience:
        """A group of which one row is near a usual limit of length."""
        lengths = [(3, 1, 28, 6)[number % 4] for number in range(self.group_size)]
        return random_rollout(0, 1, self.group_size, lengths)

    def make_backbone(self) -> Backbone:
        """What the policy reads with; float64."""
        return TinyBackbone().double()

    def stage(
        self,
        seed: int = 0,
        make: Callable[[], Algorithm] | None = None,
        times: float | None = None,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
    ) -> Stage:
        """Everything before a rollout. The reference is another model; the heads are not 0."""

        def make_backbone() -> Backbone:
            made = self.make_backbone()
            return made if times is None else Louder(made, times)

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            algorithm = (make or self.make)().double()
            policy = algorithm.build_policy(make_backbone).eval()
            nudge(policy, seed + 1, 0.5)
            reference = FrozenCopy(Policy(make_backbone(), temperature=policy.temperature or 1.0))
            algorithm.setup(policy)
        parts = (algorithm, policy, reference)
        return Stage(*(part.to(device, dtype) for part in parts))  # type: ignore[arg-type]

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

    def one_token_each(self) -> Experience:
        """Random rows with one action token each."""
        return random_rollout(1, 3, self.group_size, [1] * 3 * self.group_size)

    def rollouts(self) -> Sequence[Experience]:
        """What laws are tried on: rows of all sorts, of one token each, and some empty or without a score."""
        lengths = [(2, 1, 3, 0, 1)[number % 5] for number in range(4 * self.group_size)]
        return self.rollout(), self.one_token_each(), random_rollout(2, 4, self.group_size, lengths, {5})

    # -- the laws ---------------------------------------------------------------------------------------

    def test_the_same_rollout_gives_the_same_loss(self) -> None:
        exp = self.rollout()
        self.same(self.outcome(exp), self.outcome(exp), "again", tolerance=0)

    def test_it_draws_nothing_from_the_global_generators(self) -> None:
        stage, exp = self.stage(), self.rollout()
        with untouched_randomness():
            self.outcome(exp, stage)
            stage.algorithm.after_step(stage.policy)

    def test_it_follows_its_policy_to_float32_and_bfloat16(self) -> None:
        """Moved with its policy, it computes the same, as far as the type can tell; nothing stays behind."""
        exp = self.rollout()
        exact = self.outcome(exp)
        for dtype, within in ((torch.float32, 1e-3), (torch.bfloat16, None)):
            found = self.outcome(in_float32(exp), self.stage(dtype=dtype))
            sound = all(bool(g.isfinite().all()) for g in found.gradients.values())
            require(sound and bool(found.loss.isfinite()), f"in {dtype} the loss or a gradient is not finite")
            if within is not None:
                equal(found.loss.double(), exact.loss, within, f"{dtype}: loss")

    def test_it_works_on_a_gpu(self) -> None:
        if not torch.cuda.is_available():
            return self.inapplicable("there is no CUDA device here")
        exp = self.rollout()
        found, exact = self.outcome(exp.to("cuda"), self.stage(device="cuda")), self.outcome(exp)
        equal(found.loss.cpu(), exact.loss, 1e-6, "on a GPU: loss")
        return None

    def test_it_learns_from_a_rollout(self) -> None:
        """Or all other laws say nothing."""
        found = self.outcome(self.rollout())
        assert max(float(g.abs().max()) for g in found.gradients.values()) > 1e-4
        assert math.isfinite(float(found.loss))

    def test_pads_leave_no_trace(self) -> None:
        for exp in self.rollouts():
            expected = self.outcome(exp)
            for pad, (left, right) in itertools.product((0, VOCABULARY - 1), ((0, 3), (2, 0), (1, 2))):
                wide = exp.padded(left, right)
                dirty = replace(wide, tokens=torch.where(wide.mask, wide.tokens, pad))
                what = f"{left} pads of token {pad} on the left, {right} on the right"
                self.same(self.outcome(dirty), expected, what)

    def test_nan_at_a_pad_leaves_no_trace(self) -> None:
        """Log-probabilities, values and what else is kept for each token may hold NaN where there is none."""
        for exp in self.rollouts():
            stage, wide = self.stage(), exp.padded(1, 2)
            expected = self.outcome(wide)
            ready, metrics = self.prepared(stage, wide)
            nudge(stage.policy, 3, 0.3)
            found = self.measured(stage, nan_at_pads(ready), metrics)
            self.same(found, expected, "NaN at pads of what the loss reads")

    def test_rows_may_be_aligned_at_either_end(self) -> None:
        for exp in self.rollouts():
            self.same(self.outcome(right_aligned(exp)), self.outcome(exp), "rows aligned at their ends")

    def test_rows_may_stand_in_any_order(self) -> None:
        for exp in self.rollouts():
            order = torch.randperm(len(exp), generator=torch.Generator().manual_seed(0))
            self.same(self.outcome(exp[order]), self.outcome(exp), "rows in another order")

    def test_group_numbers_are_only_names(self) -> None:
        exp = self.rollout()
        renamed = replace(exp, group=exp.group.max() * 3 + 5 - 2 * exp.group)
        self.same(self.outcome(renamed), self.outcome(exp), "other group numbers")

    def test_micro_batches_add_up(self) -> None:
        for exp in self.rollouts():
            stage = self.stage()
            ready, _ = self.prepared(stage, exp)
            nudge(stage.policy, 3, 0.3)
            tokens, rows = float(ready.action.sum()), float(ready.action.any(-1).sum())
            counted = replace(ready, step_tokens=tokens, step_rows=rows)
            whole = self.measured(stage, counted, {})
            parts = [
                self.measured(stage, counted[(exp.group == number).nonzero().squeeze(-1)].trim(), {})
                for number in sorted(set(exp.group.tolist()))
            ]
            total = sum((part.loss for part in parts), torch.zeros_like(whole.loss))
            close(total, whole.loss, self.tolerance, "the sum of the parts' losses", relative=0.0)
            for name, gradient in whole.gradients.items():
                zero = torch.zeros_like(gradient)
                added = sum((part.gradients.get(name, zero) for part in parts), zero)
                close(added, gradient, self.tolerance, f"gradient of {name}", relative=0.0)

    def test_a_row_without_a_score_is_as_good_as_absent(self) -> None:
        for exp in self.rollouts():
            score = torch.where(exp.scored, exp.score.float(), math.nan)
            score[1] = math.nan
            silent = place_scores(exp, score)
            silent = replace(silent, reward=torch.where(silent.scored[:, None], exp.reward, 0))
            found, expected = self.outcome(silent), self.outcome(self.without(exp, score.isnan()))
            found.metrics = {name: found.metrics[name] for name in expected.metrics}
            self.same(found, expected, "without the row", metrics=not self.unscored_silences_its_group)

    def test_an_empty_response_has_no_loss_and_is_there_for_others_to_compare_with(self) -> None:
        """As if it had been said and then taken from the loss; where rows are not compared, as if absent.

        The reference is the policy and the response is short: no penalty falls on what is not said.
        """
        for exp in self.rollouts():
            if (row := short_and_good(exp)) is None:
                continue
            stage, other = self.of_one_mind(), self.of_one_mind()
            found = self.outcome(replace(exp, action=exp.action & ~row[:, None]), stage)
            if self.compares_rows:
                ready, metrics = self.prepared(other, exp)
                nudge(other.policy, 3, 0.3)
                late = replace(ready, action=ready.action & ~row[:, None])
                self.same(found, self.measured(other, late, metrics), "taken from the loss", metrics=False)
            else:
                expected = self.outcome(self.without(exp, row), other)
                alike = not self.unscored_silences_its_group
                self.same(found, expected, "without the row", metrics=alike)

    def test_an_empty_response_counts_if_rows_are_compared(self) -> None:
        exp = self.one_token_each()
        row = short_and_good(exp)
        assert row is not None
        found = self.outcome(replace(exp, action=exp.action & ~row[:, None]), self.of_one_mind())
        absent = self.outcome(self.without(exp, row), self.of_one_mind())
        moved = [float((found.gradients[name] - g).abs().max()) for name, g in absent.gradients.items()]
        assert (max(moved) > 1e-6) == self.compares_rows, moved

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

    def test_temperature_is_mirrored_in_every_log_probability(self) -> None:
        """Logits T times as large at temperature T are the same policy, in all that is computed."""
        if "temperature" not in inspect.signature(type(self.make())).parameters:
            return
        for exp in self.rollouts():
            outcomes, acting = [], []
            for temperature in (1.0, 2.5):
                stage = self.stage(make=partial(self.make_at, temperature), times=temperature)
                outcomes.append(self.outcome(exp, stage))
                with torch.no_grad():
                    hidden, _ = stage.policy(exp.tokens, exp.mask)
                    acting.append(stage.policy.action_logits(hidden).log_softmax(-1))
            self.same(outcomes[1], outcomes[0], "temperature 2.5")
            equal(acting[1], acting[0], self.tolerance, "temperature 2.5: acting")

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

    def without(self, exp: Experience, rows: Tensor) -> Experience:
        """The others; of pairs, those whose both rows are left."""
        gone = torch.isin(exp.group, exp.group[rows]) if self.unscored_silences_its_group else rows
        return exp[(~gone).nonzero().squeeze(-1)].trim()

    def of_one_mind(self) -> Stage:
        """A stage whose reference is the policy."""
        stage = self.stage()
        return replace(stage, reference=FrozenCopy(stage.policy))

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
        equal(found.loss, expected.loss, within, f"{what}: loss")
        all_equal(found.gradients, expected.gradients, within, f"{what}: gradient")
        all_equal(found.state, expected.state, within, f"{what}: state")
        if metrics:
            # Some are means that were taken in float32.
            numbers, wanted = (
                {name: torch.tensor(number) for name, number in each.metrics.items()}
                for each in (found, expected)
            )
            all_equal(numbers, wanted, 1e-5, f"{what}: metric")
