"""What has to be the same for a run to go on as if it had never stopped."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from feedtune.checkpoints.manifest import describe, differences
from feedtune.checkpoints.saver import TOKENIZER, SaveCheckpoints
from feedtune.checkpoints.store import clear_partials, read_manifest
from feedtune.config.saved import CONFIG, OVERRIDES, saved_overrides
from feedtune.durable import replace_file
from feedtune.errors import UserError
from feedtune.runs.assembly import Assembly
from feedtune.text.codec import Codec


def codec_of(checkpoint: Path) -> Codec:
    """The tokenizer that a run has had from its beginning."""
    return Codec.load(checkpoint.parent / TOKENIZER)


def check_length(trainer: Mapping[str, Any], checkpoint: Path) -> None:
    """Refuse a length that the run has gone beyond already.

    Args:
        trainer: the config of that name.
        checkpoint: the state file that the run goes on from.

    Raises:
        UserError: naming the key, its value and what the run has done.
    """
    manifest = read_manifest(checkpoint.parent)
    # A manifest that somebody has made up may say anything.
    done = [manifest.get(name) for name in ("epoch", "step")]
    epochs, steps = (value if isinstance(value, int) else 0 for value in done)
    within = manifest.get("ends_epoch") is False
    problems = []
    if _is_below(trainer.get("max_epochs"), epochs + within):
        said = _counted(epochs, "epoch") + (" and a part of the next" if within else "")
        problems.append(_too_short("max_epochs", trainer["max_epochs"], epochs + within, said))
    if _is_below(trainer.get("max_steps"), steps):
        said = _counted(steps, "optimiser step")
        problems.append(_too_short("max_steps", trainer["max_steps"], steps, said))
    if problems:
        raise UserError("\n".join(problems))


def _is_below(limit: int | None, done: int) -> bool:
    return limit is not None and limit != -1 and limit < done


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _too_short(name: str, value: int, least: int, done: str) -> str:
    return (
        f"trainer.{name}: expected at least {least}, or -1 for no such limit, got {value}: "
        f"the run has done {done} already"
    )


def introduce(
    saver: SaveCheckpoints | None,
    config: DictConfig,
    parts: Assembly,
    processes: int,
    checkpoint: Path | None = None,
    force: bool = False,
) -> None:
    """Compare this run with the one that wrote the checkpoint, and tell the saver what it saves.

    What killed processes have left half written is removed.

    Args:
        saver: writes what the run is and its tokenizer into each checkpoint; null: there will be none.
        config: after `checked`.
        parts: built from it.
        processes: that train together.
        checkpoint: the state file that the run goes on from.
        force: go on although something differs.

    Raises:
        UserError: what differs, one line each.
    """
    clear_partials(Path(config.run_dir))
    if saver is None and checkpoint is None:
        return
    now = describe(config, parts.module.rows, processes)
    if checkpoint is not None:
        _compare(checkpoint, now, config, force)
    if saver is not None:
        saver.run, saver.files = now, _tokenizer_files(parts.codec)


def _compare(checkpoint: Path, now: Mapping[str, Any], config: DictConfig, force: bool) -> None:
    folder = checkpoint.parent
    then: Any = read_manifest(folder).get("run")
    try:
        before = then.get("processes", now["processes"])
        found = differences(then, now, config)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: its manifest does not say which run it is of") from error
    if before != now["processes"]:
        raise UserError(
            f"{folder}: processes that train together: {before} when it was written, {now['processes']} now. "
            f"Each has a place of its own in the data, so --force does not help; go on with {before} "
            "(trainer.devices)"
        )
    if found and not force:
        raise UserError(
            "\n".join(
                [
                    f"{folder}: the run would not go on as it was:",
                    *(f"  {line}" for line in found),
                    "add --force to go on all the same; it will not end as a run that was never stopped",
                ]
            )
        )
    for line in found:
        print(f"feedtune: --force, although {line}", file=sys.stderr)


def _tokenizer_files(codec: Codec) -> dict[str, bytes]:
    """The files that `Codec.load` reads, by their path in a checkpoint."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        codec.save(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {f"{TOKENIZER}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files}


def record_config(config: DictConfig, folder: Path, typed: Sequence[str] = ()) -> None:
    """Let the run folder's own config be this one, if it has a config: so the next resume goes on with it.

    Args:
        config: as it was before `checked`.
        folder: the run folder.
        typed: what the user has changed in it. It is kept behind what was typed before, for commands that
            compose the config anew.
    """
    path = folder / CONFIG
    if not path.is_file():
        return
    if typed:
        _record_overrides(folder / OVERRIDES, typed)
    try:
        same = OmegaConf.load(path) == config
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        same = False
    if not same:
        replace_file(path, OmegaConf.to_yaml(config))


def _record_overrides(path: Path, typed: Sequence[str]) -> None:
    """Of two that set the same key the later one counts, so the new ones come last."""
    if path.is_file():
        before = saved_overrides(path, trusting=True)
        lines = [line for line in before if line not in typed] + list(typed)
        replace_file(path, OmegaConf.to_yaml(OmegaConf.create(lines)))
