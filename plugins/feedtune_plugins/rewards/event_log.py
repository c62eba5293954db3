"""The showings in a feedback store, read once: what the rewards from logs share."""

from __future__ import annotations

from functools import cached_property

from feedtune.checks import check_positive
from feedtune.errors import UserError
from feedtune.feedback import FeedbackStore
from feedtune.feedback.events.showings import Showing, join


class EventLog:
    """A store's events, joined to the responses that they are about.

    Args:
        path: the store's file.
        key: name of the environment variable with its key, if it is encrypted.
        window: see `feedtune.feedback.events.showings.join`.

    Raises:
        UserError: there is no such file.
    """

    def __init__(self, *, path: str, key: str | None, window: float | None) -> None:
        if window is not None:
            check_positive("reward.window", window)
        self.store, self.window = FeedbackStore(path, key, name="reward.path").existing(), window

    @cached_property
    def showings(self) -> list[Showing]:
        """By time.

        Raises:
            UserError: there is none, or the store cannot be read.
        """
        found = join(self.store.items(), self.store.events(), self.window)
        if not found.showings:
            young = f", but {found.young} younger than reward.window={self.window:g} s" if found.young else ""
            raise UserError(
                f"reward.path: {self.store.path} says of no response that it was shown{young}: "
                "it needs events of the kind 'shown'"
            )
        return found.showings
