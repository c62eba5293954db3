"""Checkpoints of a run: written whole or not at all, verified before they are used.

A checkpoint is a folder `checkpoints/step-00000012/` of the run folder: `state.ckpt` (what Lightning and the
module need to go on), `tokenizer/`, and `manifest.json`: which run this is, where it stood, and a sha256 of
every file and of the manifest itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feedtune.checkpoints.store import listed, newest, read_manifest, verified

if TYPE_CHECKING:
    from feedtune.checkpoints.saver import SaveCheckpoints

__all__ = ["SaveCheckpoints", "listed", "newest", "read_manifest", "verified"]


def __getattr__(name: str) -> Any:
    """`SaveCheckpoints` on first use: it needs torch, and whoever only looks for checkpoints does not."""
    if name == "SaveCheckpoints":
        from feedtune.checkpoints.saver import SaveCheckpoints

        return SaveCheckpoints
    raise AttributeError(f"module 'feedtune.checkpoints' has no attribute '{name}'")
