"""Policies on disk: what `export/` holds, and how any of it comes back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from feedtune.configs import resolve
from feedtune.contracts import Backbone
from feedtune.errors import UserError
from feedtune.policy import Policy
from feedtune.text import Codec

RECORD = "feedtune.json"


@dataclass(frozen=True)
class Loaded:
    """A policy that can speak."""

    policy: Policy  # in evaluation mode
    codec: Codec
    chat: bool  # it was tuned on conversations, so text is put to it as a user's message


def save(policy: Policy, codec: Codec, folder: str | Path, *, chat: bool = True) -> Path:
    """Write a policy, its heads and its tokenizer; `feedtune.load(folder)` gives them back.

    Backbones that are transformers models write a folder that transformers loads by itself.

    Args:
        policy, codec: what belongs together.
        folder: made if needed.
        chat: whether it was tuned on conversations rather than on plain text.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    policy.backbone.save(folder)
    codec.save(folder)
    heads = policy.heads.state_dict()
    if heads:
        save_file({name: tensor.contiguous() for name, tensor in heads.items()}, folder / "heads.safetensors")
    record = {
        "format": 1,
        "feedtune": version("feedtune"),
        "chat": chat,
        "policy": {"class": _path_of(policy), "config": policy.config},
        "backbone": {"class": _path_of(policy.backbone), "config": policy.backbone.config},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    return folder


def load(folder: str | Path) -> Loaded:
    """The policy of a run folder or of its `export/`, heads included.

    Raises:
        UserError: the folder holds no policy, or names a class that is not trusted.
    """
    export = export_of(folder)
    record = read_record(export)
    policy_class = resolve(record["policy"]["class"], f"{export / RECORD}: policy.class")
    policy: Policy = policy_class(load_backbone(export), **record["policy"]["config"])
    load_heads(policy, export)
    return Loaded(policy.eval(), Codec.load(export), bool(record["chat"]))


def export_of(folder: str | Path) -> Path:
    """The folder with the policy: `folder` itself or its `export/`."""
    folder = Path(folder)
    for candidate in (folder, folder / "export"):
        if (candidate / RECORD).is_file():
            return candidate
    raise UserError(f"{folder}: not a run or export folder of feedtune (no {RECORD}, no export/{RECORD})")


def read_record(export: Path) -> dict[str, Any]:
    """What `save` wrote about the policy."""
    try:
        record: dict[str, Any] = json.loads((export / RECORD).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{export / RECORD}: cannot be read: {error}") from error
    if record.get("format") != 1:
        raise UserError(f"{export / RECORD}: expected format 1, got {record.get('format')!r}")
    return record


def load_backbone(export: Path) -> Backbone:
    """The backbone of an export."""
    record = read_record(export)["backbone"]
    backbone_class = resolve(record["class"], f"{export / RECORD}: backbone.class")
    if not (isinstance(backbone_class, type) and issubclass(backbone_class, Backbone)):
        raise UserError(f"{export / RECORD}: backbone.class: '{record['class']}' is no backbone")
    return backbone_class.load(export, record["config"])


def load_heads(policy: Policy, export: Path) -> None:
    """Give the policy's heads the weights of the export's heads of the same name and shape."""
    path = export / "heads.safetensors"
    if not path.is_file():
        return
    own = policy.heads.state_dict()
    saved = {n: t for n, t in load_file(path).items() if n in own and own[n].shape == t.shape}
    policy.heads.load_state_dict({**own, **saved})


def _path_of(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
