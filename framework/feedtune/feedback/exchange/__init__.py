"""Feedback as JSON lines: to take away, to bring along, and items to ask about."""
