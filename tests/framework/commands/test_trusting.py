"""A folder is not the user: what its config would run of its own is asked for by `--trust`."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feedtune.config import trust
from feedtune.errors import UserError
from feedtune.runs.export import load
from small_runs import overrides, write_rows

EVIL = """\
from pathlib import Path
from feedtune_plugins.backbones.ngram import NGram
Path("canary").mkdir(exist_ok=True)
def score(responses):
    return [0.25 for _ in responses]
class Net(NGram):
    pass
class Listener:
    pass
"""


@pytest.fixture(autouse=True)
def nobody_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of its own: what other tests have typed is forgotten."""
    monkeypatch.setattr(trust, "_trusted_by_user", [])
    monkeypatch.setattr(trust, "_code_of_user", set())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory with evil.py, which leaves a canary wherever it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text(EVIL)
    yield tmp_path
    import sys

    sys.modules.pop("evil", None)


@pytest.fixture
def finished(lstm_run: Path, place: Path) -> Path:
    """A run folder that may be written into."""
    shutil.copytree(lstm_run, place / "run")
    return place / "run"


def edit(folder: Path, old: str, new: str) -> None:
    """Change the config of a run, as somebody may who passes it on."""
    file = folder / ".hydra" / "config.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


FUNCTION = "_target_: feedtune_plugins.rewards.function.Function\n  path: ./evil.py:score"
SERVER = "_target_: feedtune_plugins.rewards.http.Http\n  url: http://127.0.0.1:9/x\n  token_env: HOME"


def names_code(folder: Path, reward: str = FUNCTION) -> None:
    """Let the run's reward be a function by its path, or a server."""
    file = folder / ".hydra" / "config.yaml"
    before, _, after = file.read_text().partition("reward:\n")
    rest = after[after.index("\n") :].split("\n")
    kept = next(n for n, line in enumerate(rest) if line and not line.startswith(" "))
    file.write_text(f"{before}reward:\n  {reward}\n" + "\n".join(rest[kept:]))


def test_a_saved_function_is_run_only_when_trusted(finished: Path, place: Path, feedtune: Any) -> None:
    names_code(finished)
    for command in ("resume", "evaluate"):
        said = feedtune(command, str(finished))
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert f"{finished}/.hydra/config.yaml: this would run or call what the run itself names" in said.err
        assert "reward.path=./evil.py:score. If you know what it does, add --trust" in said.err
    assert not (place / "canary").exists()
    assert feedtune("evaluate", str(finished), "--trust").code == 0
    assert (place / "canary").is_dir()


def test_a_saved_server_is_asked_only_when_trusted(finished: Path, feedtune: Any) -> None:
    """It could be sent whatever files the saved task names, and whatever the environment holds."""
    names_code(finished, SERVER)
    said = feedtune("evaluate", str(finished))
    assert said.code == 2
    assert "names: reward.url=http://127.0.0.1:9/x, reward.token_env=HOME. If you know" in said.err
    assert feedtune("evaluate", str(finished), "reward=length").code == 0


