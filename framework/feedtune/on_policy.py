"""What an on-policy algorithm cannot learn from: tokens that the policy as it is now would not draw."""

from __future__ import annotations

from feedtune.contracts import Algorithm, Buffer, Collector
from feedtune.errors import UserError


def check_on_policy(algorithm: Algorithm, collector: Collector, buffer: Buffer) -> None:
    """Refuse what draws, or keeps, other tokens than those that the policy as it is now would say."""
    check_on_policy_kinds(algorithm, collector, buffer)
    if algorithm.on_policy and collector.warped:
        raise UserError(
            "collector.decoding: greedy, top_k, top_p and repetition_penalty draw from another "
            f"distribution than the policy's own, on which {_kind(algorithm)} depends. "
            "Leave them to `feedtune generate` and `feedtune evaluate`."
        )


def check_on_policy_kinds(
    algorithm: Algorithm | type[Algorithm],
    collector: Collector | type[Collector],
    buffer: Buffer | type[Buffer],
) -> None:
    """What classes alone tell of `check_on_policy`, where their objects cannot be made."""
    if not algorithm.on_policy:
        return
    name, lines = _kind(algorithm), []
    if not collector.on_policy:
        lines.append(
            f"collector: {_kind(collector)} reads what others said, but {name} is right only for "
            "what the policy itself says. Leave the collector out: the algorithm brings one that samples"
        )
    if not buffer.on_policy:
        lines.append(
            f"buffer: {_kind(buffer)} brings back what earlier policies said, but {name} is right "
            "only for the newest rollout. Leave the buffer out: the algorithm brings its own"
        )
    if lines:
        raise UserError("\n".join(lines))


def _kind(part: object) -> str:
    return (part if isinstance(part, type) else type(part)).__name__
