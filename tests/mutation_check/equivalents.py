"""Changes that no test can see, each with the reason.

By file, function and change as `python tests/mutation.py` prints them.
"""

from __future__ import annotations

ALGORITHMS = "plugins/feedtune_plugins/algorithms"
MASKED = "whoever reads it masks what does not count"
SUMMED = "the loss and the metric are its sum over the other dimension too"
FROZEN = "the copy's weights take no gradient, so what it says has none"

EQUIVALENTS: dict[str, dict[tuple[str, str], str]] = {
    "framework/feedtune/experience.py": {
        (
            "from_rows",
            "max((len(row) for row in rows), default=1) -> max((len(row) for row in rows), default=0)",
        ): "`or 1` follows",
    },
    "framework/feedtune/scoring.py": {
        (
            "head_values",
            "at_least_float32(head(states_before(hidden, exp.action))).squeeze(-1)"
            " -> at_least_float32(head(states_before(hidden, exp.action))).squeeze(0)",
        ): "masked_scatter reads its source in order, whatever its shape",
    },
    "framework/feedtune/functional/bellman.py": {
        ("expectile_loss", "error < 0 -> error <= 0"): "an error of 0 costs 0 with either weight",
    },
    "framework/feedtune/functional/masked.py": {
        ("whiten", "count.clamp(min=1) -> count.clamp(min=0)"): "nothing marked: the mean 0/0 is masked out",
        ("whiten", "count.clamp(min=1) -> count"): "nothing marked: the mean 0/0 is masked out",
    },
    "framework/feedtune/functional/returns.py": {
        (
            "generalized_advantages",
            "torch.where(action, reward + gamma * next_values(values, action, bootstrap) - values, 0)"
            " -> torch.where(action, reward + gamma * next_values(values, action, bootstrap) - values, 1)",
        ): "returns_to_go reads no token that is no action",
        (
            "generalized_advantages",
            "torch.where(action, reward + gamma * next_values(values, action, bootstrap) - values, 0)"
            " -> reward + gamma * next_values(values, action, bootstrap) - values",
        ): "returns_to_go reads no token that is no action",
    },
    "framework/feedtune/functional/surrogates.py": {
        (
            "row_ratio",
            "action.sum(-1, keepdim=True).clamp(min=1) -> action.sum(-1, keepdim=True).clamp(min=0)",
        ): "a row without actions: 0/0 and its gradient are masked out",
        (
            "row_ratio",
            "action.sum(-1, keepdim=True).clamp(min=1) -> action.sum(-1, keepdim=True)",
        ): "a row without actions: 0/0 and its gradient are masked out",
        ("clipped_surrogate", "advantage < 0 -> advantage <= 0"): "an advantage of 0 costs 0, bounded or not",
    },
    f"{ALGORITHMS}/advantages.py": {
        (
            "_row_return",
            "exp.action & (exp.action.cumsum(-1) == 1) -> exp.action.cumsum(-1) == 1",
        ): "returns are 0 on the observations that follow the first action",
        ("_greedy_score", "found.nan_to_num(0.0) -> found.nan_to_num(1.0)"): MASKED,
        ("_greedy_score", "found.nan_to_num(0.0) -> found"): MASKED,
    },
    f"{ALGORITHMS}/ilql.py": {
        (
            "ILQL.loss",
            "(chosen_value(q, both) - targets).square().sum(0)"
            " -> (chosen_value(q, both) - targets).square().sum(1)",
        ): SUMMED,
        ("ILQL.loss", "conservative_gap(q, both).sum(0) -> conservative_gap(q, both).sum(1)"): SUMMED,
        ("ILQL._target_q", "@torch.no_grad() -> nothing"): FROZEN,
    },
    f"{ALGORITHMS}/policy_gradient.py": {
        (
            "PolicyGradient.loss",
            "self.entropy > 0 -> self.entropy >= 0",
        ): "a gradient of the entropy that nothing asks for costs time alone",
        (
            "PolicyGradient.loss",
            "self.entropy > 0 -> self.entropy >= 0 #2",
        ): "0 times the entropy is taken off the loss",
    },
    f"{ALGORITHMS}/q_learning.py": {
        ("QLearning.loss", "with torch.no_grad() -> nothing"): "it is for a metric, which is detached",
    },
    f"{ALGORITHMS}/surrogates.py": {
        ("_log_ratio", "torch.where(exp.action, logp - exp.old_logp, 0) -> logp - exp.old_logp"): MASKED,
        (
            "_log_ratio",
            "torch.where(exp.action, logp - exp.old_logp, 0)"
            " -> torch.where(exp.action, logp - exp.old_logp, 1)",
        ): MASKED,
    },
    f"{ALGORITHMS}/targets.py": {
        ("TargetNetwork.read", "@torch.no_grad() -> nothing"): FROZEN,
    },
}
