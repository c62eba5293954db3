"""Length and KL of the few responses that are kept as text, for samples.jsonl and tables of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedtune.contracts import Rollout
from feedtune.credit import token_kl
from feedtune.experience import Experience

Records = Sequence[Mapping[str, Any]]


def with_totals(records: Records, rollout: Rollout, exp: Experience) -> Records:
    """Records with `length`, in tokens that the policy chose, and `kl_total` where a reference is known.

    `kl_total` is the sum of log p - log q over these tokens, in nats: p what acted, q the reference. Its mean
    over many responses estimates the KL of the policy from the reference. A record whose row is not known, or
    has no token that counts, stays as it is.

    Args:
        records: of the rollout, in its order.
        rollout: as it was collected; `record_rows` says which row each record is of.
        exp: the same rows and columns, completed with what the algorithm needs.
    """
    if not rollout.record_rows:
        return records
    action = rollout.experience.action
    lengths = action.sum(-1).tolist()
    kl, total = token_kl(exp), None
    if kl is not None and kl.shape == action.shape:
        total = (kl.double() * action.to(kl.device)).sum(-1).tolist()
    found: list[Mapping[str, Any]] = []
    for record, row in zip(records, rollout.record_rows, strict=True):
        own: dict[str, Any] = {"length": lengths[row]} if lengths[row] else {}
        if own and total is not None:
            own["kl_total"] = float(f"{total[row]:.6g}")
        found.append({**record, **own})
    return found
