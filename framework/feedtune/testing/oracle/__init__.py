"""Exact answers for algorithms: token worlds enumerated in float64, in numpy, apart from the code under test.

Nothing here calls what it checks: log-softmax, returns, advantages, divergences and gradients are written
again, term by term. Only `border` knows feedtune's `Experience` and `Backbone`.

- `world`: `World` lists every state and row; `Row`; `multisets` of rows.
- `policies`: what logits `[S, V]` do: probabilities, visits, entropies, both KLs, and their gradients.
- `values`: J and its gradient, V, Q, Q*, soft values, advantages, GAE, the leashed optimum, expectiles.
- `batches` and `weights`: published losses as weights, gradient = -sum_it w_it grad log pi_it.
- `border`: rows as `Experience`, tables in a backbone.

>>> import numpy as np
>>> world = World(vocab_size=3, length=2, seed=1)
>>> logits = world.random_logits(seed=2)
>>> len(world.rows), f"{row_probability(world, logits).sum():.12f}"
(7, '1.000000000000')
>>> alone = expected_gradient(
...     world,
...     logits,
...     1,
...     lambda rows: (b := Batch([world.rows[i] for i in rows], logits)).loss_gradient(reinforce(b)),
... )
>>> bool(np.allclose(alone, -return_gradient(world, logits)))
True
"""

from feedtune.testing.oracle.batches import Batch, Ragged, kl_in_loss
from feedtune.testing.oracle.border import Table, experience, logp_tensor, per_token, value_tensors
from feedtune.testing.oracle.policies import (
    expected_score,
    finite_differences,
    log_softmax,
    row_entropy,
    row_entropy_gradient,
    row_kl,
    row_kl_gradient,
    row_logp,
    row_probability,
    state_entropy,
    state_entropy_gradient,
    token_kl,
    token_kl_gradient,
    token_logp,
    visits,
    weighted_score,
)
from feedtune.testing.oracle.values import (
    action_values,
    advantages,
    expected_return,
    expectile,
    gae,
    greedy,
    greedy_row,
    optimal_values,
    return_gradient,
    returns,
    soft_optimal,
    soft_optimal_logits,
    soft_values,
    state_values,
)
from feedtune.testing.oracle.weights import (
    a2c,
    cispo,
    dapo,
    dr_grpo,
    expected_gradient,
    grpo,
    gspo,
    overlong,
    ppo,
    reinforce,
    reinforce_pp,
    remax,
    rloo,
)
from feedtune.testing.oracle.world import NOWHERE, Row, World, multisets

__all__ = [
    "NOWHERE",
    "Batch",
    "Ragged",
    "Row",
    "Table",
    "World",
    "a2c",
    "action_values",
    "advantages",
    "cispo",
    "dapo",
    "dr_grpo",
    "expected_gradient",
    "expected_return",
    "expected_score",
    "expectile",
    "experience",
    "finite_differences",
    "gae",
    "greedy",
    "greedy_row",
    "grpo",
    "gspo",
    "kl_in_loss",
    "log_softmax",
    "logp_tensor",
    "multisets",
    "optimal_values",
    "overlong",
    "per_token",
    "ppo",
    "reinforce",
    "reinforce_pp",
    "remax",
    "return_gradient",
    "returns",
    "rloo",
    "row_entropy",
    "row_entropy_gradient",
    "row_kl",
    "row_kl_gradient",
    "row_logp",
    "row_probability",
    "soft_optimal",
    "soft_optimal_logits",
    "soft_values",
    "state_entropy",
    "state_entropy_gradient",
    "state_values",
    "token_kl",
    "token_kl_gradient",
    "token_logp",
    "value_tensors",
    "visits",
    "weighted_score",
]
