"""`plugins_path=./my_plugins`: a folder of plugins without packaging, wherever options are chosen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from fake_plugins import POLITE, install, write
from feedtune.commands.pipeline import _pass_on
from feedtune.config import trust
from feedtune.config.compose import compose_config
from feedtune.config.discovery import own_conf, provider_of, providers, set_local
from feedtune.config.local_plugins import adopt, use
from feedtune.config.plugin_problems import problems
from feedtune.config.trust import is_trusted
from feedtune.errors import UserError
from feedtune.runs.export import load
from small_runs import overrides, write_rows

ACME = {
    "conf/reward/acme.yaml": "# reward=acme: a quarter of a point\n_target_: acme.Acme\nscore: 0.25\n",
    "conf/backbone/net.yaml": (
        "# backbone=net: an n-gram table\n"
        "defaults:\n  - /tokenizer@_global_.tokenizer: char\n  - _self_\n"
        "_target_: acme.Net\nn: 2\nbuckets: 64\n"
    ),
    "acme.py": (
        "from feedtune_plugins.backbones.ngram import NGram\n"
        "from helping import twice\n"
        "class Acme:\n"
        "    def __init__(self, score: float) -> None: self.score = score\n"
        "    def __call__(self, samples): return [twice(self.score) / 2] * len(samples)\n"
        "class Net(NGram): pass\n"
    ),
    "helping/__init__.py": "def twice(x): return 2 * x\n",
    "conftest.py": "",
    "_own.py": "",
    "notes.txt": "",
}
"""The first hour of an idea."""


@pytest.fixture
def place(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with rows and a folder of plugins in it."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my_plugins", ACME)
    write_rows(tmp_path)
    return tmp_path


def typed(*more: str, reward: str = "acme") -> list[str]:
    """A tiny run with the folder's reward."""
    chosen = overrides(Path("rows.jsonl").absolute(), "ngram", "ppo", "report=false", "trainer.max_epochs=1")
    kept = [one for one in chosen if not one.startswith("reward=")]
    return [*kept, "plugins_path=./my_plugins", f"reward={reward}", *more]


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trusted and imported is forgotten, as in the next command that a user calls."""
    monkeypatch.setattr(trust, "_trusted_by_user", [])
    monkeypatch.setattr(trust, "_code_of_user", set())
    monkeypatch.setattr(sys, "path", [one for one in sys.path if not one.endswith("my_plugins")])
    for name in ("acme", "helping"):
        sys.modules.pop(name, None)
    set_local(None)


def mean_reward(folder: Path) -> float:
    names, row = (folder / "metrics.csv").read_text().splitlines()[:2]
    return float(dict(zip(names.split(","), row.split(","), strict=True))["rollout/reward"])


# What it works for


def test_a_run_takes_its_reward_from_the_folder(place: Path, feedtune: Any) -> None:
    said = feedtune("train", *typed("hydra.run.dir=run"))
    assert said.code == 0, said.err
    assert mean_reward(place / "run") == 0.25
    run = place / "run"
    assert f'next: feedtune evaluate {run} --trust   or: feedtune generate {run} "Hello"\n' in said.out
    saved = OmegaConf.load(place / "run" / ".hydra" / "config.yaml")
    assert saved.plugins_path == str(place / "my_plugins")  # right in any working directory
    lines = OmegaConf.load(place / "run" / ".hydra" / "overrides.yaml")
    assert f"plugins_path='{place / 'my_plugins'}'" in lines


def test_a_sweep_goes_over_its_options_and_feedtunes_own(place: Path, feedtune: Any) -> None:
    said = feedtune("train", *typed("hydra.sweep.dir=s", "-m", reward="acme,length"))
    assert said.code == 0, said.err
    assert mean_reward(place / "s" / "0") == 0.25
    assert (place / "s" / "1" / "metrics.csv").is_file()


def test_help_cfg_and_a_wrong_name_know_it(place: Path, feedtune: Any) -> None:
    said = feedtune("train", "plugins_path=my_plugins", "reward=acme", "--help")
    assert said.code == 0, said.err
    assert "\n  acme                 a quarter of a point [plugins_path]\n" in said.out
    assert "\n  score: 0.25\n" in said.out
    assert "acme" not in sys.modules  # help imports nothing
    said = feedtune("train", "plugins_path=my_plugins", "reward=acm", "hydra.run.dir=run")
    assert (said.code, "Did you mean 'acme'?" in said.err) == (2, True)
    said = feedtune("train", "plugins_path=my_plugins", "reward=acme", "reward.scores=1", "hydra.run.dir=run")
    assert said.code == 2
    assert "reward.scores: there is no such key in 'reward'. Did you mean 'score'?" in said.err
    said = feedtune("train", "plugins_path=my_plugins", "reward=acme", "--cfg", "job")
    assert said.code == 0
    assert f"\nplugins_path: {place / 'my_plugins'}\n" in said.out
    assert feedtune("train", "reward=acme", "--help").code == 2  # it was of those commands


def test_the_command_that_further_processes_repeat_names_it(
    place: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning starts them with `sys.argv`, in whatever directory."""
    from feedtune.runs import training

    seen: list[str] = []
    monkeypatch.setattr(training, "train", lambda *given, **named: seen.extend(sys.argv) or {})
    assert feedtune("train", *typed("hydra.run.dir=run", "trainer.fast_dev_run=true")).code == 0
    assert seen[1] == "train"
    assert f"plugins_path='{place / 'my_plugins'}'" in seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "folder"),
    [
        (["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "hydra.run.dir=out"], "out"),
        (["hydra/launcher=joblib", "hydra.sweep.dir=out", "-m", "seed=0,1"], "out/1"),
    ],
    ids=["ddp", "joblib"],
)
def test_processes_that_others_start_know_it(how: list[str], folder: str, place: Path) -> None:
    command = [sys.executable, "-m", "feedtune.cli", "train", *typed(*how)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    assert mean_reward(place / folder) == 0.25


def test_stages_of_a_pipeline_know_it(place: Path, feedtune: Any) -> None:
    """Its list of stages lies in the folder too; the second stage goes on from the first one's class."""
    first = [one for one in typed() if not one.startswith(("plugins_path", "backbone"))]
    second = [one for one in first if not one.startswith("tokenizer")]
    stages = {
        "first": {"command": "train", "arguments": [*first, "backbone=net"]},
        "second": {"command": "train", "arguments": [*second, "init_from='${dir}/first'"]},
        "measured": {"command": "evaluate", "arguments": ["${dir}/second"]},
    }
    text = "# @package _global_\n" + OmegaConf.to_yaml({"name": "mine", "stages": stages})
    write(place / "my_plugins", {"conf/pipeline/mine.yaml": text})
    said = feedtune("pipeline", "plugins_path=./my_plugins", "pipeline=mine", "dir=all")
    assert said.code == 0, said.err
    assert mean_reward(place / "all" / "second") == 0.25
    record = json.loads((place / "all" / "second" / "export" / "feedtune.json").read_text())
    assert record["backbone"]["class"] == "acme.Net"
    assert (
        json.loads((place / "all" / "second" / "evaluation.json").read_text())["metrics"]["eval/reward"]
        == 0.25
    )


def test_a_stage_with_a_folder_of_its_own_keeps_that_alone() -> None:
    stages = {
        name: {"command": "train", "arguments": more}
        for name, more in {"given": ["seed=1"], "own": ["plugins_path=b"]}.items()
    }
    _pass_on("/a", stages)
    assert stages["given"]["arguments"] == ["plugins_path='/a'", "seed=1"]
    assert stages["own"]["arguments"] == ["plugins_path=b"]


def test_plugins_lists_it_and_what_is_wrong_with_it(place: Path, feedtune: Any) -> None:
    said = feedtune("plugins", "plugins_path=./my_plugins", "--json")
    assert said.code == 0, said.out
    folder = str(place / "my_plugins")
    row = {"group": "reward", "option": "acme", "class": "acme.Acme", "distribution": folder, "version": ""}
    assert {**row, "feedtune": ""} in json.loads(said.out)["options"]
    write(
        place / "my_plugins",
        {"conf/reward/bad.yaml": "_target_: acme.Nothing\n", "conf/reward/worse.yaml": ""},
    )
    said = feedtune("plugins", "plugins_path=./my_plugins")
    assert said.code == 1
    assert f"plugins_path {folder}: conf/reward/bad.yaml: 'acme' has no 'Nothing'; mend it there" in said.out
    assert f"plugins_path {folder}: conf/reward/worse.yaml: it has no _target_" in said.out
    said = feedtune("plugins", "reward=acme")
    assert (said.code, said.err) == (
        2,
        "feedtune: 'reward=acme': expected plugins_path=FOLDER; see feedtune plugins --help\n",
    )


def test_an_option_that_is_installed_too_cannot_be_chosen(place: Path, site: Path) -> None:
    install(site, "polite", "polite", POLITE)
    write(place / "my_plugins", {"conf/reward/polite.yaml": "_target_: acme.Acme\nscore: 1.0\n"})
    with pytest.raises(UserError, match=r"give the folder's another name, or pip uninstall polite$"):
        compose_config(["plugins_path=my_plugins", "reward=polite"])
    assert compose_config(["reward=polite"]).reward._target_ == "polite.Polite"


# Which folder, and how it is said


def test_composing_leaves_the_commands_folder_as_it_is(place: Path) -> None:
    assert adopt(["seed=1"]) == ["seed=1"]
    config = compose_config(["plugins_path=my_plugins", "reward=acme"])
    assert config.plugins_path == str(place / "my_plugins")
    assert is_trusted("acme.Acme")  # for what is built of it
    assert provider_of("acme.Acme") is None
    [absolute] = adopt(["plugins_path=my_plugins"])
    assert absolute == f"plugins_path='{place / 'my_plugins'}'"
    assert compose_config(["reward=acme"]).reward.score == 0.25  # the command's
    found = provider_of("acme.Acme")
    assert found is not None
    assert found.title == f"plugins_path {place / 'my_plugins'}"
    assert found.modules == ("acme", "helping")
    assert adopt([]) == []
    assert [p.name for p in providers()] == ["feedtune"]


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_path_is_what_the_shell_and_hydra_make_of_it(
    prefix: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = place / "it's mine, (1) a=b"
    shutil.copytree(place / "my_plugins", odd)
    escaped = str(odd).replace("'", "\\'")
    assert adopt([f"{prefix}plugins_path='{escaped}'"]) == [f"{prefix}plugins_path='{escaped}'"]
    assert compose_config([f"{prefix}plugins_path='{escaped}'", "reward=acme"]).plugins_path == str(odd)
    set_local(None)
    monkeypatch.setenv("HOME", str(place))
    expected = [f"{prefix}plugins_path='{place / 'my_plugins'}'"]
    shutil.rmtree(odd)
    for name in ("acme", "helping"):
        sys.modules.pop(name, None)
    assert adopt([f"{prefix}plugins_path='~/my_plugins'"]) == expected
    assert adopt([f"{prefix}plugins_path=${{oc.env:HOME}}/my_plugins"]) == expected
    assert adopt([f"{prefix}plugins_path=null"]) == [f"{prefix}plugins_path=null"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("plugins_path=nowhere", r"plugins_path: .*/nowhere: there is no such folder$"),
        ("plugins_path=rows.jsonl", r"plugins_path: .*/rows\.jsonl: there is no such folder$"),
        (
            "plugins_path=empty",
            r"plugins_path: .*/empty has no folder conf/; an option is a file such as .*acme",
        ),
        ("plugins_path='~nobody-at-all/x'", r"plugins_path: '~nobody-at-all/x' is no folder: "),
        (f"plugins_path={'x' * 5000}", r"plugins_path: 'x+' is no folder: "),
        ("plugins_path=a,b", r"plugins_path=a,b: expected one folder; a sweep goes over the options in it$"),
        ("plugins_path=3", r"plugins_path=3: expected a folder, got 3$"),
        ("plugins_path=[a]", r"plugins_path=\[a\]: expected a folder, got \['a'\]$"),
        ("plugins_path=[a,b]", r"plugins_path=\[a,b\]: expected one folder; plugins_path takes one only: "),
        ("plugins_path=", r"plugins_path=: expected a folder, got ''$"),
        ("plugins_path=${nowhere}", r"plugins_path=\$\{nowhere\}: Interpolation key 'nowhere' not found$"),
        ("plugins_path=it's", r"'plugins_path=it's': cannot be read\. Quote a path with blanks"),
        (f"plugins_path={own_conf().parent}", r"its options are feedtune's own, which need no plugins_path$"),
    ],
)
def test_what_is_no_folder_of_plugins(line: str, message: str, place: Path, feedtune: Any) -> None:
    (place / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        adopt([line])
    said = feedtune("train", line, "--help")
    assert (said.code, said.err.count("\n")) == (2, 1)


def test_two_folders_are_one_too_many(place: Path, feedtune: Any) -> None:
    said = feedtune("plugins", "plugins_path=my_plugins", "plugins_path=other")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert (
        "plugins_path=my_plugins plugins_path=other: expected one folder; plugins_path takes one" in said.err
    )


@pytest.mark.parametrize("name", ["torch.py", "os.py", "feedtune/__init__.py", "this.py", "yaml/__init__.py"])
def test_a_module_that_hides_an_installed_one(name: str, place: Path, feedtune: Any) -> None:
    write(place / "my_plugins", {name: "raise RuntimeError('imported')\n"})
    before = list(sys.path)
    said = feedtune("train", "plugins_path=my_plugins", "reward=acme", "--help")
    assert (said.code, said.err.count("\n")) == (2, 1)
    kept = str(place / "my_plugins" / name).removesuffix("/__init__.py")
    assert said.err.startswith(f"feedtune: plugins_path: {kept} has the name of an installed module, which")
    assert said.err.endswith("; give it another name\n")
    assert sys.path == before
    assert not is_trusted("os.system")


def test_what_is_no_plugin_may_have_any_name(place: Path) -> None:
    """A folder of data, tests, and a folder in the working directory that is no package."""
    write(place / "my_plugins", {"json/rows.jsonl": "", "tests/test_acme.py": "", "setup.py": ""})
    write(place, {"acme/readme.txt": ""})
    sys.path.insert(0, "")
    use("my_plugins")
    assert problems() == []
    assert compose_config(["reward=acme"]).reward._target_ == "acme.Acme"


def test_the_folder_may_be_the_working_directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place / "my_plugins")
    sys.path.insert(0, "")  # python -m
    assert compose_config(["plugins_path=.", "reward=acme"]).plugins_path == str(place / "my_plugins")


def test_its_modules_come_after_all_that_is_installed(place: Path) -> None:
    use("my_plugins")
    assert sys.path[-1] == str(place / "my_plugins")
    use("my_plugins")
    assert sys.path.count(str(place / "my_plugins")) == 1


# What others do with a saved run


@pytest.fixture
def finished(place: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with reward and backbone of the folder, whose process has ended."""
    kept = [one for one in typed() if not one.startswith("backbone")]
    said = feedtune("train", *kept, "backbone=net", "hydra.run.dir=run")
    assert said.code == 0, said.err
    assert f'feedtune generate {place / "run"} "Hello" --trust\n' in said.out
    another_process(monkeypatch)
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return place / "run"


def test_a_saved_folder_takes_part_only_when_trusted(
    finished: Path, place: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place / "my_plugins"
    for command in (["resume"], ["evaluate"]):
        said = feedtune(*command, str(finished))
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert (
            f"/.hydra/config.yaml: this would run or call what the run itself names: plugins_path={folder}"
            in said.err
        )
        assert said.err.endswith("If you know what it does, add --trust\n")
    said = feedtune("evaluate", str(finished), "evaluation.rows=2")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert (
        f"/.hydra/overrides.yaml: this would run or call what the run itself names: plugins_path={folder}"
        in said.err
    )
    assert not is_trusted("acme.Net")
    assert "acme" not in sys.modules
    said = feedtune("evaluate", str(finished), "--trust")
    assert said.code == 0, said.err
    another_process(monkeypatch)
    said = feedtune("evaluate", str(finished), "evaluation.rows=2", "--trust")
    assert said.code == 0, said.err
    another_process(monkeypatch)
    said = feedtune("resume", str(finished), "trainer.max_epochs=2", "--trust")
    assert said.code == 0, said.err
    assert len((finished / "metrics.csv").read_text().splitlines()) == 3


def test_the_command_may_name_it_instead(
    finished: Path, place: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the folder has been moved since."""
    shutil.move(place / "my_plugins", place / "ours")
    moved = (
        f"/.hydra/config.yaml: plugins_path: {place / 'my_plugins'}: there is no such folder any more. If "
        "it has been moved, name its new place: plugins_path=FOLDER\n"
    )
    for command in ("evaluate", "resume"):
        for more in ([], ["--trust"]):
            said = feedtune(command, str(finished), *more)
            assert (said.code, said.err) == (2, f"feedtune: {finished}{moved}")
    said = feedtune("evaluate", str(finished), "evaluation.rows=2", "--trust")
    assert (said.code, said.err) == (2, f"feedtune: {finished}{moved}")
    another_process(monkeypatch)
    said = feedtune("resume", str(finished), "trainer.max_epochs=2", "plugins_path=../ours")
    assert said.code == 0, said.err
    assert OmegaConf.load(finished / ".hydra" / "config.yaml").plugins_path == str(place / "ours")
    another_process(monkeypatch)
    said = feedtune("evaluate", str(finished), "plugins_path=../ours", "evaluation.rows=2")
    assert said.code == 0, said.err


def test_a_policy_of_the_folder_speaks_again_when_trusted(
    finished: Path, place: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place / "my_plugins"
    for command in (["generate", str(finished), "1"], ["export", str(finished), "out"]):
        said = feedtune(*command)
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert f"backbone.class: 'acme.Net' is of the folder {folder}, which is not trusted" in said.err
        assert said.err.endswith("If you know what it does, add --trust\n")
    assert "acme" not in sys.modules
    assert feedtune("generate", str(finished), "1", "--trust").code == 0
    another_process(monkeypatch)
    assert "is no model of transformers" in feedtune("export", str(finished), "out", "--trust").err
    another_process(monkeypatch)
    assert type(load(finished, trust=True).policy.backbone).__name__ == "Net"

    another_process(monkeypatch)
    shutil.move(folder, place / "ours")
    said = feedtune("generate", str(finished), "1", "--trust")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert (
        f"it was in {folder}, which is not there any more: put the folder back, or say PYTHONPATH=FOLDER"
        in said.err
    )
    monkeypatch.syspath_prepend(place / "ours")
    assert feedtune("generate", str(finished), "1", "--trust").code == 0


def test_a_run_that_begins_with_such_a_policy(
    finished: Path, place: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    left_out = ("backbone", "tokenizer", "plugins_path", "reward")
    begun = [one for one in typed("reward=length", f"init_from={finished}") if not one.startswith(left_out)]
    said = feedtune("train", *begun, "hydra.run.dir=next")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert f"add plugins_path={place / 'my_plugins'}" in said.err
    said = feedtune("train", *begun, "hydra.run.dir=next", "plugins_path=my_plugins")
    assert said.code == 0, said.err


def test_another_class_of_the_folder_is_no_way_around(finished: Path, place: Path, feedtune: Any) -> None:
    """A record that says a class is installed, and one that names a folder of its own."""
    file = finished / "export" / "feedtune.json"
    record = json.loads(file.read_text())
    write(place / "evil", {"conf/x/y.yaml": "", "evil.py": f"open({str(place / 'canary')!r}, 'w')\n"})
    record["backbone"] |= {"class": "evil.Net", "plugins_path": str(place / "evil")}
    file.write_text(json.dumps(record))
    said = feedtune("generate", str(finished), "1")
    assert (said.code, "'evil.Net' is of the folder" in said.err) == (2, True)
    assert str(place / "evil") not in sys.path
    assert not os.path.lexists(place / "canary")
