"""Pure functions on tensors: the formulas of feedtune, each with its shapes and its source.

Every per-token tensor is `[B, T]` and speaks of token t; `action` marks the tokens that the policy chose.
"""

from feedtune.functional.bellman import q_targets
from feedtune.functional.kl import adapt_coefficient, k1, k2, k3
from feedtune.functional.logprobs import chosen_logp, entropy
from feedtune.functional.masked import masked_mean, whiten
from feedtune.functional.returns import (
    action_index,
    generalized_advantages,
    next_values,
    returns_to_go,
)
from feedtune.functional.surrogates import clipped_surrogate, clipped_value_loss

__all__ = [
    "action_index",
    "adapt_coefficient",
    "chosen_logp",
    "clipped_surrogate",
    "clipped_value_loss",
    "entropy",
    "generalized_advantages",
    "k1",
    "k2",
    "k3",
    "masked_mean",
    "next_values",
    "q_targets",
    "returns_to_go",
    "whiten",
]
