"""Pure functions on tensors: the formulas of feedtune, each with its shapes and its source.

Every per-token tensor is `[B, T]` and speaks of token t; `action` marks the tokens that the policy chose.
"""

from feedtune.functional.bellman import (
    acting_logp,
    chosen_value,
    conservative_gap,
    double_value,
    dueling,
    expectile_loss,
    q_targets,
    soft_value,
)
from feedtune.functional.calibration import brier_score, expected_calibration_error, reliability_curve
from feedtune.functional.groups import peer_deviation, peer_mean, peers_differ
from feedtune.functional.kl import adapt_coefficient, k1, k2, k3
from feedtune.functional.logprobs import chosen_logp, chosen_logp_and_entropy
from feedtune.functional.masked import masked_mean, whiten
from feedtune.functional.off_policy import Estimate, importance_weights, inverse_propensity, self_normalized
from feedtune.functional.preferences import (
    best_of_groups,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    pairs_of,
    pairwise_reward_loss,
)
from feedtune.functional.ranking import dcg, discounts, ndcg
from feedtune.functional.returns import (
    action_index,
    generalized_advantages,
    next_values,
    returns_to_go,
)
from feedtune.functional.surrogates import (
    capped_weight_loss,
    clipped_surrogate,
    clipped_value_loss,
    overlong_penalty,
    row_ratio,
)

__all__ = [
    "Estimate",
    "acting_logp",
    "action_index",
    "adapt_coefficient",
    "best_of_groups",
    "brier_score",
    "capped_weight_loss",
    "chosen_logp",
    "chosen_logp_and_entropy",
    "chosen_value",
    "clipped_surrogate",
    "clipped_value_loss",
    "conservative_gap",
    "dcg",
    "discounts",
    "double_value",
    "dpo_loss",
    "dueling",
    "expected_calibration_error",
    "expectile_loss",
    "generalized_advantages",
    "hinge_loss",
    "importance_weights",
    "inverse_propensity",
    "ipo_loss",
    "k1",
    "k2",
    "k3",
    "masked_mean",
    "ndcg",
    "next_values",
    "overlong_penalty",
    "pairs_of",
    "pairwise_reward_loss",
    "peer_deviation",
    "peer_mean",
    "peers_differ",
    "q_targets",
    "reliability_curve",
    "returns_to_go",
    "row_ratio",
    "self_normalized",
    "soft_value",
    "whiten",
]
