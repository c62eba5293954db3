"""What feedtune adds to Hydra: the options of installed plugins, and a guard for finished runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from feedtune.discovery import own_conf, providers


class FeedtuneSearchPath(SearchPathPlugin):
    """Lets Hydra find the options of every installed plugin."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for provider in providers():
            if provider.conf is not None and provider.conf != own_conf():
                search_path.append(provider=provider.distribution, path=f"file://{provider.conf}")


def register() -> None:
    """Make Hydra in this process (and no other Hydra application) know feedtune's plugins."""
    Plugins.instance().register(FeedtuneSearchPath)


class RefuseOverwrite(Callback):
    """Stops before anything is written into a folder that already holds a run."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called before Hydra writes its own files. Exits, for Hydra swallows a callback's exceptions."""
        folder = Path(OmegaConf.to_container(config.hydra.run, resolve=True)["dir"])  # type: ignore[index,call-overload]
        if (folder / "metrics.csv").exists() or (folder / "checkpoints").exists():
            print(
                f"feedtune: hydra.run.dir: {folder} already holds a run. "
                f"Go on with `feedtune resume {folder}` or choose another folder.",
                file=sys.stderr,
            )
            raise SystemExit(2)
