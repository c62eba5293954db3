"""Two rewards of somebody else's code, of which one rises where the other falls."""

from __future__ import annotations


def proxy(responses: list[str]) -> list[float]:
    """The sum of the characters' numbers."""
    return [sum(map(ord, said)) / 100 for said in responses]


def wanted(responses: list[str]) -> list[float]:
    """Less of it."""
    return [-score for score in proxy(responses)]
