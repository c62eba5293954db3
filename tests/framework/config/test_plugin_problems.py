"""A broken plugin is named, with what to do, and stops nobody who does not choose it."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from fake_plugins import POLITE, SCORES, install
from feedtune.config.compatibility import misfit
from feedtune.config.compose import compose_config
from feedtune.config.discovery import own_conf, providers
from feedtune.config.option_files import class_of
from feedtune.config.plugin_problems import WITH_CLASS, broken_classes, problems, refuse_choices
from feedtune.config.trust import resolve
from feedtune.errors import UserError
from small_runs import overrides, write_rows


def one(name: str, option: str, text: str, code: str = f"class It:\n{SCORES}") -> dict[str, str]:
    """The files of a plugin with one option."""
    return {f"{name}/__init__.py": code, f"{name}/conf/{option}.yaml": text}


def lines() -> list[str]:
    return [str(problem) for problem in problems()]


def test_where_all_is_well_nothing_is_said(site: Path, feedtune: Any) -> None:
    install(site, "polite-rewards", "polite", POLITE, requires=[f"feedtune=={version('feedtune')}"])
    assert problems() == []
    assert broken_classes() == []
    said = feedtune("plugins")
    assert (said.code, "problem" in said.out) == (0, False)
    assert feedtune("train", "--help").err == ""


def test_keys_that_the_class_lacks(site: Path, feedtune: Any) -> None:
    code = f"class It:\n    def __init__(self, scale=1): pass\n{SCORES}"
    code += "class Any:\n    def __init__(self, **more): pass\n"
    text = "_target_: polite.It\nscael: 2\n_partial_: false\n"
    install(site, "polite", "polite", one("polite", "reward/kind", text, code))
    (site / "polite" / "conf" / "reward" / "any.yaml").write_text("_target_: polite.Any\nscael: 2\n")
    assert problems() == []
    [found] = broken_classes()
    assert found.what == (
        "conf/reward/kind.yaml: scael: polite.It has no such argument. Did you mean 'scale'?"
    )
    said = feedtune("plugins")
    assert said.code == 1
    assert "scael: polite.It has no such argument (did you mean 'scale'?); pip install --upgrade" in said.out


def test_plugins_stand_below_feedtunes_own(site: Path, feedtune: Any) -> None:
    install(site, "polite", "polite", one("polite", "backbone/kind", "_target_: polite.It\n"))
    lines = feedtune("plugins").out.splitlines()
    assert lines[-2] == ""  # after feedtune's own, whatever the group
    assert lines[-1].split()[:3] == ["backbone", "kind", "polite.It"]


# What is seen without importing


@pytest.mark.parametrize(
    ("files", "package", "what"),
    [
        ({}, "nowhere", "there is no package 'nowhere' (entry point 'hollow')"),
        ({}, "not a name", "there is no package 'not' (entry point 'hollow')"),
        (
            {"polite/__init__.py": "1 / 0\n"},
            "polite",
            "the package 'polite' (entry point 'hollow') has no folder conf/",
        ),
        ({"flat.py": "1 / 0\n"}, "flat", "there is no package 'flat' (entry point 'hollow')"),
    ],
)
def test_a_plugin_without_options(
    files: dict[str, str], package: str, what: str, site: Path, feedtune: Any
) -> None:
    install(site, "hollow", package, files)
    line = f"plugin hollow 1.2: {what}; pip install --upgrade hollow, or pip uninstall hollow"
    assert lines() == [line]
    said = feedtune("train", "--help")
    assert (said.code, said.err) == (0, f"feedtune: {line}\n")
    said = feedtune("plugins")
    assert said.code == 1
    assert said.out.endswith(f"\nproblem: {line}\n")


def test_entry_points_that_cannot_be_read(site: Path) -> None:
    install(site, "polite", "polite", POLITE)
    install(site, "garbled", "x", {}, entry_points="[feedtune.plugins]\nno equals sign\n")
    [line] = lines()
    assert line.startswith("plugin garbled 1.2: its entry points cannot be read: ")
    assert compose_config(["reward=polite"]).reward._target_ == "polite.Polite"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("_target_: [\n", "cannot be read: line 2: "),
        ("_target_: polite.It\n_target_: polite.It\n", "cannot be read: "),  # as Hydra has it: twice
        ("- polite.It\n", "expected a mapping, got "),
        ("weight: 1\n", "it has no _target_, the class or function that makes the reward"),
        ("# nothing\n", "it has no _target_, the class or function that makes the reward"),
    ],
)
def test_an_option_that_describes_nothing(text: str, what: str, site: Path, feedtune: Any) -> None:
    install(site, "polite", "polite", one("polite", "reward/rude", text))
    [line] = lines()
    assert line.startswith(f"plugin polite 1.2: conf/reward/rude.yaml: {what}")
    assert line.endswith("; pip install --upgrade polite, or pip uninstall polite")
    said = feedtune("train", "--help")
    assert (said.code, said.err) == (0, f"feedtune: {line}\n")
    said = feedtune("train", "reward=rude", "--help")
    assert said.code == 2
    assert said.err.count(line) == 1  # only as the reason why it ends
    assert said.err == f"feedtune: reward=rude: {line}\n"


def test_a_file_that_is_no_text(site: Path, feedtune: Any) -> None:
    install(site, "polite", "polite", one("polite", "reward/rude", ""))
    (site / "polite" / "conf" / "reward" / "rude.yaml").write_bytes(b"# \xff\n_target_: polite.It\n")
    [line] = lines()
    assert "conf/reward/rude.yaml: cannot be read: 'utf-8' codec" in line
    assert feedtune("train", "--help").code == 0
    assert feedtune("plugins").code == 1
    said = feedtune("train", "reward=rude", "--help")
    assert (said.code, line in said.err) == (2, True)


def test_what_has_no_class_of_its_own_needs_none(site: Path) -> None:
    files = {
        f"polite/conf/{group}/mine.yaml": "seed: 1\n"
        for group in ("experiment", "debug", "logger", "callbacks")
    }
    install(site, "polite", "polite", {"polite/__init__.py": "", **files})
    assert problems() == []


def test_feedtunes_own_options_of_these_groups_have_classes() -> None:
    own = providers()[0]
    found = {group: [] for group in WITH_CLASS}
    for group, option in own.options():
        if group in WITH_CLASS:
            found[group].append(class_of(own, group, option))
    assert all(classes and all(classes) for classes in found.values()), found


def test_a_group_that_is_spelt_wrong(site: Path) -> None:
    install(site, "polite", "polite", one("polite", "rewards/kind", "_target_: polite.It\n"))
    assert lines() == [
        "plugin polite 1.2: conf/rewards/kind.yaml: feedtune has no group 'rewards' (did you mean 'reward'?)"
        "; pip install --upgrade polite, or pip uninstall polite"
    ]
    install(site, "other", "other", one("other", "vocabularies/kind", "a: 1\n"))  # parts of its own
    providers.cache_clear()
    assert len(lines()) == 1


def test_a_folder_conf_without_options(site: Path) -> None:
    install(site, "polite", "polite", {"polite/conf/reward/kind.yml": "_target_: x.Y\n"})
    what = f"{site}/polite/conf holds no option: no file <group>/<option>.yaml"
    assert lines() == [f"plugin polite 1.2: {what}; pip install --upgrade polite, or pip uninstall polite"]


# The same option twice


def test_two_plugins_that_offer_the_same_option(site: Path, feedtune: Any) -> None:
    install(site, "alpha", "alpha", one("alpha", "reward/twice", "_target_: alpha.It\n"))
    install(site, "beta-plugin", "beta", one("beta", "reward/twice", "_target_: beta.It\n"), version="3")
    line = (
        "plugin alpha 1.2: reward=twice: offered by plugin beta-plugin 3 too, so that none of them can be "
        "chosen; keep one: pip uninstall alpha or pip uninstall beta-plugin"
    )
    assert lines() == [line]
    assert compose_config(["reward=length"]).reward._target_.endswith("Length")
    for typed in (["reward=twice"], ["reward=sum", "+reward@reward.sources.x=twice"]):
        with pytest.raises(UserError) as caught:
            compose_config(typed)
        assert str(caught.value) == f"reward=twice: {line}"
    said = feedtune("train", "reward=twice", f"hydra.run.dir={site / 'run'}")
    assert said.code == 2
    assert said.err == f"feedtune: reward=twice: {line}\n"
    assert not any(name in sys.modules for name in ("alpha", "beta"))


def test_a_sweep_goes_on_without_what_cannot_be_chosen(
    site: Path, tmp_path: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("alpha", "beta"):
        install(site, name, name, one(name, "reward/twice", f"_target_: {name}.It\n"))
    typed = overrides(write_rows(tmp_path), "ngram", "sft", "report=false", "trainer.max_epochs=1")
    said = feedtune("train", *typed, "hydra.sweep.dir=s", "-m", "reward=twice,length")
    assert said.code == 2
    assert "reward=twice: plugin alpha 1.2: " in said.err
    assert (tmp_path / "s" / "1" / "metrics.csv").is_file()


def test_feedtunes_own_option_cannot_be_taken_over(site: Path, feedtune: Any) -> None:
    ours = compose_config(["reward=length"]).reward
    install(
        site, "taker", "taker", one("taker", "reward/length", "# reward=length: theirs\n_target_: taker.It\n")
    )
    providers.cache_clear()
    line = (
        "plugin taker 1.2: reward=length: feedtune has an option of this name, and that is the one that is "
        "chosen; pip install --upgrade taker, or pip uninstall taker"
    )
    assert lines() == [line]
    assert compose_config(["reward=length"]).reward == ours
    said = feedtune("train", "--help")
    assert (said.code, said.err) == (0, f"feedtune: {line}\n")
    assert "theirs" not in said.out
    listed = json.loads(feedtune("plugins", "--json").out)
    assert [row["distribution"] for row in listed["options"] if row["option"] == "length"] == [
        "feedtune",
        "taker",
    ]


def test_many_options_of_the_same_two_are_one_line(site: Path) -> None:
    files = {
        f"taker/conf/buffer/{file.name}": "_target_: taker.It\n" for file in own_conf().glob("buffer/*.yaml")
    }
    files |= {
        f"taker/conf/tokenizer/{f.name}": "_target_: taker.It\n" for f in own_conf().glob("tokenizer/*.yaml")
    }
    install(site, "taker", "taker", {"taker/__init__.py": "", **files})
    [line] = lines()
    assert f" and {len(files) - 5} more: feedtune has" in line


# Versions


@pytest.mark.parametrize(
    ("requires", "which"),
    [
        ("feedtune>=99", "this feedtune is too old; pip install --upgrade feedtune"),
        ("feedtune[lora]<0.0.1", "the plugin is too old; pip install --upgrade later"),
    ],
)
def test_a_plugin_for_another_feedtune(requires: str, which: str, site: Path, feedtune: Any) -> None:
    files = one("later", "reward/later", "_target_: later.It\n", "1 / 0\n")
    install(site, "later", "later", files, requires=["torch", requires])
    asks = requires.removeprefix("feedtune").removeprefix("[lora]")
    said = f"it asks for feedtune {asks}, but {version('feedtune')} is installed: {which}"
    assert lines() == [f"plugin later 1.2: {said}"]
    assert feedtune("train", "--help").code == 0
    with pytest.raises(UserError) as caught:
        compose_config(["reward=later"])
    assert str(caught.value) == f"reward=later: plugin later 1.2: {said}"
    with pytest.raises(UserError) as caught:  # as a saved run names it, whose options are not composed again
        resolve("later.It", "reward._target_")
    assert str(caught.value) == f"reward._target_: 'later.It' is of plugin later 1.2: {said}"
    assert broken_classes() == []
    assert "later" not in sys.modules
    [row] = [
        row for row in json.loads(feedtune("plugins", "--json").out)["options"] if row["option"] == "later"
    ]
    assert row["feedtune"] == asks


@pytest.mark.parametrize(
    "line",
    ["feedtune", "feedtune-acme<0.0.1", "feedtune<0.0.1; extra == 'x'", "feedtune <<< 1", "Feedtune > 0"],
)
def test_what_asks_for_nothing_that_is_not_there(line: str, site: Path) -> None:
    install(site, "polite", "polite", POLITE, requires=[line])
    assert problems() == []


@pytest.mark.parametrize(
    ("asks", "running", "too_old"),
    [
        (">=0.1,<0.2", "0.1.0", None),
        (">=0.1,<0.2", "0.2.0", "acme"),
        ("~=0.3.1", "0.3.0", "feedtune"),
        ("~=0.3.1", "0.4.0", "acme"),
        ("==0.2", "0.3", "acme"),
        ("==0.4.*", "0.3", "feedtune"),
        (">0.3", "0.3", "feedtune"),
        ("!=0.3", "0.3", "acme"),
        (">=0.1", "0.2.dev1", None),  # a checkout between two releases
    ],
)
def test_who_of_the_two_is_too_old(asks: str, running: str, too_old: str | None) -> None:
    found = misfit("acme", asks, running)
    assert (found and found[1]) == (too_old and f"pip install --upgrade {too_old}")


# Classes


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import nowhere_to_be_found\n", "No module named 'nowhere_to_be_found'"),
        ("import sys; sys.exit(0)\n", "SystemExit: 0"),
        ("class it(:\n", "SyntaxError: invalid syntax"),
    ],
)
def test_a_class_that_cannot_be_imported(code: str, reason: str, site: Path, feedtune: Any) -> None:
    install(site, "explosive", "explosive", one("explosive", "reward/boom", "_target_: explosive.It\n", code))
    assert problems() == []  # nothing is to be seen yet
    assert feedtune("train", "reward=boom", "--help").code == 0
    said = feedtune("train", "reward=boom", "task=jsonl", "task.path=x", f"hydra.run.dir={site / 'run'}")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert said.err.startswith(f"feedtune: reward._target_: cannot import 'explosive.It': {reason}")
    whose = "(of plugin explosive 1.2; pip install --upgrade explosive, or pip uninstall explosive)\n"
    assert said.err.endswith(whose)
    said = feedtune("plugins")
    assert said.code == 1
    expected = f"problem: plugin explosive 1.2: conf/reward/boom.yaml: cannot import 'explosive.It': {reason}"
    assert expected in said.out


def test_every_broken_class_is_found_and_none_stops_the_others(site: Path, feedtune: Any) -> None:
    noisy = f"print('noise')\nclass It:\n{SCORES}"
    install(
        site, "explosive", "explosive", one("explosive", "reward/boom", "_target_: explosive.It\n", "1 / 0")
    )
    install(site, "noisy", "noisy", one("noisy", "reward/loud", "_target_: noisy.It\n", noisy))
    install(site, "absent", "absent", one("absent", "reward/gone", "_target_: absent.Itt\n"))
    install(site, "foreign", "foreign", one("foreign", "reward/alien", "_target_: os.system\n"))
    said = feedtune("plugins", "--json")
    assert said.code == 1
    assert said.err == "noise\n"
    found = {one["plugin"]: one for one in json.loads(said.out)["problems"]}
    assert found.keys() == {"explosive", "absent", "foreign"}
    assert found["absent"]["problem"] == "conf/reward/gone.yaml: 'absent' has no 'Itt'. Did you mean 'It'?"
    assert "'os.system' is not trusted" in found["foreign"]["problem"]
    assert found["explosive"] == {
        "plugin": "explosive",
        "distribution": "explosive",
        "version": "1.2",
        "options": ["reward=boom"],
        "problem": "conf/reward/boom.yaml: cannot import 'explosive.It': ZeroDivisionError: division by zero",
        "remedy": "pip install --upgrade explosive, or pip uninstall explosive",
    }


def test_choices_are_looked_at_by_group_wherever_they_go(site: Path) -> None:
    install(site, "polite", "polite", one("polite", "callbacks/rude", "a: [\n"))
    refuse_choices({"callbacks": "default", "reward": None, "debug": "rude", "hydra/launcher": "basic"})
    for choices in ({"callbacks": "rude"}, {"callbacks@here": "rude"}, {"callbacks": ["default", "rude"]}):
        with pytest.raises(
            UserError, match=r"^callbacks=rude: plugin polite 1\.2: conf/callbacks/rude\.yaml"
        ):
            refuse_choices(choices)


def test_of_several_processes_one_speaks(site: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "hollow", "nowhere", {})
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert feedtune("train", "--help").err == ""
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert feedtune("train", "--help").err.count("plugin hollow") == 1
