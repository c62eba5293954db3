"""The nouns of feedtune: what a plugin implements and what it may rely on.

Shapes: B rows, T tokens (prompt then response), H hidden, V vocabulary.

One trip of the data: a Task gives rows -> a Collector turns them into Experience (a policy samples, a
RewardSource scores) -> `Algorithm.prepare` -> Buffer -> minibatch -> `Algorithm.loss` -> optimiser ->
`Algorithm.after_step`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from feedtune.experience import Experience

if TYPE_CHECKING:
    from feedtune.policy import Policy
    from feedtune.sampling import Decoding

Row = Mapping[str, Any]
"""One row of a task: `prompt` or `messages`, and any columns that a reward or a loss wants."""

State = Any
"""What a backbone remembers of the tokens it has read. Opaque to everybody but the backbone."""


class Backbone(nn.Module, ABC):
    """A decoder-only language model, in three parts: read tokens, name the next one, keep some rows.

    Laws, tested for every option by `feedtune.testing.backbones`:

    - prefix: `f(x)` equals `f(x[:, :k])` followed by `f(x[:, k:], state)` for every k;
    - pads at either end of a row leave no trace in the hidden states or the state of real tokens;
    - `select(state, rows)` is the state that reading only those rows would have given.
    """

    vocab_size: int
    context_length: int | None = None  # most tokens of a row; None: no limit
    config: dict[str, Any]  # plain keyword arguments that build this backbone again
    adapter_off: Callable[[], AbstractContextManager[Any]] | None = None
    """Given by backbones whose trained part can be switched off (LoRA): the reference then needs no copy."""

    @abstractmethod
    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read tokens `[B, T]` int64 with mask `[B, T]` bool; return hidden `[B, T, H]` and the new state.

        `hidden[:, t]` has seen the tokens up to and including t. `state` is consumed: do not use it again.
        """

    @abstractmethod
    def unembed(self, hidden: Tensor) -> Tensor:
        """Logits of the next token, `[..., H] -> [..., V]`. Apart: `[B, T, V]` is never built in vain."""

    @abstractmethod
    def select(self, state: State, rows: Tensor) -> State:
        """A copy of the state with these rows `[R]` int64, repeated or dropped."""

    def steady(self) -> AbstractContextManager[None]:
        """Opened around many passes of few tokens each, without gradients: the weights do not change inside.

        The place for a backbone to make such passes faster, such as by another layout of its weights.
        """
        return nullcontext()

    @abstractmethod
    def head(self, outputs: int) -> nn.Module:
        """A new head on the hidden states, `[..., H] -> [..., outputs]`, that starts at exactly 0."""

    def save(self, folder: Path) -> None:
        """Write the weights into an existing folder. With `config` they are the whole backbone."""
        save_model(self, str(folder / "backbone.safetensors"))  # tied weights once

    @classmethod
    def load(cls, folder: Path, config: Mapping[str, Any]) -> Backbone:
        """The backbone that `save` wrote. `config` is its `config`."""
        backbone = cls(**config)
        load_model(backbone, str(folder / "backbone.safetensors"))
        return backbone

    @classmethod
    def opening(cls, folder: Path) -> Mapping[str, Any] | None:
        """Arguments with which this backbone opens a model that others have saved, for `init_from=folder`.

        None, as is the rule: it reads no other models than those that its own `save` wrote.
        """
        return None

    def rebuilt_keys(self) -> frozenset[str]:
        """Names of weights that building the backbone again restores anyway; checkpoints leave them out."""
        return frozenset()


class Reference(Protocol):
    """A frozen opinion on tokens: what the policy is leashed to, or a teacher."""

    def logp(self, exp: Experience) -> Tensor:
        """Log-probabilities `[B, T]` of the action tokens; 0 elsewhere."""
        ...


@dataclass(frozen=True)
class Sample:
    """What a reward source sees of one row."""

    prompt: str  # what the policy read, as text
    response: str  # what it said, without end-of-text tokens and stop strings
    messages: tuple[Mapping[str, str], ...] = ()  # the conversation before the response, if it is one
    columns: Mapping[str, Any] = field(default_factory=dict)  # the task's row


@dataclass(frozen=True)
class Scores:
    """Rewards of n samples."""

    total: Tensor  # [n] float; NaN: no opinion, never a silent 0
    parts: Mapping[str, Tensor] = field(default_factory=dict)  # [n] each, for logging, by source


@runtime_checkable
class RewardSource(Protocol):
    """Text in, score out. A list of floats or a tensor `[n]` is accepted in place of `Scores`."""

    def __call__(self, samples: Sequence[Sample]) -> Scores | Tensor | Sequence[float]: ...


class Task(ABC):
    """Where rows come from. `load` is called once a split; rows need `prompt`, `messages` or `text`."""

    @abstractmethod
    def load(self, split: str) -> Sequence[Row]:
        """Rows of split "train" or "eval". The two share no row."""


@dataclass(frozen=True)
class Plan:
    """The size of an epoch on one rank, known before any data is: Lightning reads it once."""

    collections: int  # times an epoch that the collector is called
    items: int  # items that each call receives
    rows: int  # rows of experience that each call returns


@dataclass(frozen=True)
class Rollout:
    """What one collection brought home."""

    experience: Experience
    metrics: Mapping[str, float] = field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()  # a few rows as text, for samples.jsonl and people
    record_rows: Sequence[int] = ()  # the row of `experience` that each record is of; empty: not known


