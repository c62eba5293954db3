"""What requests may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr

from feedtune.feedback.records import Kind
from feedtune.feedback.web.desk import Said

LONGEST_TEXT = 50_000  # characters of an edit or a comment
MOST_TAGS = 20
MOST_EVENTS = 5_000  # of one request

Name = Annotated[str, Field(min_length=1, max_length=200)]


class Body(BaseModel):
    """Nothing but what is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Login(Body):
    """POST /login."""

    token: Name


class AnswerBody(Body):
    """POST /api/answers."""

    answer: Name  # the one-time id
    item: Name
    kind: Kind
    responses: Annotated[list[Name], Field(min_length=1, max_length=2)]  # as they were shown
    value: Annotated[StrictStr, Field(max_length=LONGEST_TEXT)] | StrictInt | StrictFloat
    tags: Annotated[list[Name], Field(max_length=MOST_TAGS)] = []
    by: Literal["person", "simulated"] = "person"

    def said(self) -> Said:
        """The same, for the desk."""
        responses, tags = tuple(self.responses), tuple(self.tags)
        return Said(self.answer, self.item, self.kind, responses, self.value, tags, self.by)


class Events(Body):
    """POST /api/events; `feedtune.feedback.events.reading.event_of` says what each may hold."""

    events: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_EVENTS)]
