"""Calling reward sources: what goes wrong is named, tried again if asked for, and never trained on."""

from __future__ import annotations

from feedtune.rewards.calls import (
    CombinedSource,
    GuardedSource,
    MeteredSource,
    RewardCalls,
    call_metrics,
    guarded,
    rows_missing,
)
from feedtune.rewards.failures import (
    Missing,
    SourceFailure,
    call_source,
    checked_scores,
    counted,
    name_of,
    score_samples,
    shortened,
)
from feedtune.rewards.retries import check_tenacity, note_retry, retried
from feedtune.rewards.workers import LateError, in_threads, within

__all__ = [
    "CombinedSource",
    "GuardedSource",
    "LateError",
    "MeteredSource",
    "Missing",
    "RewardCalls",
    "SourceFailure",
    "call_metrics",
    "call_source",
    "check_tenacity",
    "checked_scores",
    "counted",
    "guarded",
    "in_threads",
    "name_of",
    "note_retry",
    "retried",
    "rows_missing",
    "score_samples",
    "shortened",
    "within",
]
