"""Settings of `feedtune feedback`: the nodes of conf/feedback.yaml and what their values may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from feedtune.checks import check_choice, check_unit
from feedtune.errors import UserError
from feedtune.feedback.events.clicks import ClickOptions
from feedtune.feedback.events.estimates import EstimateOptions
from feedtune.feedback.labelling import LabelOptions
from feedtune.feedback.raters.simulation import SimulateOptions

LAST_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class FeedbackOptions:
    """The node `feedback`."""

    path: str | None = None  # of the store; None: in the run folder, or beside the file of items
    key: str | None = None  # name of the environment variable with the key of an encrypted store
    host: str = "127.0.0.1"  # where the page listens
    port: int = 8765  # 0: any that is free
    hosts: Sequence[str] = ()  # further names under which the page is reached
    https: bool = False  # something before the page speaks HTTPS, so its cookies go over nothing else
    requests_a_minute: int | None = 300  # of one login; None: any number
    choose: Literal["random", "disagreement"] = "random"  # which question is asked next
    overlap: float = 0.2  # how often it is one that others have answered, so that agreement shows
    split: str = "train"  # of the task, whose prompts are asked
    prompts: int = 100  # of a run's task that its policy answers, to be compared
    responses: int | None = None  # to each of them by each run; None: 2 of one run, 1 of several

    def __post_init__(self) -> None:
        for name in ("prompts", "responses", "requests_a_minute"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"feedback.{name}: expected at least 1, got {value}")
        if not 0 <= self.port <= LAST_PORT:
            raise UserError(f"feedback.port: expected 0 to {LAST_PORT}, got {self.port}")
        check_unit("feedback.overlap", self.overlap)
        check_choice("feedback.split", self.split, ("train", "eval"))

    @property
    def url(self) -> str:
        """Where the page is reached.

        >>> FeedbackOptions().url, FeedbackOptions(https=True, hosts=["rate.example.org"]).url
        ('http://127.0.0.1:8765', 'https://rate.example.org')
        """
        name = next(iter(self.hosts), self.host)
        if self.https:
            return f"https://{name}"
        return f"http://[{name}]:{self.port}" if ":" in name else f"http://{name}:{self.port}"


NODES: dict[str, Any] = {
    "feedback": FeedbackOptions | Mapping[str, Any],
    "clicks": ClickOptions | Mapping[str, Any],
    "estimate": EstimateOptions | Mapping[str, Any],
    "simulate": SimulateOptions | Mapping[str, Any],
    "label": LabelOptions | Mapping[str, Any],
}
"""Every node with the type of its values."""
