"""Experience: what was said, who chose each token, and what it earned.

Every per-token tensor is `[B, T]` and speaks of token t: `logp[b, t]` is the log-probability of
`tokens[b, t]` given the tokens before it, `reward[b, t]` is what that token earned. The real tokens of a row
are contiguous; pads stand before or after them. Masks come from lengths, never from token values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Experience:
    """A batch of rows (prompt, response, and in multi-turn tasks observations between responses).

    Shapes: B rows, T tokens.
    """

    tokens: Tensor  # [B, T] int64
    mask: Tensor  # [B, T] bool: a real token, not a pad
    action: Tensor  # [B, T] bool: a token that the policy chose (or that is to be imitated)
    reward: Tensor  # [B, T] float: raw reward, on the token that earned it; 0 in rows that are not scored
    group: Tensor  # [B] int64: rows with the same number answer the same prompt
    done: Tensor  # [B] bool: no reward counts after this row
    ended: Tensor  # [B] bool: the row closed itself with an end-of-text token or a stop string
    scored: Tensor  # [B] bool: the reward source had an opinion; rows without one take part in nothing
    sampler_logp: Tensor | None = None  # [B, T] log-probabilities of the distribution that acted
    old_logp: Tensor | None = None  # [B, T] log-probabilities that a ratio divides by
    ref_logp: Tensor | None = None  # [B, T] log-probabilities under the reference
    extra: dict[str, Tensor] = field(default_factory=dict)  # [B, ...]: an algorithm's own
    step_tokens: float | None = None  # action tokens in this optimiser step, over micro-batches and ranks
    step_rows: float | None = None  # rows with action tokens in this optimiser step, likewise

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def lengths(self) -> Tensor:
        """Real tokens of each row, `[B]` int64."""
        return self.mask.sum(-1)

    @property
    def ends(self) -> Tensor:
        """Column of the last real token of each row, `[B]` int64; 0 in rows without one."""
        first = self.mask.int().argmax(-1)
        return (first + self.lengths - 1).clamp(min=0)

    @property
    def score(self) -> Tensor:
        """Raw reward of each row, `[B]`: the sum over its tokens."""
        return self.reward.sum(-1)

    @property
    def last(self) -> Tensor:
        """The last action token of each row, `[B, T]` bool; all False in rows without one."""
        remaining = self.action.flip(-1).cumsum(-1).flip(-1)
        return self.action & (remaining == 1)

    @property
    def terminal(self) -> Tensor:
        """Where no reward can follow, `[B, T]` bool: the last action token of rows that are done."""
        return self.last & self.done[:, None]

    @property
    def token_count(self) -> float | Tensor:
        """Denominator of a mean over tokens: the whole optimiser step's, or this batch's own."""
        return self.action.sum().clamp(min=1) if self.step_tokens is None else max(1.0, self.step_tokens)

    @property
    def row_count(self) -> float | Tensor:
        """Denominator of a mean over rows: the whole optimiser step's, or this batch's own."""
        if self.step_rows is None:
            return self.action.any(-1).sum().clamp(min=1)
        return max(1.0, self.step_rows)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name; those of `extra` as `extra.NAME`."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        found = {name: value for name, value in own.items() if isinstance(value, Tensor)}
        return found | {f"extra.{name}": value for name, value in self.extra.items()}

    def _rebuild(self, tensors: dict[str, Tensor]) -> Experience:
        plain = {name: value for name, value in tensors.items() if not name.startswith("extra.")}
        extra = {name[6:]: value for name, value in tensors.items() if name.startswith("extra.")}
        return replace(self, **plain, extra=extra)  # type: ignore[arg-type]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Experience:
        """The same experience on another device."""
        return self._rebuild({k: v.to(device, non_blocking=non_blocking) for k, v in self.tensors().items()})

    def __getitem__(self, rows: Tensor | slice) -> Experience:
        """Some of the rows, in the order asked for."""
        return self._rebuild({name: value[rows] for name, value in self.tensors().items()})

    def with_(self, **extra: Tensor) -> Experience:
        """The same experience with more columns in `extra`."""
        return replace(self, extra={**self.extra, **extra})

    def trim(self) -> Experience:
        """Without the columns that are pads in every row."""
        used = self.mask.any(0).nonzero()
        first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
        return self.padded(-first, last + 1 - self.tokens.shape[1])

    def padded(self, left: int, right: int) -> Experience:
        """With so many more columns of pads on either side; of negative numbers, so many are cut off.

        >>> from_rows([[5, 6]], [[0, 1]]).padded(1, -1).tokens
        tensor([[0, 5]])
        """
        if left == right == 0:
            return self
        width = self.tokens.shape[1]

        def resize(value: Tensor) -> Tensor:
            if value.dim() < 2 or value.shape[1] != width:
                return value
            return pad(value, [*[0, 0] * (value.dim() - 2), left, right])

        return self._rebuild({name: resize(value) for name, value in self.tensors().items()})

    @classmethod
    def cat(cls, parts: Sequence[Experience]) -> Experience:
        """Rows of several experiences under one another, padded to the longest."""
        width = max(part.tokens.shape[1] for part in parts)
        wide = [part.padded(0, width - part.tokens.shape[1]).tensors() for part in parts]
        common = [name for name in wide[0] if all(name in tensors for tensors in wide)]
        joined = {name: torch.cat([tensors[name] for tensors in wide]) for name in common}
        # What some part lacks, the whole lacks: rows of the first part alone would speak of other rows.
        bare = replace(parts[0], sampler_logp=None, old_logp=None, ref_logp=None)
        return bare._rebuild(joined)

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors for a checkpoint that loads with `weights_only=True`."""
        counts = {"step_tokens": self.step_tokens, "step_rows": self.step_rows}
        return {**{name: value.cpu() for name, value in self.tensors().items()}, **counts}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Experience:
        """The inverse of `state_dict`."""
        extra = {name[6:]: value for name, value in state.items() if name.startswith("extra.")}
        plain = {name: value for name, value in state.items() if not name.startswith("extra.")}
        return cls(**plain, extra=extra)


