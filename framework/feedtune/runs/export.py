"""Policies on disk: what `export/` holds, and how any of it comes back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from feedtune.checkpoints import listed
from feedtune.config.local_plugins import KEY as PLUGINS_PATH
from feedtune.config.local_plugins import home_of
from feedtune.config.local_plugins import use as use_folder
from feedtune.config.trust import is_trusted, needs_no_word, resolve
from feedtune.config.trust import trust as trust_prefixes
from feedtune.contracts import Backbone
from feedtune.errors import UserError, one_line
from feedtune.policy import Policy
from feedtune.text.codec import Codec

RECORD = "feedtune.json"
FORMAT = 1

MOVED = "which is not there any more: put the folder back, or say PYTHONPATH=FOLDER"
"""Of a folder of plugins, where a command takes no `plugins_path`."""


@dataclass(frozen=True)
class Loaded:
    """A policy that can speak."""

    policy: Policy  # in evaluation mode
    codec: Codec
    chat: bool  # it was tuned on conversations, so text is put to it as a user's message


def save(policy: Policy, codec: Codec, folder: str | Path, *, chat: bool = True) -> Path:
    """Write a policy, its heads and its tokenizer; `feedtune.load(folder)` gives them back.

    Backbones that are transformers models write a folder that transformers loads by itself, and whose
    `generate` stops where this policy's responses end.

    Args:
        policy, codec: what belongs together.
        folder: made if needed.
        chat: whether it was tuned on conversations rather than on plain text.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)  # written last: without it this is no export yet
    policy.backbone.save(folder)
    for name, tower in policy.towers.items():
        (folder / name).mkdir(exist_ok=True)
        _as_backbone(tower).save(folder / name)
    codec.save(folder)
    if (folder / "config.json").is_file():
        _save_generation_config(codec, folder / "generation_config.json")
    heads = policy.heads.state_dict()
    if heads:
        save_file({name: tensor.contiguous() for name, tensor in heads.items()}, folder / "heads.safetensors")
    record = {
        "format": FORMAT,
        "feedtune": version("feedtune"),
        "chat": chat,
        "policy": _describe(policy),
        "backbone": _describe(policy.backbone),
        "towers": {name: _describe(_as_backbone(tower)) for name, tower in policy.towers.items()},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    return folder


def load(folder: str | Path, *, trust: bool = False) -> Loaded:
    """The policy of a run folder or of its `export/`, heads included.

    Args:
        folder: may be downloaded: only classes of feedtune and of installed plugins are made of it.
        trust: make classes of other packages too, which runs their code.

    Raises:
        UserError: the folder holds no policy, or names a class that is not trusted.
    """
    export = export_of(folder)
    record = read_record(export)
    if trust:
        _trust_classes(record)
    _refuse_folders(record, export)
    policy_class: type[Policy] = _class_of(record["policy"], Policy, f"{export / RECORD}: policy.class")
    towers = {name: load_tower(export, name) for name in record["towers"]}
    backbone = load_backbone(export)
    try:
        policy = policy_class(backbone, towers=towers, **record["policy"]["config"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{export / RECORD}: policy.config: {one_line(error)}") from error
    load_heads(policy, export)
    return Loaded(policy.eval(), Codec.load(export), bool(record.get("chat")))


def record_asks_for_trust(folder: str | Path) -> bool:
    """Whether an export names classes that a new process makes only if it is told to."""
    try:
        record = read_record(export_of(folder))
    except UserError:
        return False
    return not all(needs_no_word(str(part.get("class"))) for part in _parts_of(record))


def export_of(folder: str | Path) -> Path:
    """The folder with the policy: `folder` itself or its `export/`."""
    folder = Path(folder)
    for candidate in (folder, folder / "export"):
        if (candidate / RECORD).is_file():
            return candidate
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    if listed(folder):
        raise UserError(f"{folder}: the run has not ended yet; go on with: feedtune resume {folder}")
    if (folder / ".hydra").is_dir():
        raise UserError(f"{folder}: the run ended before its first checkpoint, so there is no policy in it")
    raise UserError(f"{folder}: not a run or export folder of feedtune (no {RECORD}, no export/{RECORD})")


def read_record(export: Path) -> dict[str, Any]:
    """What `save` wrote about the policy."""
    try:
        record: dict[str, Any] = json.loads((export / RECORD).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{export / RECORD}: cannot be read: {error}") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise UserError(f"{export / RECORD}: expected format {FORMAT}, got {found!r}")
    towers = record.setdefault("towers", {})
    parts = {name: record.get(name) for name in ("policy", "backbone")}
    parts |= towers if isinstance(towers, dict) else {"towers": None}
    for name, part in parts.items():
        if not name.isidentifier():  # a tower's is a folder's too
            raise UserError(f"{export / RECORD}: towers: expected names, got {name!r}")
        if not (isinstance(part, dict) and isinstance(part.get("config"), dict)):
            raise UserError(f"{export / RECORD}: it says nothing of the {name}; feedtune did not write it")
    return record


def load_backbone(export: Path) -> Backbone:
    """The backbone of an export."""
    return _load_backbone(export, read_record(export)["backbone"], f"{export / RECORD}: backbone.class")


def load_tower(export: Path, name: str) -> Backbone:
    """A further backbone of an export, by name."""
    record = read_record(export)["towers"][name]
    return _load_backbone(export / name, record, f"{export / RECORD}: towers.{name}.class")


def _load_backbone(folder: Path, record: dict[str, Any], key: str) -> Backbone:
    backbone_class: type[Backbone] = _class_of(record, Backbone, key)
    try:
        return backbone_class.load(folder, record["config"])
    except TypeError as error:
        raise UserError(f"{key.removesuffix('class')}config: {one_line(error)}") from error
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise UserError(f"{folder}: the backbone's weights cannot be read: {one_line(error)}") from error


def load_heads(policy: Policy, export: Path) -> None:
    """Give the policy's heads and their towers the export's weights, where name and shape are the same."""
    for name in read_record(export)["towers"].keys() & policy.towers.keys():
        policy.towers[name] = load_tower(export, name)
    path = export / "heads.safetensors"
    if not path.is_file():
        return
    own = policy.heads.state_dict()
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from error
    saved = {n: t for n, t in found.items() if n in own and own[n].shape == t.shape}
    other = read_record(export)["towers"].keys() ^ policy.towers.keys()  # a head that read something else
    saved = {n: t for n, t in saved.items() if n.split(".")[0] not in other}
    policy.heads.load_state_dict({**own, **saved})


def _parts_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [record["policy"], record["backbone"], *record["towers"].values()]


def _refuse_folders(record: dict[str, Any], export: Path) -> None:
    """Refuse classes of a folder of plugins that nobody has named to this process."""
    for name, part in {
        "policy": record["policy"],
        "backbone": record["backbone"],
        **record["towers"],
    }.items():
        folder, path = part.get(PLUGINS_PATH), str(part.get("class"))
        if folder is not None and not is_trusted(path):
            where = f"{export / RECORD}: {name}.class: '{path}' is of the folder {folder}"
            if not Path(str(folder)).is_dir():
                raise UserError(f"{where}, {MOVED} and add --trust")
            raise UserError(f"{where}, which is not trusted. If you know what it does, add --trust")


def _trust_classes(record: dict[str, Any]) -> None:
    """Let the modules be imported where the classes that a record names are said to live."""
    for part in _parts_of(record):
        trust_prefixes([str(part.get("class")).rpartition(".")[0]])
        if Path(str(part.get(PLUGINS_PATH))).is_dir():
            use_folder(str(part[PLUGINS_PATH]))


def _class_of(record: dict[str, Any], base: type, key: str) -> Any:
    """The class that a record names, if it is trusted and what it has to be."""
    folder = record.get(PLUGINS_PATH)
    if folder is not None and not is_trusted(str(record.get("class"))):
        raise UserError(
            f"{key}: '{record.get('class')}' is of the folder {folder}, which is not trusted. If you know "
            f"what it does, add plugins_path={folder}"
        )
    try:
        found = resolve(record.get("class"), key)
    except UserError as error:
        if folder is None or Path(str(folder)).is_dir():
            raise
        raise UserError(f"{error}; it was in {folder}, {MOVED}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{key}: '{record['class']}' is no {base.__name__.lower()}")
    return found


def _save_generation_config(codec: Codec, path: Path) -> None:
    """What the model's own generation config says, but with the tokens that end this policy's responses."""
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    ends: int | list[int] = codec.eos_ids[0] if len(codec.eos_ids) == 1 else list(codec.eos_ids)
    known.pop("_from_model_config", None)  # transformers would read the model's config in its place
    known |= {"eos_token_id": ends, "pad_token_id": codec.pad_id}
    path.write_text(json.dumps(known, indent=2) + "\n")


def _as_backbone(tower: nn.Module) -> Backbone:
    assert isinstance(tower, Backbone)
    return tower


def _describe(part: Backbone | Policy) -> dict[str, Any]:
    kind, folder = type(part), home_of(type(part))
    said = {"class": f"{kind.__module__}.{kind.__qualname__}", "config": part.config}
    return said if folder is None else {**said, PLUGINS_PATH: str(folder)}
