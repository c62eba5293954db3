"""What a reward model of one's own says: a run of algorithm=reward_model as a reward source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from feedtune.contracts import Row, Sample
from feedtune.errors import UserError
from feedtune.experience import from_rows
from feedtune.policy import at_least_float32
from feedtune.scoring import states_at_end

if TYPE_CHECKING:
    from feedtune.text.codec import EncodedSequence

HEAD = "reward"
ROWS_AT_ONCE = 64


class RewardModel:
    """The head "reward" of a run, on the hidden state after prompt, response and end-of-text token.

    The run reads with its own tokenizer, whatever the tuned policy's is. It runs on the GPU if there is one,
    in the precision of its weights. A response that is too long for its context has no score.

    Args:
        run: the run folder, or its `export/`.

    Raises:
        UserError: the folder holds no policy, or one without such a head.
    """

    def __init__(self, *, run: str) -> None:
        from feedtune import load  # which brings transformers: late, as in all rewards

        loaded = load(run)
        if HEAD not in loaded.policy.heads:
            raise UserError(f"reward.run: {run} has no head '{HEAD}'; train one with algorithm=reward_model")
        self.policy, self.codec = loaded.policy.requires_grad_(False), loaded.codec

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples; NaN for those that do not fit."""
        limit = self.policy.backbone.context_length
        sequences = self.codec.sequences([_row(sample) for sample in samples])
        scores = torch.full((len(samples),), math.nan)
        fitting = [n for n, one in enumerate(sequences) if limit is None or len(one.tokens) <= limit]
        for start in range(0, len(fitting), ROWS_AT_ONCE):
            part = fitting[start : start + ROWS_AT_ONCE]
            scores[part] = self._score([sequences[n] for n in part])
        return scores

    @torch.no_grad()
    def _score(self, sequences: Sequence[EncodedSequence]) -> Tensor:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        policy = self.policy.to(device)
        exp = from_rows([one.tokens for one in sequences], [one.action for one in sequences]).to(device)
        with torch.autocast(device.type, enabled=False):  # the run that asks may be in half precision
            hidden, _ = policy(exp.tokens, exp.mask)
            scores = at_least_float32(policy.heads[HEAD](states_at_end(hidden, exp)))
        return scores.squeeze(-1).float().cpu()


def _row(sample: Sample) -> Row:
    """What was said, after what was asked."""
    if sample.messages:
        return {"messages": list(sample.messages), "reference": sample.response}
    return {"prompt": sample.prompt, "reference": sample.response}
