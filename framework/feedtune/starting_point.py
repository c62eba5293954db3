"""What `init_from` means for a config: which parts it brings, and which of the user's own go with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from feedtune.configs import FLAGS, compose_config, resolve, to_plain
from feedtune.errors import UserError
from feedtune.runs import RECORD, export_of, read_record
from feedtune.text import Codec

OPENER = "hf"
"""The option of `backbone` that opens plain transformers folders."""


def choose_parts(config: DictConfig) -> DictConfig:
    """The config with the backbone and tokenizer that `init_from` brings; a copy.

    A run of feedtune brings both; a `tokenizer` that is as it is by default becomes empty: the run's own is
    taken. A plain transformers folder is opened by the backbone option `hf`, whose other values may be set.

    Raises:
        UserError: `init_from` is neither, or the user chose a backbone that is not the one it brings.
    """
    if config.init_from is None:
        return config
    config = config.copy()
    default = to_plain(compose_config())
    chosen = {group: to_plain(config[group]) != default[group] for group in ("backbone", "tokenizer")}
    export = export_named(config)
    if export is None:
        return _opened(config, chosen)
    if chosen["backbone"]:
        _check_same(to_plain(config.backbone), read_record(export)["backbone"], config.init_from)
    if not chosen["tokenizer"]:
        config.tokenizer = {}
    return config


def export_named(config: DictConfig) -> Path | None:
    """The export folder that `init_from` names, if it is one of ours."""
    if config.init_from is None:
        return None
    folder = Path(config.init_from)
    if not folder.exists():
        raise UserError(f"init_from: {folder} does not exist")
    if (folder / ".hydra").is_dir() or any((f / RECORD).is_file() for f in (folder, folder / "export")):
        return export_of(folder)
    return None


def check_fits(codec: Codec, folder: Path, init_from: str) -> None:
    """Refuse a tokenizer whose tokens mean something else than those that the weights in `folder` know."""
    if not (folder / "tokenizer_config.json").is_file():
        return
    ours, theirs = codec.tokenizer.get_vocab(), Codec.load(folder).tokenizer.get_vocab()
    if ours == theirs:
        return
    differing = sorted(set(ours.items()) ^ set(theirs.items()), key=lambda item: (item[1], item[0]))
    token, number = differing[0]
    raise UserError(
        f"tokenizer: its {len(ours)} tokens are not the {len(theirs)} of init_from={init_from} "
        f"(the first to differ is {token!r}, number {number}); leave the tokenizer out to take that one"
    )


def _opened(config: DictConfig, chosen: Mapping[str, bool]) -> DictConfig:
    folder = Path(config.init_from)
    if not (folder / "config.json").is_file():
        raise UserError(f"init_from: {folder} is neither a run of feedtune nor a transformers folder")
    opened = compose_config([f"backbone={OPENER}"])
    if not chosen["backbone"]:
        config.backbone = opened.backbone
    elif config.backbone._target_ != opened.backbone._target_:
        raise UserError(
            f"backbone: init_from={folder} is a transformers folder, which only backbone={OPENER} opens; "
            f"leave the backbone out, or choose backbone={OPENER}"
        )
    elif config.backbone.name not in (opened.backbone.name, str(folder)):
        raise UserError(f"backbone.name: {config.backbone.name} and init_from={folder}: give one of the two")
    config.backbone.name = str(folder)
    if not chosen["tokenizer"]:
        config.tokenizer = opened.tokenizer
    return config


def _check_same(chosen: Mapping[str, Any], record: Mapping[str, Any], init_from: str) -> None:
    """Refuse a choice that the backbone of the run would silently not follow."""
    hint = f"init_from={init_from} brings its own backbone, so leave `backbone` as it is by default"
    target = resolve(chosen["_target_"], "backbone._target_")
    ours = f"{target.__module__}.{target.__qualname__}"
    if ours != record["class"]:
        raise UserError(f"backbone: {ours} is not {record['class']}. {hint}")
    for name, value in chosen.items():
        if name not in FLAGS and not _agrees(value, record["config"].get(name)):
            raise UserError(f"backbone.{name}: {value} is not {record['config'].get(name)}. {hint}")


def _agrees(chosen: Any, recorded: Any) -> bool:
    """Equal as far as it goes: of a mapping, only what was chosen counts."""
    if isinstance(chosen, Mapping) and isinstance(recorded, Mapping):
        return all(_agrees(value, recorded.get(name)) for name, value in chosen.items())
    return bool(chosen == recorded)
