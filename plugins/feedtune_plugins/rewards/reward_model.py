"""What reward models of one's own say: runs of algorithm=reward_model as a reward source."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from feedtune.contracts import Row, Sample, Scores
from feedtune.errors import UserError
from feedtune.experience import from_rows
from feedtune.policy import at_least_float32
from feedtune.scoring import states_at_end
from feedtune_plugins.rewards.checks import at_least

if TYPE_CHECKING:
    from feedtune.text.codec import EncodedSequence

HEAD = "reward"
ROWS_AT_ONCE = 64
EXPORT = "export"


class RewardModel:
    """One reward model, or the mean of several less a part of their disagreement.

    The score is mean - uncertainty x standard deviation over the members (divided by their number, not by one
    less). Where members were trained alike but for their seeds, they agree near their data, and a policy that
    seeks what only one of them likes earns little (Coste et al. 2023, arXiv:2310.02743, who subtract the
    variance). Each member of several is a part of the scores, by the name of its folder.

    Members know rewards up to a constant for each prompt. Trained with `algorithm.centering` they share its
    zero, or else what they disagree on is partly that.

    Args:
        run: the run folder, or its `export/`; a list is an ensemble.
        uncertainty: at least 0; 0 with one run, which has nobody to disagree with.

    Raises:
        UserError: a folder holds no policy, or one without the head "reward"; one is named twice.
    """

    def __init__(self, *, run: str | Sequence[str], uncertainty: float = 0.0) -> None:
        runs = [run] if isinstance(run, str) else list(run)
        at_least("reward.uncertainty", uncertainty, 0)
        _check_runs(runs, uncertainty)
        self.uncertainty = uncertainty
        self.members = dict(zip(_names(runs), map(Member, runs), strict=True))

    def __call__(self, samples: Sequence[Sample]) -> Tensor | Scores:
        """Scores `[n]` of n samples; NaN for those that do not fit into a member's context."""
        parts = {name: member(samples) for name, member in self.members.items()}
        scores = torch.stack(list(parts.values()))  # [members, n]
        if len(parts) == 1:
            return scores[0]
        mean = scores.mean(0)
        deviation = (scores - mean).square().mean(0).sqrt()
        return Scores(mean - self.uncertainty * deviation, parts)


class Member:
    """The head "reward" of a run, on the hidden state after prompt, response and end-of-text token.

    The run reads with its own tokenizer, whatever the tuned policy's is. It runs on the GPU if there is one,
    in the precision of its weights. A response that is too long for its context has no score.

    Args:
        run: the run folder, or its `export/`.

    Raises:
        UserError: the folder holds no policy, or one without such a head.
    """

    def __init__(self, run: str) -> None:
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


def _check_runs(runs: Sequence[str], uncertainty: float) -> None:
    if not runs:
        raise UserError("reward.run: expected a run folder, or a list of several; got an empty list")
    twice = [folder for folder, count in Counter(map(_folder, runs)).items() if count > 1]
    if twice:
        raise UserError(f"reward.run: {twice[0]} is named twice; an ensemble is of runs of different seeds")
    if uncertainty and len(runs) == 1:
        raise UserError(
            f"reward.uncertainty: expected 0 with one run, got {uncertainty}: it takes several to disagree; "
            "name them as reward.run=[A,B]"
        )


def _names(runs: Sequence[str]) -> list[str]:
    """The folders' own names; their numbers, from 1, where two are namesakes."""
    names = [_folder(run).name for run in runs]
    return names if len(set(names)) == len(names) else [str(n) for n in range(1, len(names) + 1)]


def _folder(run: str) -> Path:
    """The run folder, which its `export/` stands for too."""
    folder = Path(run).resolve()
    return folder.parent if folder.name == EXPORT else folder


def _row(sample: Sample) -> Row:
    """What was said, after what was asked."""
    if sample.messages:
        return {"messages": list(sample.messages), "reference": sample.response}
    return {"prompt": sample.prompt, "reference": sample.response}
