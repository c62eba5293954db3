"""Your own function as a reward."""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from feedtune.contracts import Sample, Scores
from feedtune.errors import UserError, nearest
from feedtune.rewards import SourceFailure, checked_scores
from feedtune_plugins.rewards.imports import load_function


@dataclass(kw_only=True)
class Function:
    """Call `function(prompts=..., responses=..., column=...)` and take the n numbers that it returns.

    It receives, by keyword, those of these lists that its signature names, or all of them with `**kwargs`:
    `prompts` and `responses` (n texts each) and each of the task's columns under its own name (n values;
    None where a row lacks it). It returns n numbers as a list, array or tensor; None or NaN: no opinion.
    A file rewards.py with this in it is `path: rewards:score`:

        def score(responses, answer):
            return [float(right in said) for said, right in zip(responses, answer)]

    Args:
        path: `module:function` or `./file.py:function`; modules of the working directory count.

    Raises:
        UserError: at construction, there is no such function; at a call, it wants a column that the task
            lacks.
        SourceFailure: at a call, it raises, or returns the wrong number or kind of values.
    """

    path: str
    needs_trust: ClassVar[tuple[str, ...]] = ("path",)  # no config from elsewhere runs code unasked

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"reward.path={self.path}"

    def __post_init__(self) -> None:
        self._function = load_function(self.path)
        self._required, self._optional, self._takes_all = parameters_of(self._function)

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        """Scores of n samples."""
        if not samples:
            return Scores(torch.zeros(0))
        arguments = self._choose(arguments_of(samples))
        try:
            value = self._function(**arguments)
        except UserError:
            raise
        except Exception as error:
            raise SourceFailure(
                f"reward.path={self.path} raised {type(error).__name__}: {error} "
                f"({place_of(error, self._function)}; called with {len(samples)} rows)"
            ) from error
        if isinstance(value, list | tuple):
            value = [math.nan if score is None else score for score in value]
        return checked_scores(value, samples, self.path)

    def _choose(self, available: dict[str, list[Any]]) -> dict[str, list[Any]]:
        lacking = sorted(self._required - available.keys())
        if lacking:
            hint = nearest(lacking[0], available)
            raise UserError(
                f"reward.path={self.path} wants '{lacking[0]}', which is no column of the task; "
                f"there are: {', '.join(available)}.{hint}"
            )
        wanted = self._required | self._optional
        return {name: values for name, values in available.items() if self._takes_all or name in wanted}


def parameters_of(function: Callable[..., Any]) -> tuple[frozenset[str], frozenset[str], bool]:
    """The names that a function requires, those it can do without, and whether it takes any others.

    >>> def score(responses, scale=1.0): ...
    >>> parameters_of(score)
    (frozenset({'responses'}), frozenset({'scale'}), False)
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some builtins tell nothing about themselves
        return frozenset(), frozenset(), True
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = frozenset(p.name for p in named if p.default is p.empty)
    optional = frozenset(p.name for p in named) - required
    return required, optional, any(p.kind == p.VAR_KEYWORD for p in parameters)


def arguments_of(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """Prompts, responses and every column that some row has, as lists over the rows.

    >>> arguments_of([Sample("Hi", "Ho", columns={"level": 3})])
    {'level': [3], 'prompts': ['Hi'], 'responses': ['Ho']}
    """
    columns = dict.fromkeys(str(name) for sample in samples for name in sample.columns)
    lists: dict[str, list[Any]] = {name: [sample.columns.get(name) for sample in samples] for name in columns}
    texts = {
        "prompts": [sample.prompt for sample in samples],
        "responses": [sample.response for sample in samples],
    }
    return lists | texts


def place_of(error: Exception, function: Callable[..., Any]) -> str:
    """File and line of an error, within the function's own file if it passed there."""
    frames = traceback.extract_tb(error.__traceback__)
    code = getattr(function, "__code__", None)
    own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"
