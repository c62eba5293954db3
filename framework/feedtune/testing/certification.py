"""Certification: every law over an option, as the command line composes it.

    >>> certificate = certify("buffer", "once")
    >>> certificate.passed, certificate.target
    (True, 'feedtune_plugins.buffers.Epochs')

Our own options and those of installed plugins go through the same door.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from feedtune.config.build import build
from feedtune.config.compose import compose_config, to_plain
from feedtune.config.discovery import Provider, providers
from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.testing import option_files
from feedtune.testing.algorithms import AlgorithmSuite
from feedtune.testing.backbones import BackboneSuite
from feedtune.testing.buffers import BufferSuite
from feedtune.testing.collectors import CollectorSuite
from feedtune.testing.rewards import RewardSuite
from feedtune.testing.runner import Result, measured, run_suite
from feedtune.testing.suite import Suite
from feedtune.testing.tasks import TaskSuite

SUITES: Mapping[str, type[Suite]] = {
    kind.group: kind
    for kind in (BackboneSuite, AlgorithmSuite, RewardSuite, TaskSuite, CollectorSuite, BufferSuite)
}
"""The suite of each config group."""


@dataclass(frozen=True)
class Certificate:
    """What became of the laws of one option."""

    group: str
    option: str
    distribution: str
    version: str
    target: str  # the class
    results: Sequence[Result]
    note: str = ""  # what the laws took the option for

    @property
    def name(self) -> str:
        """As it is chosen: reward=acme."""
        return f"{self.group}={self.option}"

    @property
    def failed(self) -> list[Result]:
        """The laws that it breaks."""
        return [result for result in self.results if result.outcome == "failed"]

    @property
    def passed(self) -> bool:
        """Whether it breaks none."""
        return not self.failed

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "results": [asdict(one) for one in self.results], "passed": self.passed}


def certify(
    group: str,
    option: str,
    overrides: Sequence[str] = (),
    samples: Sequence[Sample] | None = None,
    unseen: Collection[str] = (),
) -> Certificate:
    """Every law over one option.

    Args:
        group: of the config: backbone, algorithm, reward, task, collector or buffer.
        option: of that group.
        overrides: values that have to be given, or a smaller size, as on the command line.
        samples: what a reward source is tried on; by default texts of many kinds.
        unseen: keys that may change nothing, beside those whose comment says so.

    Raises:
        UserError: there is no such group or option, or an override is wrong.
    """
    if group not in SUITES:
        raise UserError(f"{group}={option}: plugins are {', '.join(SUITES)}")
    composed = compose_config([f"{group}={option}", *overrides], with_hydra=True)
    config = to_plain(composed[group])
    provider = _provider_of(group, option)
    file = provider.conf / group / f"{option}.yaml" if provider.conf else Path()
    results = [measured(law, check) for law, check in _laws_of_the_file(file, group, option, config)]
    note = ""
    if all(result.outcome == "passed" for result in results):
        kind = suite_of(group, config, _unseen(file, group, composed) | set(unseen), samples)
        found = list[_Fitted]()
        results.append(measured("it can be made and used", lambda: found.append(_used(kind))))
        if found:
            fitted, note = found[0]
            results += run_suite(fitted)
    target = str(config.get("_target_", "")) if isinstance(config, dict) else ""
    return Certificate(group, option, provider.distribution, provider.version, target, results, note)


_Fitted = tuple[type[Suite], str]


def _used(kind: type[Suite]) -> _Fitted:
    """The suite that fits the plugin, once that has done something."""
    fitted, note = kind.fitted()
    fitted().probe(fitted().fresh())
    return fitted, note


def suite_of(
    group: str,
    config: Mapping[str, Any],
    unseen: frozenset[str] = frozenset(),
    samples: Sequence[Sample] | None = None,
) -> type[Suite]:
    """The group's suite over the option that this composed node describes."""
    base = SUITES[group]
    own: dict[str, Any] = {"config": dict(config), "unseen": unseen, "make": _maker(group)}
    if samples is not None:
        own["samples"] = samples
    if issubclass(base, BackboneSuite):
        own["double_tolerance"] = 1e-6  # of those of which a part computes in float32 always
    return type(f"{base.__name__}Of{group.capitalize()}", (base,), own)


def _unseen(file: Path, group: str, composed: DictConfig) -> frozenset[str]:
    """Keys that may change nothing, by the comments of the option's file and those of options inside it."""
    found = set(option_files.unseen_keys(file))
    for choice, option in composed.hydra.runtime.choices.items():
        inner, _, package = str(choice).partition("@")
        if package.startswith(f"{group}.") and option is not None:
            provider = _provider_of(inner, option)
            part = package.removeprefix(f"{group}.")
            found |= {f"{part}.{key}" for key in option_files.unseen_keys(provider.file(inner, option))}
    return frozenset(found)


def _maker(group: str) -> Callable[..., Any]:
    def make(self: Suite) -> Any:
        return self.built_from(self.config or {})

    def make_collector(self: Suite, codec: Any, reward: Any) -> Any:
        return build(dict(self.config or {}), "collector", codec=codec, reward=reward)

    return make_collector if group == "collector" else make


def _laws_of_the_file(
    file: Path, group: str, option: str, config: Mapping[str, Any]
) -> Iterator[tuple[str, Callable[[], None]]]:
    laws = option_files
    yield "its YAML opens with a command", partial(laws.opens_with_a_command, file, group, option)
    yield "every key of its YAML has a comment", partial(laws.every_key_has_a_comment, file)
    yield "its _target_ can be imported", partial(laws.targets_can_be_imported, config, group)
    yield "its keys are arguments", partial(laws.keys_are_arguments, config, group)
    yield "every value is given", partial(laws.values_are_given, config, group, option)


def _provider_of(group: str, option: str) -> Provider:
    """Who offers an option: the first, as Hydra takes it."""
    return next(one for one in providers() if (group, option) in one.options())
