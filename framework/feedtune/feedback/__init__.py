"""Feedback from people, judges and events: what was asked, what was answered, and where it is kept."""

from feedtune.feedback.ids import content_id, item_id, item_of, now, one_time_id, response_id, response_of
from feedtune.feedback.records import Answer, Answered, Choice, Event, Item, Kind, RaterKind, Response
from feedtune.feedback.storage.accounts import Account, Role
from feedtune.feedback.storage.store import FeedbackStore, Rater, store_path

__all__ = [
    "Account",
    "Answer",
    "Answered",
    "Choice",
    "Event",
    "FeedbackStore",
    "Item",
    "Kind",
    "Rater",
    "RaterKind",
    "Response",
    "Role",
    "content_id",
    "item_id",
    "item_of",
    "now",
    "one_time_id",
    "response_id",
    "response_of",
    "store_path",
]
