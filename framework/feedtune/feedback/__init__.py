"""Feedback from people, judges and events: what was asked, what was answered, and where it is kept."""

from feedtune.feedback.records import Answer, Event, Item, Response

__all__ = ["Answer", "Event", "Item", "Response"]
