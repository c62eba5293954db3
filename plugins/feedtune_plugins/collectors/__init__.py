"""First-party collectors."""

from feedtune_plugins.collectors.generate import Generate
from feedtune_plugins.collectors.gymnasium import Gymnasium
from feedtune_plugins.collectors.offline import Offline
from feedtune_plugins.collectors.pairs import Pairs

__all__ = ["Generate", "Gymnasium", "Offline", "Pairs"]
