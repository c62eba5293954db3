"""The laws of algorithms catch those that break them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from feedtune.contracts import Algorithm, Backbone, Loss
from feedtune.experience import Experience
from feedtune.policy import Policy
from feedtune.scoring import score_actions
from feedtune.testing.algorithms import AlgorithmSuite
from feedtune_plugins.algorithms import DirectPreference


class Plain(Algorithm):
    """REINFORCE without a baseline: minus score times log-probability, rows averaged."""

    def build_policy(self, make_backbone: Callable[[], Backbone]) -> Policy:
        return Policy(make_backbone())

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        logp = score_actions(policy, exp).logp.sum(-1)
        return Loss(-(exp.score * logp)[exp.action.any(-1)].sum(), exp.row_count)


class OwnMean(Plain):
    """Divides by the rows of the minibatch, so that accumulation changes the step."""

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        return Loss(super().loss(exp, policy).sum, float(len(exp)))


class ReadsPads(Plain):
    """Adds something for every column, pads too."""

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        hidden, _ = policy(exp.tokens, exp.mask)
        return Loss(super().loss(exp, policy).sum + hidden.sum(), exp.row_count)


class ByPosition(Plain):
    """Weighs rows by where they stand."""

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        logp = score_actions(policy, exp).logp.sum(-1)
        return Loss(-(exp.score * logp * torch.arange(len(exp))).sum(), exp.row_count)


class ByGroupNumber(Plain):
    """Takes the number of a group for a quantity."""

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        logp = score_actions(policy, exp).logp.sum(-1)
        return Loss(-(exp.score * logp * exp.group).sum(), exp.row_count)


class CountsTheUnscored(Plain):
    """Subtracts a mean score to which rows without a score add zeros."""

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        logp = score_actions(policy, exp).logp.sum(-1)
        return Loss(-((exp.score - exp.extra["mean"]) * logp).sum(), exp.row_count)

    def prepare(self, exp: Experience, policy: Policy) -> tuple[Experience, dict[str, float]]:
        return exp.with_(mean=exp.score.mean().expand(len(exp))), {}


class Forgets(Plain):
    """Learns less after every step, and does not write down how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        return Loss(super().loss(exp, policy).sum / (1 + self.steps), exp.row_count)

    def after_step(self, policy: Policy) -> None:
        self.steps += 1


class Infinite(Plain):
    """Divides by something that an empty response makes 0."""

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        logp = score_actions(policy, exp).logp.sum(-1)
        return Loss(-(exp.score * logp / exp.action.sum(-1)).sum(), exp.row_count)


class Reads(Plain):
    """Reads what it did not ask for."""

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        logp = score_actions(policy, exp).logp.sum(-1)
        return Loss(-((exp.score - exp.extra["greedy"]) * logp).sum(), exp.row_count)


class Compares(Plain):
    """Takes off the mean score of the rollout, to which rows without actions count."""

    def prepare(self, exp: Experience, policy: Policy) -> tuple[Experience, dict[str, float]]:
        mean = torch.where(exp.scored, exp.score, 0).sum() / exp.scored.sum()
        return exp.with_(mean=mean.expand(len(exp))), {}

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        logp = score_actions(policy, exp).logp.sum(-1)
        return Loss(-((exp.score - exp.extra["mean"]) * logp)[exp.action.any(-1)].sum(), exp.row_count)


class ForgetsTheEmpty(Compares):
    """The same over rows with actions alone: an empty response takes its score away with it."""

    def prepare(self, exp: Experience, policy: Policy) -> tuple[Experience, dict[str, float]]:
        counted = exp.scored & exp.action.any(-1)
        mean = torch.where(counted, exp.score, 0).sum() / counted.sum().clamp(min=1)
        return exp.with_(mean=mean.expand(len(exp))), {}


class PaysTheEmpty(Plain):
    """Averages over all rows with a score, also those that have nothing to say."""

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        return Loss(super().loss(exp, policy).sum, exp.scored.sum())


