"""The Q family: one loss over swappable parts. Each published algorithm is a YAML of parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from feedtune.checks import check_choice, check_not_negative, check_unit, check_used
from feedtune.contracts import Algorithm, Backbone, Loss
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.functional import chosen_value, conservative_gap, double_value, q_targets, soft_value
from feedtune.policy import Policy
from feedtune.reading import read
from feedtune.scoring import scatter, states_at_end, states_before
from feedtune_plugins.algorithms.acting import Acting, LinearEpsilon
from feedtune_plugins.algorithms.q_policies import PriorPolicy, QPolicy, q_values
from feedtune_plugins.algorithms.targets import TargetNetwork

Backup = Literal["max", "double", "soft"]
Prior = Literal["uniform", "reference"]
Aggregation = Literal["sum", "token_mean"]


class QLearning(Algorithm):
    """Fits Q(s, a) to y = r + gamma (1 - terminal) V(s') by 1/2 (Q - y)^2, with V read from Q itself.

    Args:
        acting: how tokens are drawn.
        gamma: discount in [0, 1] per action token.
        backup: V(s'). "max": max_a Q_target (Watkins 1989; Mnih et al. 2015); "double": Q_target of the token
            that Q prefers (van Hasselt et al. 2016; it wants a `target`); "soft": temperature
            logsumexp(Q_target / temperature) with the acting temperature (Haarnoja et al. 2017).
        prior: of "soft", what tokens are weighed with: "uniform", each 1 (maximum entropy), or "reference",
            the policy's own language model as it is when training begins; it then acts by
            prior exp(Q / temperature) / Z. null: uniform.
        n_step: rewards that a target sums before it reads V, uncorrected; at least 1.
        dueling: Q = V + A - mean A from two heads (Wang et al. 2016), not one.
        conservative: weight of logsumexp Q - Q(a) (CQL, Kumar et al. 2020), at least 0. Higher trusts what
            the data never did less.
        aggregation: "token_mean" over the action tokens of the optimiser step, or "sum", which with plain
            gradient descent and a table is Watkins' update with alpha = learning rate.
        target: the copy of Q that targets are read from; null reads Q as it is before the step.
    """

    steps: Tensor

    def __init__(
        self,
        *,
        acting: Acting,
        gamma: float = 1.0,
        backup: Backup = "max",
        prior: Prior | None = None,
        n_step: int = 1,
        dueling: bool = False,
        conservative: float = 0.0,
        aggregation: Aggregation = "token_mean",
        target: TargetNetwork | None = None,
    ) -> None:
        super().__init__()
        check_unit("algorithm.gamma", gamma)
        check_choice("algorithm.backup", backup, get_args(Backup))
        if prior is not None:
            check_choice("algorithm.prior", prior, get_args(Prior))
        check_used("algorithm.prior", prior, backup == "soft", "algorithm.backup=soft")
        check_choice("algorithm.aggregation", aggregation, get_args(Aggregation))
        check_not_negative("algorithm.conservative", conservative)
        if n_step < 1:
            raise UserError(f"algorithm.n_step: expected at least 1, got {n_step}")
        self.acting = acting
        _check_backup(backup, n_step, self.acting, target)
        self.gamma, self.backup, self.n_step = gamma, backup, n_step
        self.prior: Prior = prior or "uniform"
        self.dueling, self.conservative, self.aggregation = dueling, conservative, aggregation
        self.target = target
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def build_policy(self, make_backbone: Callable[[], Backbone]) -> QPolicy:
        backbone = make_backbone()
        tokens = backbone.vocab_size
        heads = {"value": 1, "advantage": tokens} if self.dueling else {"q": tokens}
        temperature, epsilon = self.acting.temperature, self.acting.epsilon_at(0)
        if self.prior == "uniform":
            return QPolicy(backbone, heads, temperature, epsilon)
        return PriorPolicy(backbone, heads, temperature, epsilon, towers={"prior": make_backbone()})

    def setup(self, policy: Policy) -> None:
        if isinstance(policy, PriorPolicy):
            policy.freeze()  # `init_from` may have put another prior there
        if self.target is not None:
            self.target.start(policy)

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        assert isinstance(policy, QPolicy)
        hidden = read(policy, exp)  # [B, T, H]
        states, tokens = states_before(hidden, exp.action), exp.tokens[exp.action]  # [N, H], [N]
        q = policy.q_values(states)  # [N, V]
        chosen = chosen_value(q, tokens)
        squared = (chosen - self._targets(exp, policy, hidden, q)).square() / 2
        total = squared.sum()
        with torch.no_grad():
            acting = policy.acting_logp(q, policy.prior_logp(states))
        metrics = {
            "loss/q": _mean(squared),
            "policy/q": _mean(chosen),
            "policy/q_max": _mean(q.amax(-1)),
            "policy/greedy_probability": _mean(acting.amax(-1).exp()),
            "policy/epsilon": policy.epsilon,
        }
        if self.conservative:
            gap = conservative_gap(q, tokens)
            total = total + self.conservative * gap.sum()
            metrics["loss/conservative"] = _mean(gap)
        return Loss(total, 1.0 if self.aggregation == "sum" else exp.token_count, metrics)

    @torch.no_grad()
    def _targets(self, exp: Experience, policy: QPolicy, hidden: Tensor, q: Tensor) -> Tensor:
        """Targets `[N]` of the action tokens; `hidden` `[B, T, H]` and `q` `[N, V]` are the policy's."""
        states, ends = states_before(hidden, exp.action), states_at_end(hidden, exp)
        q_end = policy.q_values(ends)
        target_q, target_end = q, q_end
        if self.target is not None:
            slow = self.target.read(exp)
            target_q = q_values(self.target.heads, states_before(slow, exp.action))
            target_end = q_values(self.target.heads, states_at_end(slow, exp))
        values = self._state_values(policy, states, q, target_q)  # [N]
        after = torch.where(exp.done, 0, self._state_values(policy, ends, q_end, target_end))  # [B]
        values, reward = scatter(values, exp.action), exp.reward.to(values.dtype)
        return q_targets(reward, values, exp.action, self.gamma, after, self.n_step)[exp.action]

    def _state_values(self, policy: QPolicy, states: Tensor, q: Tensor, target_q: Tensor) -> Tensor:
        """V(s) by the backup, `[..., H]` and twice `[..., V]` to `[...]`."""
        if self.backup == "double":
            return double_value(q, target_q)
        if self.backup == "soft":
            return soft_value(target_q, self.acting.temperature, policy.prior_logp(states))
        return target_q.amax(-1)

    def after_step(self, policy: Policy) -> None:
        assert isinstance(policy, QPolicy)
        self.steps += 1
        if isinstance(self.acting.epsilon, LinearEpsilon):
            policy.epsilon.fill_(self.acting.epsilon.at(int(self.steps)))
        if self.target is not None:
            self.target.follow(policy)


def _check_backup(backup: Backup, n_step: int, acting: Acting, target: TargetNetwork | None) -> None:
    """Refuse parts that contradict one another."""
    if backup == "soft" and acting.temperature == 0:
        raise UserError("algorithm.acting.temperature: algorithm.backup=soft needs a number above 0, got 0")
    if backup == "soft" and n_step > 1:
        raise UserError(
            f"algorithm.n_step: with algorithm.backup=soft expected 1, got {n_step}: "
            "the rewards in between would lack their entropy"
        )
    if backup == "double" and target is None:
        raise UserError(
            "algorithm.backup: double without algorithm.target is max, for Q then judges its own choice; "
            "choose max, or give a target"
        )


def _mean(values: Tensor) -> Tensor:
    """Mean over the action tokens `[N]`, for logging; 0 where there are none."""
    return values.detach().sum() / max(1, len(values))
