"""`feedtune quickstart`: `feedtune pipeline pipeline=quickstart`."""

from __future__ import annotations

from collections.abc import Sequence

from feedtune.commands import pipeline


def main(arguments: Sequence[str]) -> int:
    """Run the pipeline; arguments are its overrides."""
    return pipeline.main(["pipeline=quickstart", *arguments])
