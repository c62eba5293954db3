"""Per-token credit of the few responses that are kept as text: what each token earned, for samples.jsonl.

It is read off a rollout that has been prepared, so it knows no algorithm: an advantage is one that the
algorithm left in `exp.extra["advantage"]`, a KL wherever log-probabilities under a reference are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from feedtune.contracts import Rollout
from feedtune.experience import Experience

Spell = Callable[[Sequence[int]], Sequence[str]]
"""The text of each of a response's tokens."""

ROWS = 4
"""Records of each rollout that get credit."""

TOKENS = 256
"""Tokens of each of them, the first ones."""


def with_credit(rollout: Rollout, exp: Experience, spell: Spell) -> Sequence[Mapping[str, Any]]:
    """The rollout's records, the first few with the tokens of their response and what each earned.

    Such a record has `tokens`, a list of texts from the first token that the policy chose to the last, and,
    as far as they are known, the lists `advantage` and `kl` of as many numbers. A number is None where the
    token is no action that is learnt from: an observation between actions, a row that was left out.
    `kl` is log p - log q in nats, p what acted and q the reference.

    Args:
        rollout: as it was collected; `record_rows` says which row each record is of.
        exp: the same rows and columns, prepared by the algorithm.
        spell: says the tokens' texts.
    """
    columns = {"advantage": exp.extra.get("advantage"), "kl": token_kl(exp)}
    known = {n: c for n, c in columns.items() if c is not None and c.shape == exp.tokens.shape}
    if not known or not rollout.record_rows or exp.tokens.shape != rollout.experience.tokens.shape:
        return rollout.records
    if len(rollout.record_rows) != len(rollout.records):
        raise RuntimeError(
            f"the collector named {len(rollout.record_rows)} rows for {len(rollout.records)} records"
        )
    rows = torch.tensor(list(rollout.record_rows)[:ROWS])
    spoken = rollout.experience.action[rows.to(rollout.experience.action.device)].cpu()
    here = rows.to(exp.tokens.device)
    tokens, action = exp.tokens[here].cpu(), exp.action[here].cpu()
    numbers = {n: torch.where(action, c[here].cpu().double(), math.nan) for n, c in known.items()}
    found = [
        {**record, **_credit_of(tokens[i], spoken[i], {n: v[i] for n, v in numbers.items()}, spell)}
        for i, record in enumerate(rollout.records[: len(rows)])
    ]
    return [*found, *rollout.records[len(rows) :]]


def token_kl(exp: Experience) -> Tensor | None:
    """log p - log q of every token `[B, T]`, p what acted, q the reference; None where one is not known."""
    acted = exp.sampler_logp if exp.old_logp is None else exp.old_logp
    return None if acted is None or exp.ref_logp is None else acted - exp.ref_logp


def _credit_of(tokens: Tensor, spoken: Tensor, numbers: Mapping[str, Tensor], spell: Spell) -> dict[str, Any]:
    """Of one row `[T]`; nothing where the policy said nothing that counts."""
    places = spoken.nonzero().flatten().tolist()
    if not places:
        return {}
    span = slice(places[0], min(places[-1] + 1, places[0] + TOKENS))
    return {
        "tokens": list(spell(tokens[span].tolist())),
        **{name: [_short(x) for x in values[span].tolist()] for name, values in numbers.items()},
    }


def _short(value: float) -> float | None:
    """Four digits are enough to be looked at; NaN and infinity are no JSON.

    >>> _short(0.123456), _short(float("nan"))
    (0.1235, None)
    """
    return float(f"{value:.4g}") if math.isfinite(value) else None
