"""Numbers that are none (NaN, infinite): found before they move a weight, named, and refused or left out.

A rollout is looked through when it is collected and when it has been prepared; losses and gradients once an
optimiser step, over all ranks, before it is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from feedtune.checks import check_choice
from feedtune.contracts import Loss
from feedtune.distributed import gather_objects, sum_over_ranks
from feedtune.errors import UserError
from feedtune.experience import Experience

OnNonFinite = Literal["raise", "skip"]

IN_A_ROW = 10
"""Optimiser steps in a row that are left out before the run stops: it would not come back by itself."""

NAMED = 5
"""Rows, prompts or parameters that a message names."""

WHAT_TO_TRY = "Try a lower optimizer.lr, trainer.gradient_clip_val=1.0 or trainer.precision=32-true"
UNSAVED = "nothing of this state was saved"

Metrics = Mapping[str, Tensor | float]


def diverged(what: str, place: str) -> UserError:
    """The error for numbers that training has spoilt: `what` ends with its verb, `place` says where."""
    return UserError(f"training diverged: {what} not finite {place}. {WHAT_TO_TRY}; {UNSAVED}")


class FiniteGuard:
    """Keeps what is not finite out of the weights.

    "raise" stops at once with what was found. "skip" leaves out rows whose reward is not finite, as if the
    source had had no opinion on them; groups of rows in which what was prepared of them is not finite; and
    whole optimiser steps, all micro-batches of them, whose loss or gradient is not finite. A step that is
    left out moves no weight and leaves the optimiser's state alone; the learning rate's schedule goes on.

    Args:
        choice: "raise" or "skip".
        place: says how far training has come, for messages: "at ...".
    """

    def __init__(self, choice: OnNonFinite, place: Callable[[], str]) -> None:
        check_choice("on_nonfinite", choice, get_args(OnNonFinite))
        self.choice, self.place = choice, place
        self.rows = 0  # left out in this epoch on this rank
        self.steps = 0  # left out in this epoch
        self.in_a_row = 0  # steps left out up to now, the newest among them
        self._window: list[tuple[Metrics, int]] = []  # of the micro-batches of the step that is being made
        self._lost = torch.zeros(())  # how many of their losses are not finite
        self._empty = False  # nothing of the step's rows is left to learn from

    # Rollouts

    def collected(self, exp: Experience) -> Experience:
        """A rollout as it was collected: its rewards are finite."""
        broken = exp.scored & ~exp.reward.isfinite().all(-1)  # [B]
        if not self._anywhere(broken):
            return exp
        if self.choice == "raise":
            raise UserError(
                f"the reward {_of_rows(broken, exp)} is not finite {self.place()}. Mend the reward source "
                f"or the environment, or leave such rows out by on_nonfinite=skip; {UNSAVED}"
            )
        self.rows += int(broken.sum())
        kept = ~broken[:, None]
        reward = torch.where(kept, exp.reward, 0)
        return replace(exp, reward=reward, scored=exp.scored & ~broken, action=exp.action & kept)

    def prepared(self, exp: Experience, collected: Experience) -> Experience:
        """The same rollout when the algorithm has prepared it: whatever it learns from is finite.

        What the collector itself has put into `extra` is left alone: there, NaN means no opinion.
        """
        columns = {name: getattr(exp, name) for name in ("ref_logp", "old_logp")} | {
            name: value for name, value in exp.extra.items() if value is not collected.extra.get(name)
        }
        broken = {
            name: _broken_rows(value, exp.action)
            for name, value in columns.items()
            if value is not None and value.is_floating_point()
        }
        rows = sum(broken.values(), torch.zeros_like(exp.scored))  # [B] bool: `or`
        if not self._anywhere(rows):
            return exp
        if self.choice == "raise":
            named = next((name for name, found in broken.items() if found.any()), None)
            what = f"'{named}' {_of_rows(broken[named], exp)}" if named else "a rollout of another process"
            raise diverged(f"{what} is", self.place())
        rows = torch.isin(exp.group, exp.group[rows])  # what is compared with a broken row goes with it
        self.rows += int(rows.sum())
        whole = {name: _without(value, rows) for name, value in columns.items() if value is not None}
        own: dict[str, Any] = {name: whole.pop(name) for name in ("ref_logp", "old_logp") if name in whole}
        return replace(exp, action=exp.action & ~rows[:, None], extra={**exp.extra, **whole}, **own)

    def _anywhere(self, broken: Tensor) -> bool:
        return bool(sum_over_ranks(broken.any().float()))

    # Optimiser steps

    def open(self, batch: Experience) -> None:
        """The first micro-batch of an optimiser step comes next."""
        self._window, self._lost = [], torch.zeros((), device=batch.tokens.device)
        self._empty = bool(self.rows) and batch.step_tokens == 0

    def saw(self, loss: Loss, rows: int) -> None:
        """Another micro-batch's loss; its metrics wait until the step is made."""
        self._lost = self._lost + (~loss.sum.detach().isfinite()).float()
        metrics = {n: v.detach() if isinstance(v, Tensor) else v for n, v in loss.metrics.items()}
        self._window.append((metrics, rows))

    def passes(self, parameters: Iterable[tuple[str, nn.Parameter]], scaled: bool = False) -> bool:
        """Whether the step may be made, asked when all of its gradients are there; the same on all ranks.

        Args:
            parameters: those that are trained, by name.
            scaled: whether a gradient scaler (16-mixed) looks after infinite gradients: it leaves out their
                steps itself and lowers its scale.

        Raises:
            UserError: it may not, and `choice` is "raise"; or it is the last of `IN_A_ROW`.
        """
        named = [(name, weight.grad) for name, weight in parameters if weight.grad is not None]
        norm = get_total_norm([grad for _, grad in named]).to(self._lost.device)
        wide = torch.zeros_like(self._lost) if scaled else (~norm.isfinite()).float()
        here = torch.stack([self._lost, wide, torch.full_like(wide, self._empty)])
        lost, wide_sum, empty = sum_over_ranks(here).tolist()
        if wide_sum and not lost:  # squares of large numbers may be infinite where the numbers are not
            broken = sum(int(not grad.isfinite().all()) for _, grad in named)
            wide_sum = float(sum_over_ranks(torch.full_like(wide, broken)))
        if not (lost or wide_sum or empty):
            self.in_a_row = 0
            return True
        what = self._loss_said() if lost else _gradient_said(named) if wide_sum else "every row of it is"
        if self.choice == "raise":
            raise diverged(what, self.place())
        self.steps += 1
        self.in_a_row += 1
        if self.in_a_row >= IN_A_ROW:
            raise UserError(
                f"training diverged: {IN_A_ROW} optimiser steps in a row were left out by on_nonfinite=skip, "
                f"the last because {what} not finite {self.place()}. {WHAT_TO_TRY}; no weight has moved "
                "since the first of them"
            )
        return False

    def window(self) -> Sequence[tuple[Metrics, int]]:
        """Metrics of the step's micro-batches, each with its rows."""
        return self._window

    def _loss_said(self) -> str:
        values = {name: value for metrics, _ in self._window for name, value in metrics.items()}
        broken = [name for name, value in values.items() if not math.isfinite(float(value))]
        return f"{', '.join(broken) or 'the loss'} {'are' if broken[1:] else 'is'}"

    # The epoch

    def metrics(self) -> dict[str, float]:
        """Rows and optimiser steps left out in this epoch, over all ranks; nothing under "raise"."""

        if self.choice == "raise":
            return {}
        rows = sum(gather_objects(self.rows))
        return {"skipped/rows": float(rows), "skipped/steps": float(self.steps)}

    def clear(self) -> None:
        """Begin a new epoch."""
        self.rows = self.steps = 0

    def state_dict(self) -> dict[str, int]:
        """Plain numbers, taken between optimiser steps."""
        return {"rows": self.rows, "steps": self.steps, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.rows, self.steps, self.in_a_row = state["rows"], state["steps"], state["in_a_row"]


def _broken_rows(values: Tensor, action: Tensor) -> Tensor:
    """Rows `[B]` in which values `[B, ...]` are not finite where something is learnt from."""
    broken = ~values.isfinite()
    if values.shape[:2] == action.shape:
        return (broken.flatten(2).any(-1) if values.dim() > 2 else broken).logical_and(action).any(-1)
    return broken.flatten(1).any(-1) & action.any(-1) if values.dim() > 1 else broken & action.any(-1)


def _without(values: Tensor, rows: Tensor) -> Tensor:
    """The same with 0 for what is not finite in these rows: 0 times NaN is NaN."""
    chosen = rows.view(-1, *[1] * (values.dim() - 1))
    return torch.where(chosen & ~values.isfinite(), 0, values) if values.is_floating_point() else values


def _of_rows(broken: Tensor, exp: Experience) -> str:
    """
    >>> from feedtune.experience import from_rows
    >>> exp = from_rows([[1, 2]] * 4, [[0, 1]] * 4, group=[0, 0, 1, 1])
    >>> _of_rows(torch.tensor([False, True, True, False]), exp)
    'of rows 2, 3 of a rollout of 4 (prompts 1, 2)'
    """
    rows = broken.nonzero().squeeze(-1)
    if not len(rows):
        return "of a row of another process"
    prompts = sorted(set(exp.group[rows].tolist()))
    return f"of {_listed('row', rows.tolist())} of a rollout of {len(exp)} ({_listed('prompt', prompts)})"


def _listed(noun: str, numbers: Sequence[int]) -> str:
    """Numbers counted from 1, the first few of them."""
    found = [str(number + 1) for number in numbers]
    more = f" and {len(found) - NAMED} more" if found[NAMED:] else ""
    return f"{noun}{'s' if found[1:] else ''} {', '.join(found[:NAMED])}{more}"


def _gradient_said(named: Sequence[tuple[str, Tensor]]) -> str:
    broken = [name for name, grad in named if not grad.isfinite().all()]
    if not broken:
        return "a gradient of another process is"
    more = f" and {len(broken) - 1} more" if broken[1:] else ""
    return f"the gradient of {broken[0]}{more} is"
