"""What a policy thinks of tokens that are already there: log-probabilities, entropy, values.

log pi(token t), V(s_t) and Q(s_t, .) all read the hidden state at t-1. Logits are made only where the
policy chose a token, and a bounded number at a time, so that memory does not grow with B x T x V.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from feedtune.experience import Experience
from feedtune.functional import chosen_logp, chosen_logp_and_entropy
from feedtune.policy import Policy, at_least_float32
from feedtune.reading import read

LOGITS_AT_ONCE, ROWS_AT_ONCE = 2**20, 128
"""Logits that `score_actions` makes at one time (4 MiB in float32: they stay in the cache), and of how many
tokens at least."""

LOGITS_KEPT = 2**24
"""Logits that may wait for the backward pass (64 MiB); where there are more, all are made a second time."""


@dataclass(frozen=True)
class ActionScores:
    """A policy's view of an experience. Everything is 0 on tokens that are no actions."""

    hidden: Tensor  # [B, T, H] as `reading.read` gives it
    logp: Tensor  # [B, T] of each action token
    entropy: Tensor  # [B, T] of the distribution each action token was drawn from


def states_before(hidden: Tensor, action: Tensor) -> Tensor:
    """Hidden states `[N, H]` that the N action tokens were chosen from, in row-major order."""
    place = action.flatten().nonzero().squeeze(-1) - 1  # [N]
    flat = hidden.flatten(0, 1)  # [B x T, H]
    return flat.gather(0, place[:, None].expand(-1, flat.shape[-1]))  # its backward is faster than indexing's


def states_at_end(hidden: Tensor, exp: Experience) -> Tensor:
    """Hidden states `[B, H]` of the last real token of each row: the row as a whole has been read."""
    return hidden[torch.arange(len(exp), device=hidden.device), exp.ends]


def scatter(values: Tensor, action: Tensor) -> Tensor:
    """The inverse of picking: values `[N]` of the N action tokens, put back into `[B, T]`; 0 elsewhere."""
    return torch.zeros(action.shape, dtype=values.dtype, device=values.device).masked_scatter(action, values)


def score_actions(
    policy: Policy, exp: Experience, entropy_gradient: bool = False, with_entropy: bool = True
) -> ActionScores:
    """Log-probability and entropy of every action token under the policy.

    Entropy carries a gradient only if asked: most losses just report it. Without `with_entropy` it is 0,
    which saves a softmax over the vocabulary.
    """
    hidden = read(policy, exp)  # [B, T, H]
    states, tokens = states_before(hidden, exp.action), exp.tokens[exp.action]  # [N, H], [N]

    def score(some_states: Tensor, some_tokens: Tensor) -> tuple[Tensor, Tensor]:
        logits = policy.action_logits(some_states)  # [n, V]
        if not with_entropy:
            return chosen_logp(logits, some_tokens), logits.new_zeros(len(some_tokens))
        logp, spread = chosen_logp_and_entropy(logits, some_tokens)
        return logp, spread if entropy_gradient else spread.detach()

    vocabulary = policy.backbone.vocab_size
    size = max(ROWS_AT_ONCE, LOGITS_AT_ONCE // vocabulary)
    again = torch.is_grad_enabled() and len(tokens) * vocabulary > LOGITS_KEPT
    pieces = []
    for start in range(0, max(1, len(tokens)), size):
        piece = (states[start : start + size], tokens[start : start + size])
        pieces.append(checkpoint(score, *piece, use_reentrant=False) if again else score(*piece))
    logp = torch.cat([piece[0] for piece in pieces])
    spread = torch.cat([piece[1] for piece in pieces])
    return ActionScores(hidden, scatter(logp, exp.action), scatter(spread, exp.action))


def head_values(policy: Policy, name: str, exp: Experience, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """What a scalar head says of the state before each action token, `[B, T]`, and after each row, `[B]`.

    The first is 0 on tokens that are no actions, the second in rows that are done: no reward follows them.
    `hidden` `[B, T, H]` is the backbone's; a head with a tower of its own reads with that.
    """
    if name in policy.towers:
        hidden = read(policy.read_by(name), exp)
    head = policy.heads[name]
    before = at_least_float32(head(states_before(hidden, exp.action))).squeeze(-1)  # [N]
    after = at_least_float32(head(states_at_end(hidden, exp))).squeeze(-1)  # [B]
    return scatter(before, exp.action), torch.where(exp.done, 0, after)


def row_rewards(policy: Policy, exp: Experience) -> Tensor:
    """What the head "reward" says of each row, `[B]`, after its last real token."""
    return at_least_float32(policy.heads["reward"](states_at_end(read(policy, exp), exp))).squeeze(-1)
