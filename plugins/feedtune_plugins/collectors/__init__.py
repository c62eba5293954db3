"""First-party collectors."""

from feedtune_plugins.collectors.generate import Generate
from feedtune_plugins.collectors.offline import Offline

__all__ = ["Generate", "Offline"]
