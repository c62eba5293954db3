"""Which run a checkpoint is of, in plain values, and in what two such descriptions differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from feedtune.config.compose import targets_in, to_plain
from feedtune.config.discovery import providers
from feedtune.config.secrets import redacted
from feedtune.contracts import Row

PACKAGES = ("feedtune", "lightning", "transformers")
"""Distributions that every run computes with, beside torch and those of its plugins."""

MAY_DIFFER = {
    "run_dir": "where the run lies",
    "trust": "which code may be named; what is named stands elsewhere",
    "plugins_path": "where code lies; what is named of it stands elsewhere",
    "optimized_metric": "what a sweep hears at the end",
    "report": "drawn from what the run has written",
    "profile": "measures",
    "selfcheck": "looks at the policy before training and leaves it as it is",
    "logger": "hears what happens",
    "checkpoint": "when the state is saved, and how often; saving changes nothing of it",
    "evaluation": "measures, with randomness of its own",
    "monitor": "looks on; nothing is learnt from it",
    "trainer.max_epochs": "how long: a run that is made longer goes on as one that was so from the start",
    "trainer.max_steps": "how long",
    "trainer.max_time": "how long",
    "trainer.fast_dev_run": "such a run leaves no checkpoint",
    "trainer.enable_progress_bar": "shows",
    "trainer.enable_model_summary": "shows",
    "trainer.enable_checkpointing": "as `checkpoint`",
    "trainer.log_every_n_steps": "hears what happens",
}
"""Keys of the config in which two descriptions may differ, and why; feedtune's own callbacks only watch, too.

A longer run has another learning rate where its `scheduler` falls over the length of the run.
"""


def describe(config: DictConfig, rows: Sequence[Row], processes: int) -> dict[str, Any]:
    """The run, as a manifest says it: `versions`, `config`, `data`, `processes`, `threads`.

    Args:
        config: after `feedtune.runs.assembly.checked`.
        rows: the task's training rows.
        processes: that train together.
    """
    here = config.copy()
    OmegaConf.update(here, "run_dir", None)  # what is taken from it lies in the run folder, wherever that is
    plain = to_plain(here)
    return {
        "versions": versions(plain),
        "config": {key: redacted(_as_json(value)) for key, value in _leaves(_compared(plain))},
        "data": {"rows": len(rows), "sha256": rows_digest(rows)},
        "processes": processes,
        "threads": torch.get_num_threads(),
    }


def versions(plain: Mapping[str, Any]) -> dict[str, str]:
    """Of what every run computes with, and of the distributions that a plain config's choices come from."""
    found = {name: version(name) for name in PACKAGES} | {"torch": str(torch.__version__)}
    targets = [str(node["_target_"]) for _, node in targets_in(plain)]
    for provider in providers():
        if any(target.startswith(f"{provider.package}.") for target in targets):
            found[provider.distribution] = provider.version
    return found


def _compared(plain: dict[str, Any]) -> dict[str, Any]:
    """Without what may differ."""
    watching = {
        f"callbacks.{name}"
        for name, node in (plain.get("callbacks") or {}).items()
        if isinstance(node, dict) and str(node.get("_target_")).startswith("feedtune.")
    }
    return _without(plain, {*MAY_DIFFER, *watching}, "")


def _without(plain: dict[str, Any], keys: set[str], above: str) -> dict[str, Any]:
    kept = {name: value for name, value in plain.items() if f"{above}{name}" not in keys}
    return {
        name: _without(value, keys, f"{above}{name}.") if isinstance(value, dict) else value
        for name, value in kept.items()
    }


def _leaves(plain: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(full key, value) of everything that is no mapping. An empty mapping is as good as none."""
    for name, value in plain.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _as_json(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def rows_digest(rows: Iterable[Row]) -> str:
    """A sha256 of rows: of their order, their columns and every value.

    >>> rows_digest([{"a": 1}]) == rows_digest([{"a": 1}]), rows_digest([{"a": 1}]) == rows_digest([{"a": 2}])
    (True, False)
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(dict(row), default=_as_plain, skipkeys=True).encode() + b"\n")
    return digest.hexdigest()


def _as_plain(value: Any) -> Any:
    """What JSON has not: arrays by their numbers, all else by a text that says what it is, not where."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    text = str(value)
    return type(value).__qualname__ if " at 0x" in text else text


def differences(then: Mapping[str, Any], now: Mapping[str, Any], config: DictConfig) -> list[str]:
    """In what a run is not what it was, one line each; but for the number of processes.

    Args:
        then, now: from `describe`; of what `then` does not speak, nothing is known.
        config: the config of now. A key that takes its value from another that differs is not named.
    """
    found = []
    if "versions" in then:
        found += [f"{key}: {line}" for key, line in _changed(then["versions"], now["versions"])]
    if "config" in then:
        changed = dict(_changed(then["config"], now["config"]))
        raw = dict(_leaves(OmegaConf.to_container(config, resolve=False)))  # type: ignore[arg-type]
        found += [f"{key}: {line}" for key, line in changed.items() if _origin(raw, key) not in changed]
    if "data" in then and then["data"] != now["data"]:
        rows, before = now["data"]["rows"], then["data"]["rows"]
        found.append(
            f"task: its {rows} training rows are not the {before} with which the checkpoint was written"
        )
    if "threads" in then and then["threads"] != now["threads"]:
        found.append(
            f"threads: {then['threads']} when the checkpoint was written, {now['threads']} now; sums come "
            f"out in another order; OMP_NUM_THREADS={then['threads']} sets them"
        )
    return found


def _changed(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key in sorted(then.keys() | now.keys()):
        before, after = then.get(key, "nothing"), now.get(key, "nothing")
        if before != after:
            yield key, f"{_short(before)} when the checkpoint was written, {_short(after)} now"


def _short(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _origin(raw: Mapping[str, Any], key: str) -> str | None:
    """The key that this one's value is taken from, `${other.key}`; None: it is its own.

    >>> _origin({"a": "${b.c}", "d": "${e}"}, "a"), _origin({"d": "${e}"}, "d.x.y"), _origin({"a": 1}, "a")
    ('b.c', 'e.x.y', None)
    """
    stem, rest = key, ""
    while stem and stem not in raw:
        stem, _, name = stem.rpartition(".")
        rest = f".{name}{rest}"
    value = raw.get(stem)
    if not (isinstance(value, str) and value.startswith("${") and value.endswith("}")):
        return None
    return value[2:-1].removeprefix("oc.select:").split(",")[0] + rest
