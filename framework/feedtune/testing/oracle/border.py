"""Where the oracle meets feedtune: its rows as `Experience`, its tables inside a backbone that is a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from feedtune.contracts import Backbone
from feedtune.experience import Experience
from feedtune.testing.oracle.policies import token_logp
from feedtune.testing.oracle.world import Floats, Row, World


def experience(
    rows: Sequence[Row], *, group: Sequence[int] | None = None, pad_id: int = 0, width: int | None = None
) -> Experience:
    """The rows as a batch in float64: rewards on the tokens that earned them, `done` and `ended` as they are.

    Args:
        rows: of one world.
        group: a number for each row; None: its prompt's.
        pad_id: what stands after a row's end; masks come from lengths, so any token will do.
        width: columns, at least as many as the longest row has tokens.

    >>> world = World(vocab_size=2, length=2, prompts=[(0,)], reward=lambda context, token: len(context))
    >>> experience(world.rows[1:]).reward
    tensor([[0., 1., 2.],
            [0., 1., 0.]], dtype=torch.float64)
    """
    columns = max(len(row.tokens) for row in rows) if width is None else width
    lengths = [len(row.tokens) for row in rows]

    def padded(values: Sequence[Sequence[float]], fill: float, dtype: torch.dtype) -> Tensor:
        return torch.tensor([[*row, *[fill] * (columns - len(row))] for row in values], dtype=dtype)

    return Experience(
        tokens=padded([row.tokens for row in rows], pad_id, torch.int64),
        mask=padded([[1.0] * n for n in lengths], 0, torch.bool),
        action=padded([row.action for row in rows], 0, torch.bool),
        reward=padded([row.reward.tolist() for row in rows], 0, torch.float64),
        group=torch.tensor([row.prompt for row in rows] if group is None else list(group)),
        done=torch.tensor([row.done for row in rows]),
        ended=torch.tensor([row.ended for row in rows]),
        scored=torch.tensor([row.scored for row in rows]),
    )


def per_token(rows: Sequence[Row], values: Sequence[Floats], width: int | None = None) -> Tensor:
    """Numbers `[n]` for each row's action tokens as `[B, T]` float64; 0 elsewhere."""
    columns = max(len(row.tokens) for row in rows) if width is None else width
    found = np.zeros((len(rows), columns))
    for i, (row, value) in enumerate(zip(rows, values, strict=True)):
        found[i, np.flatnonzero(row.action)] = value
    return torch.from_numpy(found)


def logp_tensor(rows: Sequence[Row], logits: Floats, width: int | None = None) -> Tensor:
    """log pi of the action tokens under a table `[S, V]`, `[B, T]`: for `old_logp`, `ref_logp`, ..."""
    return per_token(rows, [token_logp(logits, row) for row in rows], width)


def value_tensors(rows: Sequence[Row], values: Floats, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Values `[S]` before each action token, `[B, T]`, and after each row, `[B]`; 0 if that is done."""
    after = [0.0 if row.done else float(values[row.final]) for row in rows]
    before = per_token(rows, [values[row.states] for row in rows], width)
    return before, torch.tensor(after, dtype=torch.float64)


class Table:
    """A world's states as lines of a backbone that is a table: its hidden state is the number of a line.

    `feedtune`'s n-gram with n - 1 at least the longest row and enough buckets is such a backbone.

    Args:
        world: whose states are looked up, by running the backbone over each.
        backbone: `forward` gives `[B, T, 1]` int64.

    Raises:
        ValueError: the backbone is no table, or two states share a line.
    """

    def __init__(self, world: World, backbone: Backbone) -> None:
        self.lines = torch.cat([_line(backbone, state) for state in world.states])
        """The line of each state, `[S]` int64."""
        if len(set(self.lines.tolist())) < len(self.lines):
            raise ValueError(
                "two states share a line of the table: it needs a longer context or more buckets"
            )

    def write(self, table: Tensor, values: Floats) -> None:
        """Put `[S, k]` (logits, or values as `[S, 1]`) into a table `[lines, k]`, in place."""
        with torch.no_grad():
            table[self.lines] = torch.from_numpy(np.array(values)).to(table.dtype)

    def read(self, table: Tensor) -> Floats:
        """The states' lines of a table or its gradient, `[S, k]`."""
        found: Floats = table.detach()[self.lines].double().numpy()
        return found


@torch.no_grad()
def _line(backbone: Backbone, state: Sequence[int]) -> Tensor:
    tokens = torch.tensor([state])
    hidden, _ = backbone(tokens, torch.ones_like(tokens, dtype=torch.bool))
    if hidden.shape[-1] != 1 or hidden.is_floating_point():
        raise ValueError("expected a backbone that is a table: hidden states [B, T, 1] int64")
    last: Tensor = hidden[0, -1:, 0]
    return last
