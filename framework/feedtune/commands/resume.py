"""`feedtune resume DIR`: go on where a run was stopped, from its newest checkpoint that is whole."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from feedtune.commands.arguments import TRUST_HELP, Arguments
from feedtune.config.hydra_errors import explained
from feedtune.config.local_plugins import adopt
from feedtune.config.saved import CONFIG, permitted
from feedtune.errors import UserError, nearest, nearest_path, one_line


def main(arguments: Sequence[str]) -> int:
    """Go on with the saved config, in the same folder."""
    parser = Arguments(prog="feedtune resume", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the run folder")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="values to change, such as trainer.max_epochs=40"
    )
    parser.add_argument("--force", action="store_true", help="go on although the run is not what it was")
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)
    given = parser.read(arguments)
    folder: Path = given.folder
    typed = adopt(given.overrides)
    config = changed(saved_config(folder), typed)
    config = permitted(config, folder / CONFIG, given.trust, typed)
    from lightning.pytorch.utilities import rank_zero_only

    from feedtune.checkpoints import newest
    from feedtune.runs.training import describe, train

    first = getattr(rank_zero_only, "rank", 0) == 0
    checkpoint = newest(folder, quiet=not first)
    if checkpoint is None:
        _begin_again(folder, config, typed, first)
    metrics = train(config, folder, checkpoint, typed, force=given.force)
    if first:
        print(describe(metrics) or "the run was complete already")
        print(f"run folder: {folder}")
        if config.get("report"):
            from feedtune.commands.report import report_line

            print(report_line([folder], folder / "report.html"))
    return 0


def _begin_again(folder: Path, config: DictConfig, typed: Sequence[str], first: bool) -> None:
    """Nothing was saved yet when the run was stopped: all of it is left to do."""
    from feedtune.runs.continuing import record_config

    if (folder / "export" / "feedtune.json").is_file():  # it had got to its end
        raise UserError(f"{folder}: the run wrote no checkpoint, so start it again")
    if first:
        print(f"feedtune: {folder} has no checkpoint yet: the run begins again", file=sys.stderr)
        record_config(config, folder, typed)


def changed(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The config with these values, each given as `key=value`; for good, once the run goes on.

    Raises:
        UserError: something else than the value of a key that the config has.
    """
    config = config.copy()
    with explained(overrides):
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        for one in parsed:
            _set(config, one)
    return config


def _set(config: DictConfig, one: Override) -> None:
    key, line = one.key_or_group, one.input_line
    if one.type != OverrideType.CHANGE or one.is_sweep_override():
        raise UserError(f"{line}: expected key=value, with a key that the run has and one value")
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig) or name not in node:
        known = [str(known) for known in node] if isinstance(node, DictConfig) else []
        raise UserError(f"{key}: the run has no such key.{nearest(name, known)}")
    value = one.value()
    if OmegaConf.is_dict(node[name]) and not isinstance(value, dict):
        raise UserError(f"{line}: {key} is no single value; set one of its keys, as in {key}.NAME=...")
    OmegaConf.update(config, key, value, merge=False)


def saved_config(folder: Path) -> DictConfig:
    """The config of a run folder.

    Raises:
        UserError: the folder is no run, or its config cannot be read.
    """
    path = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.{nearest_path(folder)}")
    if not path.is_file():
        raise UserError(f"{folder}: not a run folder of feedtune (it has no .hydra/config.yaml)")
    try:
        config = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"{path}: expected the config of a run, got a list")
    return config
