"""Options of other distributions come in by the same door, and a broken one is named."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feedtune.config import discovery
from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.config.discovery import Provider, conf_folder, options_of, own_conf, providers
from feedtune.config.trust import is_trusted


def install(folder: Path, name: str, package: str, files: dict[str, str]) -> None:
    """What pip would leave behind: a package, and metadata with an entry point."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[feedtune.plugins]\n{name} = {package}\n")


POLITE = {
    "polite/__init__.py": "class Polite:\n    def __call__(self, samples): return [0.5] * len(samples)\n",
    "polite/conf/reward/polite.yaml": "# reward=polite\n_target_: polite.Polite\n",
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path, to install into; what it offers is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    providers.cache_clear()
    yield tmp_path
    providers.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] in ("polite", "explosive")]:
        del sys.modules[name]


def test_feedtunes_own_options_come_in_by_an_entry_point() -> None:
    first = providers()[0]
    assert (first.name, first.package, first.distribution) == ("feedtune", "feedtune", "feedtune")
    assert first.conf == own_conf()
    assert first.problem is None
    assert ("algorithm", "ppo") in first.options()
    assert first.options() == sorted(first.options())
    assert options_of("optimizer") == ["adam", "adamw", "sgd"]
    assert options_of("optimiser") == []


def test_an_installed_plugin_is_found_listed_trusted_and_built(site: Path, feedtune: Any) -> None:
    assert not is_trusted("polite.Polite")
    providers.cache_clear()
    install(site, "polite-rewards", "polite", POLITE)
    assert [p.distribution for p in providers()] == ["feedtune", "polite-rewards"]
    assert "polite" not in sys.modules  # listing imports nothing
    listed = json.loads(feedtune("plugins", "--json").out)["options"]
    row = {"group": "reward", "option": "polite", "distribution": "polite-rewards", "version": "1.2"}
    assert row in listed
    assert "polite" in options_of("reward")
    reward = build(compose_config(["reward=polite"]).reward, "reward")
    assert type(reward).__name__ == "Polite"


def test_its_option_stands_in_the_list_of_choices(site: Path, feedtune: Any) -> None:
    install(site, "polite-rewards", "polite", POLITE)
    said = feedtune("train", "reward=polit", "hydra.run.dir=" + str(site / "run"))
    assert said.code == 2
    assert "Did you mean 'polite'?" in said.err
    rewards = feedtune("train", "--help").out.partition("\nreward\n")[2].partition("\nscheduler\n")[0]
    assert "\n  polite" in rewards


def test_a_plugin_that_breaks_on_import_stops_nobody_else(site: Path, feedtune: Any) -> None:
    explosive = {
        "explosive/__init__.py": "1 / 0\n",
        "explosive/conf/reward/boom.yaml": "_target_: explosive.It\n",
    }
    install(site, "explosive", "explosive", explosive)
    assert feedtune("plugins").code == 0
    assert feedtune("train", "--help").code == 0
    said = feedtune("train", "reward=boom", f"hydra.run.dir={site / 'run'}")
    assert said.code == 2
    assert "reward._target_: cannot import 'explosive.It': ZeroDivisionError" in said.err


@pytest.mark.parametrize("package", ["nowhere_to_be_found", "polite"])
def test_a_plugin_without_options_is_named(package: str, site: Path, feedtune: Any) -> None:
    files = {"polite/__init__.py": ""} if package == "polite" else {}
    install(site, "hollow", package, files)
    said = feedtune("plugins")
    assert "broken plugin: hollow 1.2: " in said.out
    assert f"the package '{package}' has no folder conf/ (entry point 'hollow')" in said.out
    assert json.loads(feedtune("plugins", "--json").out)["problems"]
    assert Provider("hollow", package, "hollow", "1.2", None, "none").options() == []


def test_conf_beside_the_packages_of_a_checkout_is_found(site: Path) -> None:
    """`checkout/src/polite` and `checkout/conf`, as in this repository."""
    (site / "checkout" / "src" / "polite").mkdir(parents=True)
    (site / "checkout" / "src" / "polite" / "__init__.py").touch()
    (site / "checkout" / "conf").mkdir()
    sys.path.insert(0, str(site / "checkout" / "src"))
    try:
        assert conf_folder("polite") == site / "checkout" / "conf"
    finally:
        sys.path.remove(str(site / "checkout" / "src"))
    assert conf_folder("json.tool") is None  # a package without options


def test_an_installation_without_conf_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "conf_folder", lambda package: None)
    with pytest.raises(RuntimeError, match="install it again"):
        own_conf()
