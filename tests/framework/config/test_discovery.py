"""Options of other distributions come in by the same door as feedtune's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fake_plugins import POLITE, install, write
from feedtune.config import discovery
from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.config.discovery import (
    Provider,
    conf_folder,
    options_of,
    own_conf,
    provider_of,
    providers,
)
from feedtune.config.option_files import class_of
from feedtune.config.trust import is_trusted
from small_runs import overrides, write_rows


def test_feedtunes_own_options_come_in_by_an_entry_point() -> None:
    first = providers()[0]
    assert (first.name, first.package, first.distribution) == ("feedtune", "feedtune", "feedtune")
    assert first.own
    assert first.conf == own_conf()
    assert first.problem is None
    assert ("algorithm", "ppo") in first.options()
    assert first.options() == sorted(first.options())
    assert {"adam", "adamw", "sgd"} <= set(options_of("optimizer"))
    assert options_of("optimiser") == []


def test_an_installed_plugin_is_found_listed_trusted_and_built(site: Path, feedtune: Any) -> None:
    assert not is_trusted("polite.Polite")
    providers.cache_clear()
    install(site, "polite-rewards", "polite", POLITE, requires=["feedtune>=0.1,<9", "torch"])
    assert [p.distribution for p in providers()] == ["feedtune", "polite-rewards"]
    assert "polite" in options_of("reward")
    assert "polite" not in sys.modules  # finding imports nothing
    listed = json.loads(feedtune("plugins", "--json").out)["options"]
    assert {
        "group": "reward",
        "option": "polite",
        "class": "polite.Polite",
        "distribution": "polite-rewards",
        "version": "1.2",
        "feedtune": "<9,>=0.1",
    } in listed
    reward = build(compose_config(["reward=polite"]).reward, "reward")
    assert type(reward).__name__ == "Polite"
    found = provider_of("polite.deep.Thing")
    assert found is not None
    assert found.title == "plugin polite-rewards 1.2"
    assert provider_of("politeness.Thing") is None


def test_its_option_stands_in_the_list_of_choices(site: Path, feedtune: Any) -> None:
    install(site, "polite-rewards", "polite", POLITE)
    said = feedtune("train", "reward=polit", "hydra.run.dir=" + str(site / "run"))
    assert said.code == 2
    assert "Did you mean 'polite'?" in said.err
    assert ", polite" in said.err.partition("Options of 'reward':")[2]
    rewards = feedtune("train", "--help").out.partition("\nreward\n")[2].partition("\nscheduler\n")[0]
    assert "\n  polite               half a point [polite-rewards]\n" in rewards
    assert feedtune("train", "reward=polite", "--help").out.count("_target_: polite.Polite") == 1
    assert "polite" not in sys.modules


def test_from_anywhere_and_swept_beside_feedtunes_own(
    site: Path, tmp_path: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that has nothing to do with either."""
    monkeypatch.chdir(tmp_path)
    install(site, "polite-rewards", "polite", POLITE)
    typed = overrides(write_rows(tmp_path), "ngram", "ppo", "report=false", "trainer.max_epochs=1")
    typed = [one for one in typed if not one.startswith("reward=")]
    said = feedtune("train", *typed, "hydra.sweep.dir=s", "-m", "reward=polite,length")
    assert (said.code, said.err.count("plugin")) == (0, 0), said.err
    first, row = (tmp_path / "s" / "0" / "metrics.csv").read_text().splitlines()
    scores = dict(zip(first.split(","), row.split(","), strict=True))
    assert float(scores["rollout/reward"]) == 0.5  # as polite has it
    assert (tmp_path / "s" / "1" / "metrics.csv").is_file()


