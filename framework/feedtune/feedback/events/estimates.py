"""What a policy would earn in service, estimated from the log of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from feedtune.contracts import Row
from feedtune.errors import UserError
from feedtune.experience import from_rows
from feedtune.feedback.events.showings import Showing, check_weights
from feedtune.functional import Estimate, importance_weights, inverse_propensity, self_normalized
from feedtune.policy import Policy
from feedtune.scoring import score_actions
from feedtune.text.codec import Codec

ROWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class EstimateOptions:
    """The node `estimate` of conf/feedback.yaml."""

    weights: Mapping[str, float] = field(default_factory=lambda: {"click": 1.0})  # worth of events by kind
    clip: float = 10.0  # largest weight of the clipped estimate
    window: float | None = None  # seconds after a showing in which events count
    split: Literal["train", "eval"] | None = None  # whose prompts' showings are used; None: all

    def __post_init__(self) -> None:
        check_weights("estimate.weights", self.weights)
        if not self.clip > 0:
            raise UserError(f"estimate.clip: expected a number above 0, got {self.clip}")
        if self.window is not None and not self.window > 0:
            raise UserError(f"estimate.window: expected a number of seconds above 0, got {self.window}")


def estimates(
    policy: Policy, codec: Codec, showings: Sequence[Showing], options: EstimateOptions
) -> dict[str, Estimate]:
    """What a showing earned the policy that was logged, and would earn this one, by several estimates.

    `logged` is the plain mean; `ips` the unbiased estimate, wild where policies differ much; `clipped` the
    same with bounded weights, too low if anything; `self-normalized` in between.

    Args:
        policy: to be valued, in evaluation mode.
        codec: its own.
        showings: each with its propensity, of responses that ended by themselves.
        options: worth of events, and bounds.

    Raises:
        UserError: a showing has no propensity, or there is none at all.
    """
    if not showings:
        raise UserError("estimate: the log has no showing to learn from")
    lacking = next((one for one in showings if one.propensity is None), None)
    if lacking is not None:
        raise UserError(
            f"estimate: '{lacking.text[:40]}' was shown without the probability with which it was said; log "
            "`propensity` with each event shown"
        )
    reward = torch.tensor([one.earned(options.weights) for one in showings], dtype=torch.float64)
    propensity = torch.tensor([one.propensity for one in showings], dtype=torch.float64)
    logp = logp_of(policy, codec, showings)
    weight = importance_weights(logp, propensity)
    return {
        "logged": inverse_propensity(reward, torch.ones_like(reward)),
        "ips": inverse_propensity(reward, weight),
        "clipped": inverse_propensity(reward, weight.clamp(max=options.clip)),
        "self-normalized": self_normalized(reward, weight),
    }


@torch.no_grad()
def logp_of(policy: Policy, codec: Codec, showings: Sequence[Showing]) -> Tensor:
    """log pi of each response that was shown, its end-of-text token included, `[n]` float64 on the CPU.

    Of the tokens that the codec makes of its text: where several spellings give one text, of that spelling.
    """
    device = next(policy.parameters()).device
    found = []
    for start in range(0, len(showings), ROWS_AT_ONCE):
        rows = [_row(one) for one in showings[start : start + ROWS_AT_ONCE]]
        sequences = codec.sequences(rows)
        read = [len(one.tokens) for one in codec.prompts(rows)]  # what was said before is not to be valued
        actions = [[False] * n + list(one.action[n:]) for n, one in zip(read, sequences, strict=True)]
        exp = from_rows([one.tokens for one in sequences], actions).to(device)
        found.append(score_actions(policy, exp, with_entropy=False).logp.double().sum(-1).cpu())
    return torch.cat(found)


def _row(showing: Showing) -> Row:
    if showing.messages:
        return {"messages": [dict(one) for one in showing.messages], "reference": showing.text}
    return {"prompt": showing.prompt, "reference": showing.text}
