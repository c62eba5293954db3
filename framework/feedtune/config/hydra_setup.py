"""What feedtune adds to Hydra: the options of plugins."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig

from feedtune.config.discovery import own_conf, providers


class FeedtuneSearchPath(SearchPathPlugin):
    """Lets Hydra find the options of every plugin; of two of one name, that of the first provider."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for provider in providers():
            if provider.conf is not None and provider.conf != own_conf():
                search_path.append(provider=provider.distribution, path=f"file://{provider.conf}")


def register() -> None:
    """Make Hydra in this process (and no other Hydra application) know feedtune's plugins."""
    Plugins.instance().register(FeedtuneSearchPath)


def composed(overrides: Sequence[str], config_name: str) -> DictConfig:
    """What Hydra makes of these overrides, its own section included; it raises what Hydra raises."""
    register()
    application = GlobalHydra.instance().hydra  # inside `feedtune train` there is one; it steps aside
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(own_conf()), version_base="1.3"):
            return compose(config_name, list(overrides), return_hydra_config=True)
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = application
