"""What `init_from` means for a config: which parts it brings, and which of the user's own go with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from feedtune.config.compose import FLAGS, compose_config, to_plain
from feedtune.config.discovery import options_of
from feedtune.config.trust import resolve
from feedtune.contracts import Backbone
from feedtune.errors import UserError, nearest_path
from feedtune.runs.export import RECORD, export_of, read_record
from feedtune.text.codec import Codec


def choose_parts(config: DictConfig, typed: Sequence[str] = ()) -> DictConfig:
    """The config with the backbone and tokenizer that `init_from` brings; a copy.

    A run of feedtune brings both; a `tokenizer` that is as it is by default becomes empty: the run's own is
    taken. Other models are opened by an option of `backbone` that can (`Backbone.opening`), such as a
    transformers folder by `hf`; its other values may be set.

    Args:
        config: as composed.
        typed: the user's overrides, where known: what was typed was meant, also if it is the default.

    Raises:
        UserError: `init_from` is neither, or the user chose a backbone that is not the one it brings.
    """
    if config.init_from is None:
        return config
    config = config.copy()
    default = to_plain(compose_config())
    keys = _keys_typed(typed)
    chosen = {g: to_plain(config[g]) != default[g] or g in keys for g in ("backbone", "tokenizer")}
    export = export_named(config)
    if export is None:
        return _opened(config, chosen)
    record = read_record(export)["backbone"]
    _check_same(to_plain(config.backbone), default["backbone"], keys, record, config.init_from)
    config.backbone = described(record)
    if not chosen["tokenizer"]:
        config.tokenizer = {}
    return config


def export_named(config: DictConfig) -> Path | None:
    """The export folder that `init_from` names, if it is one of ours."""
    if config.init_from is None:
        return None
    folder = Path(config.init_from)
    if not folder.exists():
        seen_from = "" if folder.is_absolute() else f" in {Path.cwd()}, from where this command reads it"
        raise UserError(f"init_from: {folder} does not exist{seen_from}.{nearest_path(folder)}")
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
    """With the option of `backbone` that opens the folder, which is no run of feedtune."""
    folder = Path(config.init_from)
    openers = dict(_openers(folder))
    if not openers:
        raise UserError(
            f"init_from: {folder} is neither a run of feedtune nor a model that a backbone opens, such as a "
            "transformers folder with its config.json"
        )
    fitting = [name for name, one in openers.items() if one.backbone._target_ == config.backbone._target_]
    if chosen["backbone"] and not fitting:
        known = " or ".join(f"backbone={name}" for name in openers)
        raise UserError(
            f"backbone: {config.backbone._target_} does not open init_from={folder}, but {known} does; "
            "leave the backbone out, or choose that one"
        )
    opened = openers[next(iter(fitting or openers))]
    if not chosen["backbone"]:
        config.backbone = opened.backbone
    for key, value in opened.opening.items():
        if config.backbone[key] not in (opened.backbone[key], value):
            raise UserError(
                f"backbone.{key}: {config.backbone[key]} and init_from={folder}: give one of the two"
            )
        config.backbone[key] = value
    if not chosen["tokenizer"]:
        config.tokenizer = opened.tokenizer
    return config


@dataclass(frozen=True)
class _Opener:
    """An option of `backbone` that opens a folder."""

    backbone: DictConfig  # as the option has it
    tokenizer: DictConfig  # that it brings
    opening: Mapping[str, Any]  # arguments that name the folder


def _openers(folder: Path) -> Iterator[tuple[str, _Opener]]:
    """Every option that opens it; one that cannot be imported opens nothing and stops nobody."""
    for option in dict.fromkeys(options_of("backbone")):
        try:
            config = compose_config([f"backbone={option}"])
            target = resolve(config.backbone._target_, "backbone._target_")
        except UserError:
            continue
        opening = target.opening(folder) if issubclass(target, Backbone) else None
        if opening is not None:
            yield option, _Opener(config.backbone, config.tokenizer, opening)


def described(record: Mapping[str, Any]) -> dict[str, Any]:
    """The config node of a backbone that `export.save` has recorded.

    >>> described({"class": "mine.LSTM", "config": {"vocab_size": 9, "layers": 2}})
    {'_target_': 'mine.LSTM', 'layers': 2}
    """
    values = {name: value for name, value in record["config"].items() if name != "vocab_size"}
    return {"_target_": record["class"], **values}


def _keys_typed(typed: Sequence[str]) -> dict[str, str]:
    """What the user typed, by its key: {"backbone": "backbone=gru"}."""
    parsed = OverridesParser.create().parse_overrides(list(typed))
    return {one.key_or_group: str(one.input_line) for one in parsed}


def _check_same(
    chosen: Mapping[str, Any],
    default: Mapping[str, Any],
    keys: Mapping[str, str],
    record: Mapping[str, Any],
    init_from: str,
) -> None:
    """Refuse a choice that the backbone of the run would silently not follow.

    Chosen is what was typed, and what an experiment has made different from the default.
    """
    typed = {name for name in chosen if f"backbone.{name}" in keys}
    rest = {name for name in chosen if name not in typed}
    whole = "backbone" in keys or any(chosen[name] != default.get(name) for name in rest)
    hint = f"init_from={init_from} brings its own backbone, so leave `backbone` as it is by default"
    target = resolve(chosen["_target_"], "backbone._target_")
    ours = f"{target.__module__}.{target.__qualname__}"
    if whole and ours != record["class"]:
        raise UserError(f"{keys.get('backbone', 'backbone')}: {ours} is not {record['class']}. {hint}")
    for name in chosen if whole else sorted(typed):
        if name in FLAGS or _agrees(chosen[name], record["config"].get(name)):
            continue
        known = record["config"].get(name, "anything that the run's backbone has")
        key = keys.get(f"backbone.{name}", f"backbone.{name}")
        option = f" (as of {keys['backbone']})" if "backbone" in keys and name not in typed else ""
        raise UserError(f"{key}{option}: {chosen[name]} is not {known}. {hint}")


def _agrees(chosen: Any, recorded: Any) -> bool:
    """Equal as far as it goes: of a mapping, only what was chosen counts."""
    if isinstance(chosen, Mapping) and isinstance(recorded, Mapping):
        return all(_agrees(value, recorded.get(name)) for name, value in chosen.items())
    return bool(chosen == recorded)
