"""The policy of calls: how long a reward source may take, how often it is tried, what its failure means."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args, runtime_checkable

from feedtune.checks import check_choice, check_positive
from feedtune.contracts import RewardSource, Sample, Scores
from feedtune.errors import UserError
from feedtune.rewards.failures import Missing, SourceFailure, call_source, counted, name_of
from feedtune.rewards.retries import check_tenacity, noting_retries, retried
from feedtune.rewards.workers import LateError, within

OnFailure = Literal["stop", "missing"]
FIRST_WAIT = 1.0
LONGEST_FIRST_WAIT = 3600.0

MOST_HANGING = 8
"""Calls of a source that may hang at once: threads cannot be stopped, and each holds what it works on."""


@dataclass(frozen=True, kw_only=True)
class RewardCalls:
    """The node `reward_calls` of a config.

    Args:
        timeout: seconds that a call may take; it then runs in a thread of its own. null: no limit.
        attempts: times that a call is tried, at least 1. Above 1 needs the extra `remote`.
        wait: seconds before the second attempt; doubled before each further one up to a minute, and by
            chance up to half of it longer.
        on_failure: of a call that failed for good: "stop", or "missing": its rows have no score, so they
            take part in nothing, as rows do on which the source has no opinion.

    Raises:
        UserError: a value is out of range, or one would change nothing.
    """

    timeout: float | None = None
    attempts: int = 1
    wait: float = FIRST_WAIT
    on_failure: OnFailure = "stop"

    def __post_init__(self) -> None:
        if self.timeout is not None:
            check_positive("reward_calls.timeout", self.timeout)
            if math.isinf(self.timeout):
                raise UserError("reward_calls.timeout: expected a finite number; null is no limit")
        if self.attempts < 1:
            raise UserError(f"reward_calls.attempts: expected at least 1, got {self.attempts}")
        if not 0 <= self.wait <= LONGEST_FIRST_WAIT:
            raise UserError(
                f"reward_calls.wait: expected 0 to {LONGEST_FIRST_WAIT:g} seconds, got {self.wait}"
            )
        if self.attempts == 1 and self.wait != FIRST_WAIT:
            raise UserError("reward_calls.wait: only reward_calls.attempts above 1 has a use for it")
        check_choice("reward_calls.on_failure", self.on_failure, get_args(OnFailure))

    @property
    def logged(self) -> frozenset[str]:
        """The counts that mean something under this policy, and so have a column from the first epoch on."""
        again, missing = self.attempts > 1, self.on_failure == "missing"
        named = {"failures": again or missing, "retries": again, "missing": missing}
        return frozenset(name for name, wanted in named.items() if wanted)


@runtime_checkable
class CombinedSource(Protocol):
    """A reward made of others. Each of these is called under the policy by itself."""

    @property
    def sources(self) -> Mapping[str, RewardSource]:
        """The others, by name."""
        ...

    def with_sources(self, sources: Mapping[str, RewardSource]) -> RewardSource:
        """The same reward made of these, which have the same names."""
        ...


@runtime_checkable
class MeteredSource(Protocol):
    """A reward source that counts something beside scoring: requests, money, replies that were no answer."""

    def counts(self) -> Mapping[str, float]:
        """What it has counted since it was last asked, by name: always the same names."""
        ...


@dataclass
class Counts:
    """What has happened since the counts were last taken."""

    failures: int = 0  # attempts that failed
    retries: int = 0  # attempts after the first
    missing: int = 0  # rows without a score because a call failed for good
    told: set[str] = field(default_factory=set)  # sources whose failure the terminal has seen

    def take(self) -> dict[str, int]:
        """The numbers; and begin anew."""
        found = {"failures": self.failures, "retries": self.retries, "missing": self.missing}
        self.failures = self.retries = self.missing = 0
        self.told.clear()
        return found


class GuardedSource:
    """A reward source under a policy of calls; itself a reward source.

    Args:
        source: of a `CombinedSource`, each of its own sources is guarded, so that one that fails is named,
            timed and tried again by itself.
        calls: the policy.

    Raises:
        UserError: more than one attempt is asked for, and tenacity is not installed.

    >>> loud = GuardedSource(lambda samples: [float(s.response.isupper()) for s in samples], RewardCalls())
    >>> loud([Sample("Hi", "HO")]).total
    tensor([1.])
    """

    def __init__(self, source: RewardSource, calls: RewardCalls) -> None:
        if calls.attempts > 1:
            check_tenacity("reward_calls.attempts above 1")
        self.calls, self.label = calls, name_of(source)
        self.counts = Counts()
        self.source = _guard(source, "", calls, self.counts)

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        """Scores of n samples; `Missing` where a call failed for good and that is not to stop the run.

        Raises:
            UserError: the source refuses what the user chose.
            SourceFailure: it failed for good.
        """
        scores = call_source(self.source, samples)
        if isinstance(scores, Missing):
            self.counts.missing += len(samples)
        return scores

    def metrics(self) -> dict[str, float]:
        """reward/failures, reward/retries and reward/missing (rows) since the last time that they were taken.

        Those that mean something under this policy, always: a run's columns stay the same. Others only where
        they are not 0, such as retries of a source that tries again by itself. What a source counts by itself
        (`MeteredSource`) is there always: reward/<name>, of a sum's source reward/<source>/<name>.
        """
        found = self.counts.take()
        policy = {f"reward/{k}": float(n) for k, n in found.items() if n or k in self.calls.logged}
        return policy | metered(self.source)


def guarded(source: RewardSource, calls: RewardCalls) -> GuardedSource:
    """The source under this policy."""
    return GuardedSource(source, calls)


def metered(source: RewardSource, where: str = "reward") -> dict[str, float]:
    """What a source, and every source that it is made of, has counted by itself.

    >>> class Counting:
    ...     def __call__(self, samples): return [0.0 for _ in samples]
    ...     def counts(self): return {"requests": 2.0}
    >>> metered(Counting())
    {'reward/requests': 2.0}
    """
    inner = source.source if isinstance(source, _Guarded) else source
    if isinstance(inner, CombinedSource):
        parts = [metered(part, f"{where}/{name}") for name, part in inner.sources.items()]
        return {name: value for found in parts for name, value in found.items()}
    if not isinstance(inner, MeteredSource):
        return {}
    return {f"{where}/{name}": float(value) for name, value in inner.counts().items()}


def call_metrics(reward: RewardSource | None) -> dict[str, float]:
    """The metrics of a source's calls since they were last taken; none of a source without a policy."""
    return reward.metrics() if isinstance(reward, GuardedSource) else {}