class Warm(Plain):
    """REINFORCE without a baseline, at a temperature that divides the logits."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def build_policy(self, make_backbone: Callable[[], Backbone]) -> Policy:
        return Policy(make_backbone(), temperature=self.temperature)


class WarmInVain(Warm):
    """Never tells the policy its temperature."""

    def build_policy(self, make_backbone: Callable[[], Backbone]) -> Policy:
        return Policy(make_backbone())


class WarmTwice(Warm):
    """Acts at its temperature, and learns at the square of it."""

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        hidden, _ = policy(exp.tokens, exp.mask)
        logits = policy.action_logits(hidden)[:, :-1] / self.temperature
        logp = logits.log_softmax(-1).gather(-1, exp.tokens[:, 1:, None]).squeeze(-1)
        said = torch.where(exp.action[:, 1:], logp, 0).sum(-1)
        return Loss(-(exp.score * said)[exp.action.any(-1)].sum(), exp.row_count)


class Nothing(Plain):
    """Has a loss that no weight moves."""

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        return Loss(super().loss(exp, policy).sum * 0, exp.row_count)


class SpreadsNaN(Plain):
    """Multiplies by a mask where it should leave out: NaN times 0 is NaN."""

    def needs(self) -> frozenset[str]:
        return frozenset({"old_logp"})

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        assert exp.old_logp is not None
        return Loss(super().loss(exp, policy).sum + (exp.old_logp * exp.action).sum(), exp.row_count)


class Dices(Plain):
    """Draws noise that nobody asked for."""

    def prepare(self, exp: Experience, policy: Policy) -> tuple[Experience, dict[str, float]]:
        return exp, {"luck": float(torch.rand(()))}


class StaysBehind(Plain):
    """Keeps a table where no move finds it."""

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        hidden, _ = policy(exp.tokens, exp.mask)
        table = torch.eye(hidden.shape[-1], dtype=torch.float64)
        return Loss(super().loss(exp, policy).sum + 0 * (hidden @ table).sum(), exp.row_count)


class Undocumented(Plain):
    __doc__ = None


class Shapeless(Plain):
    """A sound algorithm, of which one method does not say what comes in."""

    def discounted(self, rewards: torch.Tensor) -> torch.Tensor:
        """The rewards to go."""
        return rewards


def suite_of(algorithm: type[Algorithm]) -> AlgorithmSuite:
    class Suite(AlgorithmSuite):
        compares_rows = issubclass(algorithm, Compares)

        def make(self) -> Algorithm:
            return algorithm()

        def make_at(self, temperature: float) -> Algorithm:
            return algorithm(temperature=temperature)

    return Suite()


EMPTY = "test_an_empty_response_has_no_loss_and_is_there_for_others_to_compare_with"
LAWS = sorted(name for name in dir(AlgorithmSuite) if name.startswith("test_"))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("algorithm", [Plain, Compares, Warm])
def test_a_right_one_passes(algorithm: type[Algorithm], law: str) -> None:
    getattr(suite_of(algorithm), law)()


@pytest.mark.parametrize(
    ("algorithm", "law"),
    [
        (OwnMean, "test_micro_batches_add_up"),
        (ReadsPads, "test_pads_leave_no_trace"),
        (ByPosition, "test_rows_may_stand_in_any_order"),
        (ByGroupNumber, "test_group_numbers_are_only_names"),
        (CountsTheUnscored, "test_a_row_without_a_score_is_as_good_as_absent"),
        (Forgets, "test_its_state_is_all_of_its_memory"),
        (Infinite, "test_an_empty_response_is_harmless"),
        (ForgetsTheEmpty, EMPTY),
        (ForgetsTheEmpty, "test_an_empty_response_counts_if_rows_are_compared"),
        (PaysTheEmpty, EMPTY),
        (WarmInVain, "test_temperature_is_mirrored_in_every_log_probability"),
        (WarmTwice, "test_temperature_is_mirrored_in_every_log_probability"),
        (Reads, "test_needs_are_all_that_it_reads"),
        (Nothing, "test_it_learns_from_a_rollout"),
        (SpreadsNaN, "test_nan_at_a_pad_leaves_no_trace"),
        (Dices, "test_it_draws_nothing_from_the_global_generators"),
        (StaysBehind, "test_it_follows_its_policy_to_float32_and_bfloat16"),
        (Undocumented, "test_its_docstring_says_what_it_is"),
        (Shapeless, "test_its_docstring_says_what_it_is"),
    ],
)
def test_a_broken_one_is_caught(algorithm: type[Algorithm], law: str) -> None:
    with pytest.raises(RuntimeError if algorithm is StaysBehind else (AssertionError, KeyError)):
        getattr(suite_of(algorithm), law)()


@pytest.mark.parametrize(
    ("algorithm", "note"),
    [
        (Plain, "each row speaks for itself"),
        (Compares, "compares rows with one another"),
        (DirectPreference, "compares the two rows of each pair"),
    ],
)
def test_a_suite_finds_out_what_an_algorithm_compares(algorithm: type[Algorithm], note: str) -> None:
    class Suite(AlgorithmSuite):
        def make(self) -> Algorithm:
            return algorithm()

    kind, words = Suite.fitted()
    assert words == note
    assert issubclass(kind, AlgorithmSuite)
    assert (kind.group_size, kind.unscored_silences_its_group) == (
        (2, True) if "pair" in note else (4, False)
    )
    assert kind.compares_rows == ("rows with" in note)


def test_who_has_a_temperature_has_to_say_how_to_set_it() -> None:
    class Suite(AlgorithmSuite):
        def make(self) -> Algorithm:
            return Warm()

    with pytest.raises(NotImplementedError, match="Warm has a temperature"):
        Suite().test_temperature_is_mirrored_in_every_log_probability()