def test_help_imports_no_plugin_and_nothing_heavy(tmp_path: Path) -> None:
    """What makes it quick, counted; seconds of the processor are measured in tests/framework/test_cli.py."""
    heavy = "{'torch', 'lightning', 'transformers', 'numpy', 'feedtune_plugins', 'explosive'}"
    install(
        tmp_path,
        "explosive",
        "explosive",
        {"explosive/__init__.py": "1 / 0\n", "explosive/conf/reward/boom.yaml": "_target_: explosive.It\n"},
    )
    code = (
        "import sys; from feedtune.cli import main\n"
        "for more in ([], ['train'], ['train', 'reward=boom']): assert main([*more, '--help']) == 0\n"
        f"print({heavy} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.count("\n  boom ") == 2
    assert done.stdout.endswith("set()\n")


def test_providers_come_in_the_same_order_always(site: Path) -> None:
    """Hydra takes an option from the first that has it."""
    for name in ("zebra", "aardvark", "middle"):
        install(site, name, name, {f"{name}/conf/reward/{name}.yaml": "_target_: x.Y\n"})
    assert [p.name for p in providers()] == ["feedtune", "aardvark", "middle", "zebra"]
    sources = compose_config(with_hydra=True).hydra.runtime.config_sources
    names = [one.provider for one in sources if one.schema == "file"]
    assert names == ["main", "aardvark", "middle", "zebra"]


def test_of_two_installations_the_first_on_the_path_counts(site: Path, tmp_path: Path) -> None:
    """As in an editable install over an older one."""
    install(site, "polite-rewards", "polite", POLITE, version="2.0")
    install(tmp_path / "later", "polite-rewards", "polite", {}, version="1.0")
    sys.path.append(str(tmp_path / "later"))
    assert [p.version for p in providers() if not p.own] == ["2.0"]


def test_an_impostor_is_not_feedtune(site: Path) -> None:
    files = {"evil/conf/reward/length.yaml": "_target_: evil.It\n"}
    install(site, "evil", "evil", files, entry_points="[feedtune.plugins]\nfeedtune = evil\n")
    assert [(p.distribution, p.own) for p in providers()] == [("feedtune", True), ("evil", False)]
    assert "feedtune_plugins" in compose_config(["reward=length"]).reward._target_


@pytest.mark.parametrize(
    ("value", "package"), [("polite:attribute", "polite"), ("polite [extra]", "polite"), ("polite", "polite")]
)
def test_an_entry_point_may_say_more_than_the_package(value: str, package: str, site: Path) -> None:
    install(site, "polite", "", POLITE, entry_points=f"[feedtune.plugins]\nx = {value}\n")
    assert [p.package for p in providers() if not p.own] == [package]
    assert "polite" in options_of("reward")


def test_conf_of_a_package_inside_another_is_found(site: Path) -> None:
    write(site, {"polite/__init__.py": "1 / 0\n", "polite/feedtune/conf/reward/x.yaml": "", "flat.py": ""})
    assert conf_folder("polite.feedtune") == site / "polite" / "feedtune" / "conf"
    assert "polite" not in sys.modules
    assert conf_folder("polite.nowhere") is None
    assert conf_folder("flat") is None  # a module has no folder
    assert conf_folder("") is None
    assert conf_folder("__main__") is None  # a module that says nothing of itself


def test_conf_beside_the_packages_of_a_checkout_is_found(site: Path) -> None:
    """`checkout/src/polite` and `checkout/conf`, as in this repository."""
    write(site, {"checkout/src/polite/__init__.py": "", "checkout/conf/reward/x.yaml": ""})
    sys.path.insert(0, str(site / "checkout" / "src"))
    assert conf_folder("polite") == site / "checkout" / "conf"
    assert conf_folder("json.tool") is None  # a package without options


def test_an_installation_without_conf_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "conf_folder", lambda package: None)
    with pytest.raises(RuntimeError, match="install it again"):
        own_conf()


def test_the_class_of_an_option_may_be_that_of_what_it_begins_with(site: Path) -> None:
    write(
        site,
        {
            "polite/__init__.py": "",
            "polite/conf/collector/kind.yaml": "defaults: [generate_groups, _self_]\ngroup_size: 2\n",
            "polite/conf/collector/kinder.yaml": "defaults: [/collector/kind@_here_, _self_]\n",
            "polite/conf/collector/around.yaml": "defaults: [around]\n",
            "polite/conf/collector/other.yaml": "defaults: [{/buffer@_global_.buffer: once}, _self_]\n",
        },
    )
    install(site, "polite", "polite", {})
    [polite] = [p for p in providers() if not p.own]
    ours = class_of(providers()[0], "collector", "generate")
    assert str(ours).startswith("feedtune_plugins.collectors.")
    classes = {option: class_of(polite, group, option) for group, option in polite.options()}
    assert classes == {"kind": ours, "kinder": ours, "around": None, "other": None}
    assert Provider("hollow", "hollow", "hollow", "1.2", None, "none").options() == []