def rows_missing(reward: RewardSource | None) -> int:
    """Rows that have had no score since the counts were last taken, because a call failed."""
    return reward.counts.missing if isinstance(reward, GuardedSource) else 0


def _guard(source: RewardSource, where: str, calls: RewardCalls, counts: Counts) -> RewardSource:
    """The source, or each of its sources, as `_Guarded`; `where` is the key of a part."""
    if not isinstance(source, CombinedSource):
        return _Guarded(source, where, calls, counts)
    key = f"{where or 'reward'}.sources"
    return source.with_sources(
        {name: _guard(part, f"{key}.{name}", calls, counts) for name, part in source.sources.items()}
    )


class _Guarded:
    """One source that calls no others, under a policy."""

    def __init__(self, source: RewardSource, where: str, calls: RewardCalls, counts: Counts) -> None:
        self.source, self.where, self.calls, self.counts = source, where, calls, counts
        self.label = name_of(source)
        self._hanging: list[threading.Thread] = []

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        tried = 0

        def attempt() -> Scores:
            nonlocal tried
            tried += 1
            return self._attempt(samples)

        try:
            return retried(
                attempt,
                attempts=self.calls.attempts,
                wait=self.calls.wait,
                needed_by="reward_calls.attempts above 1",
                before_retry=self._count_retry,
            )
        except SourceFailure as failure:
            said = f"{failure}; tried {tried} times" if tried > 1 else str(failure)
            if self.calls.on_failure == "stop":
                raise SourceFailure(said, failure.retry_after) from failure
            self._tell(said, len(samples))
            return Missing.of(len(samples))

    def _attempt(self, samples: Sequence[Sample]) -> Scores:
        self._check_hanging()
        noted: list[None] = []  # this attempt's own: one that is left behind counts no more

        def call() -> Scores:
            with noting_retries(noted):
                return call_source(self.source, samples)

        try:
            return within(self.calls.timeout, call)
        except LateError as late:
            self.counts.failures += 1
            self._hanging.append(late.thread)
            raise SourceFailure(
                f"{self.label} took more than reward_calls.timeout={self.calls.timeout:g} seconds for "
                f"{counted(samples)}"
            ) from late
        except SourceFailure:
            self.counts.failures += 1
            raise
        finally:
            self.counts.retries += len(noted)

    def _count_retry(self) -> None:
        self.counts.retries += 1

    def _check_hanging(self) -> None:
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= MOST_HANGING:
            raise UserError(
                f"{self.label}: {len(self._hanging)} calls of it hang, long after "
                f"reward_calls.timeout={self.calls.timeout:g} seconds; see why before going on"
            )

    def _tell(self, said: str, rows: int) -> None:
        """One line to the terminal about this source's first failure in a rollout."""
        if self.where not in self.counts.told:
            self.counts.told.add(self.where)
            place = f"{self.where}: " if self.where else ""
            print(
                f"feedtune: {place}{said}. reward_calls.on_failure=missing: {rows} "
                f"row{'s' if rows != 1 else ''} without a score",
                file=sys.stderr,
            )
