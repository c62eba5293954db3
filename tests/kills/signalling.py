"""Rewards that send signals to their own process: they are called while a rollout is collected."""

from __future__ import annotations

import os
import signal

calls = 0


def twice_in_the_second_rollout(responses: list[str]) -> list[float]:
    """SIGTERM, and once more."""
    global calls
    calls += 1
    if calls == 2:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    return [float(len(said)) for said in responses]
