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
from feedtune.functional import chosen_logp, entropy
from feedtune.policy import Policy, at_least_float32

LOGITS_AT_ONCE = 2**24
"""Logits that exist at one time in `score_actions`: 64 MiB in float32."""


@dataclass(frozen=True)
class ActionScores:
    """A policy's view of an experience. Everything is 0 on tokens that are no actions."""

    hidden: Tensor  # [B, T, H] after each token
    logp: Tensor  # [B, T] of each action token
    entropy: Tensor  # [B, T] of the distribution each action token was drawn from


def states_before(hidden: Tensor, action: Tensor) -> Tensor:
    """Hidden states `[N, H]` that the N action tokens were chosen from, in row-major order."""
    rows, columns = action.nonzero(as_tuple=True)
    return hidden[rows, columns - 1]


def states_at_end(hidden: Tensor, exp: Experience) -> Tensor:
    """Hidden states `[B, H]` of the last real token of each row: the row as a whole has been read."""
    return hidden[torch.arange(len(exp), device=hidden.device), exp.ends]


def scatter(values: Tensor, action: Tensor) -> Tensor:
    """The inverse of picking: values `[N]` of the N action tokens, put back into `[B, T]`; 0 elsewhere."""
    return torch.zeros(action.shape, dtype=values.dtype, device=values.device).masked_scatter(action, values)


def read(policy: Policy, exp: Experience) -> Tensor:
    """Hidden states `[B, T, H]` of all rows; a prompt that several rows of a group answer is read once.

    By the laws of `Backbone` (prefix and `select`) this is what reading every row from its beginning gives,
    gradients included; dropout, if there is any, falls on the whole group alike. Pads hold anything.
    """
    prompts = shared_prompts(exp)
    found = None if prompts is None else _read_once(policy, exp, *prompts)
    if found is None:
        found, _ = policy(exp.tokens, exp.mask)
    return found


def _read_once(
    policy: Policy, exp: Experience, firsts: Tensor, which: Tensor, start: Tensor
) -> Tensor | None:
    """Prompts first, then what follows them; None where the backbone keeps no state (it recomputes)."""
    columns = torch.arange(exp.tokens.shape[1], device=exp.tokens.device)
    width = int(start.max())
    before, state = policy(exp.tokens[firsts, :width], columns[:width] < start[firsts, None])  # [P, width, H]
    if state is None:
        return None
    shifted = start[:, None] + torch.arange(int((exp.lengths - start).max()), device=columns.device)  # [B, R]
    answers = exp.tokens.gather(1, shifted.clamp(max=len(columns) - 1))
    state = policy.select(state, which)
    after, _ = policy(answers, shifted < exp.lengths[:, None], state)  # [B, R, H]
    place = torch.where(columns < start[:, None], columns, columns - start[:, None] + width)  # [B, T]
    both = torch.cat([before[which], after], 1)  # [B, width + R, H]
    place = place.clamp(max=both.shape[1] - 1)[..., None].expand(-1, -1, both.shape[-1])
    return both.gather(1, place)


def shared_prompts(exp: Experience) -> tuple[Tensor, Tensor, Tensor] | None:
    """The prompts that neighbouring rows of a group share; None where fewer than half the rows share any.

    A prompt is what comes before the first action token; batches with pads on the left are not looked into.
    Returns the rows `[P]` that bring a new one, which
    of these each row `[B]` has, and the length `[B]` of each row's prompt.
    """
    start = torch.where(exp.action.any(-1), exp.action.int().argmax(-1), 0)  # [B]
    if len(exp) < 2 or bool((start == 0).any()) or not bool(exp.mask[:, 0].all()):
        return None
    columns = torch.arange(exp.tokens.shape[1], device=exp.tokens.device)
    equal = (exp.tokens[1:] == exp.tokens[:-1]) | (columns >= start[1:, None])
    same = equal.all(-1) & (start[1:] == start[:-1]) & (exp.group[1:] == exp.group[:-1])
    new = torch.cat([same.new_ones(1), ~same])
    firsts = new.nonzero().squeeze(-1)
    return None if 2 * len(firsts) > len(exp) else (firsts, new.cumsum(0) - 1, start)


def score_actions(
    policy: Policy, exp: Experience, entropy_gradient: bool = False, with_entropy: bool = True
) -> ActionScores:
    """Log-probability and entropy of every action token under the policy.

    Entropy carries a gradient only if asked: most losses just report it. Without `with_entropy` it is 0,
    which saves a softmax over the vocabulary.
    """
    hidden = read(policy, exp)  # [B, T, H]
    states = states_before(hidden, exp.action)  # [N, H]
    tokens = exp.tokens[exp.action]  # [N]

    def score(some_states: Tensor, some_tokens: Tensor) -> tuple[Tensor, Tensor]:
        logits = policy.action_logits(some_states)  # [n, V]
        if not with_entropy:
            return chosen_logp(logits, some_tokens), logits.new_zeros(len(some_tokens))
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            spread = entropy(logits)
        return chosen_logp(logits, some_tokens), spread

    size = max(1, LOGITS_AT_ONCE // policy.backbone.vocab_size)
    pieces = []
    for start in range(0, max(1, len(tokens)), size):
        piece = (states[start : start + size], tokens[start : start + size])
        several = len(tokens) > size and torch.is_grad_enabled()
        pieces.append(checkpoint(score, *piece, use_reentrant=False) if several else score(*piece))
    logp = torch.cat([piece[0] for piece in pieces])
    spread = torch.cat([piece[1] for piece in pieces])
    return ActionScores(hidden, scatter(logp, exp.action), scatter(spread, exp.action))


def head_values(policy: Policy, name: str, exp: Experience, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """What a scalar head says of the state before each action token, `[B, T]`, and after each row, `[B]`.

    The first is 0 on tokens that are no actions, the second in rows that are done: no reward follows them.
    `hidden` `[B, T, H]` is the backbone's; a head with a tower of its own reads with that.
    """
    if name in policy.towers:
        hidden, _ = policy.read_by(name)(exp.tokens, exp.mask)
    head = policy.heads[name]
    before = at_least_float32(head(states_before(hidden, exp.action))).squeeze(-1)  # [N]
    after = at_least_float32(head(states_at_end(hidden, exp))).squeeze(-1)  # [B]
    return scatter(before, exp.action), torch.where(exp.done, 0, after)


def row_rewards(policy: Policy, exp: Experience) -> Tensor:
    """What the head "reward" says of each row, `[B]`, after its last real token."""
    return at_least_float32(policy.heads["reward"](states_at_end(read(policy, exp), exp))).squeeze(-1)