class Collector(ABC):
    """How experience comes about: by generating and scoring, by reading logs, by acting in an environment."""

    on_policy: ClassVar[bool] = True
    """Whether the policy, as it is now, says what is collected; False: it is read from somewhere."""

    warped: bool = False  # whether it draws from less than the policy's whole distribution (top-p, top-k)

    def supply(self, needs: frozenset[str]) -> frozenset[str]:
        """Told once what the algorithm needs; says which of it `collect` will put into `exp.extra`."""
        return frozenset()

    @abstractmethod
    def load(self, rows: Sequence[Row], context_length: int | None) -> Sequence[Any]:
        """Encode a task's rows into the items that `collect` takes; refuse by name what does not fit."""

    @abstractmethod
    def plan(self, items: int, ranks: int) -> Plan:
        """The size of an epoch over so many items on one of so many ranks."""

    @abstractmethod
    def collect(self, items: Sequence[Any], policy: Policy, generator: torch.Generator) -> Rollout:
        """Experience from these items. All randomness comes from the generator (on the CPU)."""

    def perform(
        self, rows: Sequence[Row], policy: Policy, generator: torch.Generator, decoding: Decoding
    ) -> Rollout | None:
        """What the policy does on held-out rows, in one group each, with records of all of them.

        None where evaluation is to answer each row's prompt once and ask the reward source, as is the rule.
        """
        return None


class Buffer(ABC):
    """What happens to experience between its collection and the optimiser.

    Groups are never split where `on_policy` is true; one that draws old rows may split them. What it draws in
    `add` comes from a generator of its own, kept in `state_dict`.
    """

    on_policy: ClassVar[bool] = True
    """Whether minibatches are of the last collection alone; False: what older policies said comes again."""

    @abstractmethod
    def steps(self, rows: int) -> int:
        """Minibatches after a collection of so many rows: a fixed number."""

    @abstractmethod
    def add(self, exp: Experience) -> None:
        """Take in one collection."""

    @abstractmethod
    def minibatches(self, generator: torch.Generator) -> Iterator[Experience]:
        """Exactly `steps` minibatches; the order comes from the generator alone."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers, enough to give the same minibatches again."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


@dataclass(frozen=True)
class Loss:
    """A loss as a sum and what it is to be divided by, so that accumulation and ranks change nothing."""

    sum: Tensor  # scalar, with gradient
    denominator: float | Tensor  # exp.token_count, exp.row_count or a constant
    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)  # means over this minibatch


class Algorithm(nn.Module, ABC):
    """How feedback becomes gradients. It owns its target networks and controllers: they are checkpointed."""

    on_policy: ClassVar[bool] = False
    """Whether the loss is right only for tokens drawn from the policy's own, unwarped distribution."""

    def check_steps(self, steps: int) -> None:
        """Told before training how many optimiser steps each collection takes part in; `needs` may shrink.

        Raises:
            UserError: more than the loss is right for: the policy that acted moves with the first step.
        """

    @abstractmethod
    def build_policy(self, make_backbone: Callable[[], Backbone]) -> Policy:
        """The policy with the heads that this algorithm trains."""

    def needs(self) -> frozenset[str]:
        """What `prepare` and `loss` read beside the rows themselves. Nothing else is computed.

        From the module: "reference" arrives as `exp.ref_logp`, "old_logp" as `exp.old_logp`, and "values" as
        `exp.extra["value"]` `[B, T]` with `exp.extra["bootstrap"]` `[B]`, from the head named "value". From
        collectors that supply it: "greedy" as `exp.extra["greedy"]` `[B]`, the score of the greedy response
        to the row's prompt; NaN where the reward source had no opinion; "groups": several rows of each group.
        """
        return frozenset()

    def setup(self, policy: Policy) -> None:
        """Called once, when the policy has its first weights: the place to copy target networks."""

    def prepare(self, exp: Experience, policy: Policy) -> tuple[Experience, Mapping[str, float]]:
        """Once a rollout, without gradient: reward shaping, advantages; and metrics of the rollout."""
        return exp, {}

    @abstractmethod
    def loss(self, exp: Experience, policy: Policy) -> Loss:
        """The loss of one minibatch."""

    def after_step(self, policy: Policy) -> None:
        """After each optimiser step (not each micro-batch): target networks, schedules."""


def as_scores(value: Scores | Tensor | Sequence[float], count: int, source: str) -> Scores:
    """Check what a reward source returned and give it one form.

    >>> as_scores([1, 2.5], 2, "mine").total
    tensor([1.0000, 2.5000])
    """
    from feedtune.errors import UserError

    scores = value if isinstance(value, Scores) else None
    try:
        total = torch.as_tensor(scores.total if scores else value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(value).__name__
        raise UserError(f"reward '{source}': expected {count} numbers, got {kind} ({error})") from error
    if total.shape != (count,):
        raise UserError(
            f"reward '{source}': expected {count} scores, one a sample, got shape {tuple(total.shape)}"
        )
    if total.isinf().any():
        row = int(total.isinf().nonzero()[0]) + 1
        raise UserError(f"reward '{source}': the score of row {row} is infinite")
    parts = {
        name: torch.as_tensor(part, dtype=torch.float32)
        for name, part in (scores.parts if scores else {}).items()
    }
    for name, part in parts.items():
        if part.shape != (count,):
            shape = tuple(part.shape)
            raise UserError(f"reward '{source}': part '{name}' has shape {shape}, expected ({count},)")
    return Scores(total.detach().cpu(), parts)


def mean_of_scored(values: Tensor) -> float:
    """Mean over the entries that are not NaN; NaN where there is none.

    >>> mean_of_scored(torch.tensor([1.0, float("nan"), 3.0]))
    2.0
    """
    found = values[~values.isnan()]
    return float(found.mean()) if len(found) else math.nan