def test_a_run_of_ones_own_is_asked_for_too(
    place: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may have been edited since; what was typed needs no word more."""
    typed = overrides(write_rows(place), "ngram", "ppo", "report=false", "hydra.run.dir=run")
    typed += ["reward=function", "reward.path=./evil.py:score", "trainer.max_epochs=1"]
    assert feedtune("train", *typed).code == 0
    shutil.rmtree(place / "canary")
    assert feedtune("evaluate", "run").code == 0  # this very process was told of it

    monkeypatch.setattr(trust, "_code_of_user", set())  # as the next one
    said = feedtune("resume", "run")
    assert said.code == 2
    assert "reward.path=./evil.py:score" in said.err
    assert feedtune("resume", "run", "--trust").code == 0
    assert feedtune("evaluate", "run").code == 0  # the user has said yes


def test_prefixes_of_a_saved_config_are_not_the_users(finished: Path, place: Path, feedtune: Any) -> None:
    edit(finished, "trust: []", "trust:\n- evil")
    for command in ("resume", "evaluate"):
        said = feedtune(command, str(finished))
        assert said.code == 2
        assert "would run or call what the run itself names: trust=[evil]" in said.err
    edit(finished, "callbacks:\n", "callbacks:\n  mine:\n    _target_: evil.Listener\n")
    said = feedtune("resume", str(finished))
    assert "itself names: callbacks.mine._target_=evil.Listener. If" in said.err
    assert not (place / "canary").exists()


@pytest.mark.parametrize(
    "lines",
    [
        ["reward=function", "reward.path=./evil.py:score"],
        [
            "~reward",
            "+reward={_target_: feedtune_plugins.rewards.function.Function, path: './evil.py:score'}",
        ],
        ["reward=sum", "+reward@reward.sources.x=function", "reward.sources.x.path=./evil.py:score"],
        ["+where=./evil.py:score", "reward=function", "reward.path=${where}"],
    ],
)
def test_saved_overrides_are_not_typed(lines: list[str], finished: Path, place: Path, feedtune: Any) -> None:
    file = finished / ".hydra" / "overrides.yaml"
    file.write_text(
        file.read_text() + "".join(f"- {json.dumps(line)}\n" for line in ["trust=[evil]", *lines])
    )
    said = feedtune("evaluate", str(finished), "evaluation.rows=1")
    assert said.code == 2
    assert "evil.py:score. If you know what it does, add --trust" in said.err
    assert not (place / "canary").exists()


def test_what_is_typed_beside_a_saved_run_is_the_users(finished: Path, place: Path, feedtune: Any) -> None:
    names_code(finished)
    chosen = ["reward=function", "reward.path=./evil.py:score", "evaluation.rows=2"]
    said = feedtune("evaluate", str(finished), *chosen)
    assert said.code == 0, said.err
    found = json.loads((finished / "evaluation.json").read_text())
    assert found["metrics"]["eval/reward"] == 0.25
    shutil.rmtree(place / "canary")
    assert feedtune("evaluate", str(finished), "reward=length").code == 0  # another one: nothing is run
    assert not (place / "canary").exists()


@pytest.mark.parametrize("text", ["- [", "- 'a=[1'", "!!python/object/apply:os.mkdir [canary]"])
def test_damaged_overrides_are_told(text: str, finished: Path, place: Path, feedtune: Any) -> None:
    (finished / ".hydra" / "overrides.yaml").write_text(text)
    said = feedtune("evaluate", str(finished), "evaluation.rows=1")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "overrides.yaml: cannot be read" in said.err
    (finished / ".hydra" / "config.yaml").write_text(text)
    assert feedtune("resume", str(finished)).code == 2
    assert not (place / "canary").exists()


def test_who_has_said_trust_is_not_told_to_say_it(finished: Path, place: Path, feedtune: Any) -> None:
    """--trust counts for what the config declares; a target beyond that takes the user's own prefix."""
    edit(finished, "_target_: feedtune_plugins.backbones.recurrent.Recurrent", "_target_: evil.Net")
    said = feedtune("resume", str(finished), "--trust")
    assert said.code == 2
    assert said.err.splitlines()[-1].endswith(
        "add trust=[evil] on the command line (generate and export, which take no overrides: --trust)"
    )
    assert not (place / "canary").exists()


def test_a_class_of_an_export_is_made_only_when_trusted(finished: Path, place: Path, feedtune: Any) -> None:
    typed = overrides(write_rows(place), "ngram", "sft", "report=false", "hydra.run.dir=own", "trust=[evil]")
    assert feedtune("train", *typed, "backbone._target_=evil.Net").code == 0
    shutil.rmtree(place / "canary")
    trust._trusted_by_user.clear()
    import sys

    sys.modules.pop("evil")
    for command in (
        ["generate", "own", "1"],
        ["export", "own", "out"],
        ["evaluate", "own"],
        ["resume", "own"],
    ):
        said = feedtune(*command)
        assert said.code == 2
        assert "evil.Net" in said.err
        assert "--trust" in said.err
    again = overrides(
        place / "rows.jsonl", "ngram", "sft", "report=false", "hydra.run.dir=next", "init_from=own"
    )
    said = feedtune("train", *[one for one in again if not one.startswith(("backbone", "tokenizer"))])
    assert "'evil.Net' is not trusted" in said.err
    with pytest.raises(UserError, match=r"backbone\.class: 'evil\.Net' is not trusted"):
        load("own")
    assert not (place / "canary").exists()
    assert feedtune("generate", "own", "1", "--trust").code == 0
    assert "is no model of transformers" in feedtune("export", "own", "out", "--trust").err  # which it is not
    assert type(load("own", trust=True).policy.backbone).__name__ == "Net"


# Hydra's own section, and its flags


@pytest.mark.parametrize(
    "typed",
    [
        "+hydra.callbacks.mine={_target_: os.mkdir, path: canary}",
        "+hydra.callbacks.mine={_target_: shutil.copy, src: evil.py, dst: canary}",
        "+hydra.callbacks={mine: {_target_: os.mkdir, path: canary}}",
        "+hydra.callbacks.mine={_target_: '${seed_of_evil}', path: canary}",
        "+hydra.callbacks.mine={_target_: feedtune.cli.main, arguments: [plugins]}",
        "hydra.callbacks.refuse_overwrite._target_=os.mkdir",
        "hydra.launcher._target_=os.mkdir",
        "hydra.sweeper._target_=os.mkdir",
        "+hydra.job_logging.handlers.mine='${oc.create:\"{(): os.mkdir, path: canary}\"}'",
        "+hydra.job_logging.handlers.mine={class: evil.Listener}",
        "+hydra.job_logging.filters.mine={x: 'ext://os.mkdir'}",
    ],
)
def test_hydra_builds_nothing_that_is_not_trusted(typed: str, place: Path, feedtune: Any) -> None:
    chosen = overrides(write_rows(place), "ngram", "sft", "report=false", "hydra.run.dir=run")
    said = feedtune("train", *chosen, typed)
    assert said.code == 2, said
    assert "is not trusted" in said.err
    assert "Traceback" not in said.err
    assert not (place / "canary").exists()
    assert not (place / "run").exists()


def test_hydra_goes_on_with_what_is_its_own(place: Path, feedtune: Any) -> None:
    chosen = overrides(write_rows(place), "ngram", "sft", "report=false", "trainer.max_epochs=1")
    said = feedtune("train", *chosen, "hydra.sweep.dir=s", "hydra/launcher=basic", "-m", "seed=1")
    assert said.code == 0, said.err
    assert (place / "s" / "0" / "metrics.csv").is_file()
    said = feedtune("train", *chosen, "-m", "hydra.sweeper.max_batch_size=1,2")
    assert "a sweep cannot go over what Hydra builds" in said.err


def test_a_pickle_of_hydras_is_not_read(place: Path, feedtune: Any) -> None:
    (place / "config.pickle").write_bytes(pickle.dumps(0)[:-2] + b"cos\nmkdir\n(S'canary'\ntR.")
    said = feedtune("train", "--experimental-rerun", "config.pickle")
    assert said.code == 2
    assert "config.pickle is a pickle, which can run anything" in said.err
    assert not (place / "canary").exists()


def test_a_runs_config_is_not_taken_for_the_users(finished: Path, place: Path, feedtune: Any) -> None:
    names_code(finished)
    for flags in (
        ["--config-dir", str(finished / ".hydra"), "--config-name", "config"],
        ["--config-dir", str(finished), "--config-name", ".hydra/config"],
        ["--config-path", str(finished / ".hydra")],
    ):
        said = feedtune("train", *flags)
        assert said.code == 2
        assert "is of a run, whose config is not the user's word" in said.err
    assert not (place / "canary").exists()


# Folders of transformers


@pytest.fixture
def downloaded(model_folder: Path, place: Path) -> Path:
    """A model's folder, as others may make it."""
    shutil.copytree(model_folder, place / "model")
    return place / "model"


def training(place: Path, *more: str) -> list[str]:
    """A tiny run of that model."""
    chosen = overrides(write_rows(place), "ngram", "sft", "report=false", "hydra.run.dir=run", *more)
    kept = [one for one in chosen if not one.startswith(("backbone", "tokenizer"))]
    return [*kept, "backbone=hf", "backbone.name=./model", "trainer.fast_dev_run=true"]


def test_pickled_weights_of_a_model_do_nothing(downloaded: Path, place: Path, feedtune: Any) -> None:
    (downloaded / "model.safetensors").unlink()
    (downloaded / "pytorch_model.bin").write_bytes(b"\x80\x02cos\nmkdir\nX\x06\x00\x00\x00canary\x85R.")
    said = feedtune("train", *training(place))
    assert (said.code, "backbone.name: cannot load './model'" in said.err) == (2, True), said
    assert not (place / "canary").exists()


def test_code_beside_a_model_is_never_run(downloaded: Path, place: Path, feedtune: Any) -> None:
    shutil.copy(place / "evil.py", downloaded / "evil.py")
    for file, kinds in {
        "config.json": ["AutoConfig", "AutoModelForCausalLM"],
        "tokenizer_config.json": ["AutoTokenizer"],
    }.items():
        said = json.loads((downloaded / file).read_text())
        names = {kind: "evil.Net" if kind != "AutoTokenizer" else ["evil.Net", None] for kind in kinds}
        (downloaded / file).write_text(json.dumps({**said, "auto_map": names}))
    assert feedtune("train", *training(place)).code in (0, 2)  # transformers' own class is taken, or none
    said = feedtune("train", *training(place, "hydra.run.dir=other"), "+backbone.trust_remote_code=true")
    assert (said.code, "backbone.trust_remote_code: unknown key" in said.err) == (2, True)
    assert not (place / "canary").exists()


def test_a_chat_template_is_kept_in_its_sandbox(downloaded: Path, place: Path, feedtune: Any) -> None:
    template = "{{ cycler.__init__.__globals__.os.mkdir('canary') }}"
    template += "{% for m in messages %}{{ m.content }}{% endfor %}"
    (downloaded / "chat_template.jinja").unlink(missing_ok=True)
    file = downloaded / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))
    said = feedtune("train", *training(place), "task.chat=true")
    assert (said.code, "chat template refuses this conversation" in said.err) == (2, True), said
    assert not (place / "canary").exists()


def test_a_tower_of_an_export_has_no_path(finished: Path) -> None:
    file = finished / "export" / "feedtune.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "towers": {"../../export": record["backbone"]}}))
    with pytest.raises(UserError, match=r"feedtune\.json: towers: expected names, got '\.\./\.\./export'$"):
        load(finished)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("backbone", r"backbone\.config: .*trust_remote_code"),
        ("policy", r"policy\.config: .*trust_remote_code"),
    ],
)
def test_arguments_that_a_class_does_not_have_are_told(part: str, message: str, finished: Path) -> None:
    file = finished / "export" / "feedtune.json"
    record = json.loads(file.read_text())
    record[part]["config"]["trust_remote_code"] = True
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match=message):
        load(finished)
