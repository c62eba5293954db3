"""`feedtune resume DIR`: go on where a run was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from feedtune.commands.arguments import Arguments
from feedtune.errors import UserError, one_line


def main(arguments: Sequence[str]) -> int:
    """Go on from checkpoints/last.ckpt with the saved config, in the same folder."""
    parser = Arguments(prog="feedtune resume", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the run folder")
    folder: Path = parser.read(arguments).folder
    config = saved_config(folder)
    from lightning.pytorch.utilities import rank_zero_only

    from feedtune.runs.training import LAST, describe, train

    checkpoint = folder / LAST
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint} does not exist: the run wrote no checkpoint, so start it again")
    metrics = train(config, folder, checkpoint)
    if getattr(rank_zero_only, "rank", 0) == 0:
        print(describe(metrics) or "the run was complete already")
        print(f"run folder: {folder}")
    return 0


def saved_config(folder: Path) -> DictConfig:
    """The config of a run folder.

    Raises:
        UserError: the folder is no run, or its config cannot be read.
    """
    path = folder / ".hydra" / "config.yaml"
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    if not path.is_file():
        raise UserError(f"{folder}: not a run folder of feedtune (it has no .hydra/config.yaml)")
    try:
        config = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"{path}: expected the config of a run, got a list")
    return config
