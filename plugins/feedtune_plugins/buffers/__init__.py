"""First-party buffers."""

from feedtune_plugins.buffers.epochs import Epochs
from feedtune_plugins.buffers.replay import Replay

__all__ = ["Epochs", "Replay"]