def from_rows(
    rows: Sequence[Sequence[int]],
    actions: Sequence[Sequence[bool]],
    *,
    scores: Sequence[float] | None = None,
    group: Sequence[int] | None = None,
    done: bool = True,
    pad_id: int = 0,
) -> Experience:
    """Experience from ragged token lists; a row's score lands on its last action token.

    A row whose score is NaN is not scored: it keeps its tokens and loses its actions. A row without
    action tokens keeps its score on its last token, where baselines can still see it.

    Raises:
        ValueError: a row begins with an action; nothing comes before it that could have chosen it.

    >>> exp = from_rows([[5, 6, 7], [5, 8]], [[0, 1, 1], [0, 1]], scores=[1.0, 2.0])
    >>> exp.reward
    tensor([[0., 0., 1.],
            [0., 2., 0.]])
    """
    if any(row[0] for row in actions if row):
        raise ValueError("the first token of a row follows nothing, so it cannot be an action")
    width = max((len(row) for row in rows), default=1) or 1
    tokens = torch.tensor([list(row) + [pad_id] * (width - len(row)) for row in rows])  # [B, T]
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    action = torch.tensor([[bool(a) for a in row] + [False] * (width - len(row)) for row in actions])
    count = len(rows)
    score = torch.tensor(list(scores) if scores is not None else [0.0] * count, dtype=torch.float32)
    empty = Experience(
        tokens=tokens.long().view(count, width),
        mask=mask.view(count, width),
        action=action.view(count, width),
        reward=torch.zeros(count, width),
        group=torch.tensor(list(group) if group is not None else list(range(count))),
        done=torch.full((count,), done),
        ended=torch.full((count,), done),
        scored=torch.ones(count, dtype=torch.bool),
    )
    return place_scores(empty, score)


def place_scores(exp: Experience, score: Tensor) -> Experience:
    """Put each row's score `[B]` on its last action token; NaN: the row is not scored and has no actions."""
    scored = ~score.isnan()
    last = exp.last
    index = torch.arange(exp.tokens.shape[1], device=exp.tokens.device)
    last_real = index == exp.ends[:, None]
    earner = torch.where(last.any(-1, keepdim=True), last, last_real)  # [B, T]
    earned = earner & scored[:, None]  # an infinite score stays one: it is found out before it is learnt from
    reward = torch.where(earned, score[:, None], torch.zeros(()))
    return replace(exp, reward=reward, scored=scored, action=exp.action & scored[:, None])
