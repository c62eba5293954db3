"""What a user can get wrong in `feedtune train`: one or two lines that name it, exit code 2, no traceback."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import ConfigCompositionException

from feedtune.config.hydra_errors import explain
from feedtune.hub import _said
from small_runs import SMALL, overrides

TINY = overrides(Path("rows.jsonl"), "lstm", "ppo", "report=false", "hydra.run.dir=run")

DATA = {
    "empty.jsonl": b"",
    "broken.jsonl": b'{"prompt": "a"}\n{"prompt": \n',
    "column.jsonl": b'{"prompt": "a"}\n{"promt": "b"}\n',
    "latin.jsonl": b'{"prompt": "a"}\n{"prompt": "\xe9"}\n',
    "number.jsonl": b'{"prompt": "a"}\n{"prompt": 1}\n',
    "book.txt": b"One line,\nanother line,\nand no blank line.\n",
    "long.jsonl": b'{"prompt": "a"}\n{"prompt": "%s"}\n' % (b"b" * 80),
    "rewards.py": b"""
def raises(responses):
    raise KeyError("boom")
def miscounts(responses):
    return [1.0]
def silent(responses):
    return [None for _ in responses]
def says(responses):
    return "good"
def infinite(responses):
    return [0.0] * (len(responses) - 1) + [float("inf")]
def wants(responses, answer):
    return [0.0 for _ in responses]
""",
    "broken.py": b"def score(\n",
}


def with_backbone(*chosen: str) -> list[str]:
    """The same run on another backbone, with the tokenizer that this one brings or names."""
    return [*(one for one in TINY if not one.startswith(("backbone", "tokenizer"))), *chosen]


# what is typed -> words that the message must hold; more on types and on trust is in test_configs.py
MISTAKES: dict[str, list[str]] = {
    # options, keys and their types
    "algorithm=pp0": ["algorithm=pp0: there is no such option", "Did you mean 'ppo'?", "rloo, sft"],
    "+experiment=nope": ["experiment=nope", "quickstart_ppo"],
    "+reward/source@reward.sources.len=length": [
        "expected an option of 'reward', as in +reward@reward.sources.len=length"
    ],
    "+rewrd@reward.sources.len=length": [
        "there is no group 'rewrd'. Did you mean 'reward'? Groups: algorithm,"
    ],
    "optimizerr=adam": ["optimizerr", "Did you mean 'optimizer'?"],
    "optimizer.lrr=1": ["optimizer.lrr", "Did you mean 'lr'?", "weight_decay"],
    "task.eval_pth=x": ["task.eval_pth", "Did you mean 'eval_path'?"],  # of the chosen task, not the default
    "optimizer.lr.deeper=1": ["optimizer.lr.deeper: there is no such key"],
    "algorithm.kl={coeficient: 1}": ["algorithm.kl.coeficient", "Did you mean 'coefficient'?"],
    "+foo.bar=1": ["foo: there is no such key"],
    "+optimizer.lr=1": ["optimizer.lr", "already"],
    "+reward.tarket=1": ["reward.tarket: unknown key. Did you mean 'target'?"],
    "~optimizer.foo": ["optimizer.foo", "does not exist"],
    "optimizer=null": ["optimizer=null: expected an option", "adamw, asgd", "~optimizer leaves it out"],
    "~seed": ["the config lacks seed"],
    "optimizer.lr=abc": ["optimizer.lr: expected a number, got 'abc'"],
    "+optimizer.foo=1": ["optimizer.foo: unknown key", "It has: lr, betas, eps, weight_decay"],
    "optimizer.lr=-1": ["optimizer", "learning rate: -1"],
    "seed=-1": ["seed: expected a whole number from 0", "got -1"],
    "trust=os": ["trust: expected a list, each entry text, got 'os'"],
    "init_from=nowhere": ["init_from: nowhere does not exist"],
    "init_from=.": ["init_from: . is neither a run of feedtune nor a model that a backbone opens"],
    "trainer.precision=bf16-true": ["trainer.precision=bf16-true: ", "to 16 bits; bf16-mixed computes"],
    "trainer.max_epochs=0": ["trainer.max_epochs: expected at least 1", "got 0"],
    "trainer.max_steps=0": ["trainer.max_steps: expected at least 1", "got 0"],
    "trainer=gpu": ["trainer=gpu", "no GPU", "choose trainer=cpu"],
    "trainer.max_epochs=-5": ["trainer", "-5"],
    "trainer.max_time=soon": ["trainer", "soon", "DD:HH:MM:SS"],
    "trainer.accelerator=abacus": ["trainer", "abacus", "cpu"],
    "parameter_groups={valve: {lr: 1}}": ["parameter_groups.valve", "value"],
    "parameter_groups={value: {lrr: 1}}": ["parameter_groups.value.lrr", "Did you mean 'lr'?"],
    "scheduler.warmup=-1": ["scheduler.warmup: expected at least 0, got -1"],
    "checkpoint.every_epochs=0": ["checkpoint", "at least 1"],
    "evaluation.every=0": ["evaluation.every: expected at least 1, got 0"],
    "collector.group_size=3": ["collector.group_size: 3 does not divide collector.responses=8"],
    "buffer.minibatches=9": ["buffer.minibatches: 9 are more than the 8 rows"],
    "reward.target=${nothere}": ["reward.target: Interpolation key 'nothere' not found"],
    "reward=function": ["reward.path: not given"],
    "~reward": ["reward", "choose one with reward=..."],
    "hydra.run.dir=/proc/nowhere/run": ["hydra.run.dir", "/proc/nowhere/run"],
    # syntax
    "optimizer.lr=[1": ["'optimizer.lr=[1'", "Quote"],
    "What's up?": ["What's up?", "expected key=value"],
    "backbone=lstm,gru": ["backbone=lstm,gru", "--multirun"],
    # data
    "task.path=rowz.jsonl": ["task.path: no file or folder 'rowz.jsonl'", "Did you mean 'rows.jsonl'?"],
    "task.path=???": ["task.path: not given"],
    "task.path=empty.jsonl": ["task.path", "'empty.jsonl' is empty"],
    "task.path=broken.jsonl": ["broken.jsonl:2: not JSON"],
    "task.path=column.jsonl": ["column.jsonl:2: expected a column 'prompt'", "Did you mean 'prompt'?"],
    "task.path=number.jsonl": ["number.jsonl:2: 'prompt' must be text or a list of messages, got int"],
    "task.path=latin.jsonl": ["latin.jsonl:2: not UTF-8"],
    "task.columns={prompt: question}": ["rows.jsonl:1: no column 'question', found 'prompt'"],
    # on-policy training draws from the policy's own distribution
    "collector.decoding.top_p=0.9": ["collector.decoding", "another distribution"],
    "collector.decoding.top_k=5": ["collector.decoding", "another distribution"],
    "collector.decoding.repetition_penalty=1.3": ["collector.decoding", "another distribution"],
    # what may be called
    "reward._target_=os.system": ["reward._target_: 'os.system' is not trusted", "trust=[os]"],
    "+callbacks.mine={_target_: os.system, command: touch pwned}": ["callbacks.mine._target_: 'os.system'"],
    "+trainer.plugins=[[{_target_: os.system, command: touch pwned}]]": ["trainer.plugins[0][0]._target_"],
}


@pytest.fixture
def place(rows: Path) -> Path:
    """The working directory with good rows, and all the bad files beside them."""
    for name, data in DATA.items():
        (rows.parent / name).write_bytes(data)
    return rows.parent


def refused(said: Any, words: list[str]) -> None:
    """Exit code 2, and one message of at most two lines that holds these words."""
    assert said.code == 2, said
    assert said.err.startswith("feedtune: ")
    assert said.err.count("\n") <= 2
    assert "Traceback" not in said.err
    assert [word for word in words if word not in said.err] == [], said.err


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_told_in_a_line(typed: str, place: Path, feedtune: Any) -> None:
    refused(feedtune("train", *TINY, typed), MISTAKES[typed])
    assert not (place / "pwned").exists()
    assert not (place / "run" / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("./rewards.py:raises", ["./rewards.py:raises raised KeyError: 'boom'", "rewards.py, line 3"]),
        ("./rewards.py:miscounts", ["./rewards.py:miscounts", "expected 8 scores", "(1,)"]),
        ("./rewards.py:silent", ["reward.path=./rewards.py:silent: every one of 8 scores is NaN"]),
        ("./rewards.py:says", ["./rewards.py:says", "expected 8 numbers, got str"]),
        ("./rewards.py:infinite", ["./rewards.py:infinite", "the score of row 8 is infinite"]),
        ("./rewards.py:wants", ["wants 'answer'", "prompt, reference"]),
        ("./rewards.py:rises", ["no 'rises'", "Did you mean 'raises'?"]),
        ("./rewords.py:raises", ["no file 'rewords.py'", "Did you mean 'rewards.py'?"]),
        ("./broken.py:score", ["importing './broken.py' failed with SyntaxError"]),
        ("rewards", ["reward.path: expected module:function"]),
        ("nowhere_at_all:score", ["no module named 'nowhere_at_all'"]),
    ],
)
def test_a_reward_function_that_does_not_do(path: str, words: list[str], place: Path, feedtune: Any) -> None:
    refused(feedtune("train", *TINY, "reward=function", f"reward.path={path}"), words)


def test_a_prompt_longer_than_the_context(place: Path, feedtune: Any) -> None:
    path = ["task.path=long.jsonl", "task.eval_fraction=0"]
    said = feedtune("train", *with_backbone(*SMALL["transformer"], "tokenizer=char"), *path)
    refused(said, ["row 2 ('bbbb", "80 tokens", "collector.max_new_tokens=4", "context holds 64"])
    assert "raise backbone.context_length" in said.err


@pytest.mark.parametrize(
    ("module", "typed", "package", "extra"),
    [
        ("vaderSentiment", ["reward=sentiment"], "vaderSentiment", "sentiment"),
        ("profanity_check", ["reward=toxicity"], "alt-profanity-check", "toxicity"),
        ("nltk", ["reward=rouge", "reward.stem=true"], "nltk", "metrics"),
        ("chitchat_dataset", ["task=chitchat"], "chitchat-dataset", "chitchat"),
        ("datasets", ["task=datasets", "task.path=somewhere"], "datasets", "data"),
        ("pyarrow.parquet", ["task=parquet", "task.path=rows.parquet"], "pyarrow", "data"),
        ("peft", ["backbone.lora={rank: 2}"], "peft", "lora"),
        ("tensorboard", ["logger=tensorboard"], "tensorboard", "tensorboard"),
    ],
)
def test_a_missing_extra_is_named(
    module: str,
    typed: list[str],
    package: str,
    extra: str,
    place: Path,
    model_folder: Path,
    feedtune: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = [name for name in sys.modules if name.startswith(f"{module}.")]
    for name in (module, *loaded):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails, as if it were not installed
    base = with_backbone("backbone=hf", f"backbone.name={model_folder}") if extra == "lora" else TINY
    another_task = typed[0].startswith("task")
    kept = [one for one in base if not (another_task and one.startswith("task"))]
    said = feedtune("train", *kept, *typed)
    refused(said, [f"needs the package '{package}'", f"pip install 'feedtune[{extra}]'"])


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_a_folder_that_holds_a_run_is_left_alone(place: Path, feedtune: Any) -> None:
    assert feedtune("train", *TINY).code == 0
    before = files_of(place / "run")
    assert {"metrics.csv", ".hydra/config.yaml", "export/feedtune.json"} <= set(before)
    assert any(name.startswith("checkpoints/step-") for name in before)
    said = feedtune("train", *TINY, "optimizer.lr=0.5")
    refused(said, ["hydra.run.dir: run already holds a run", "feedtune resume run"])
    assert files_of(place / "run") == before


def test_a_sweep_runs_each_job_and_is_left_alone_too(place: Path, feedtune: Any) -> None:
    typed = [*TINY, "trainer.max_epochs=1", "hydra.sweep.dir=sweep", "--multirun", "seed=1,2"]
    assert feedtune("train", *typed).code == 0
    seeds = [(place / "sweep" / job / ".hydra" / "overrides.yaml").read_text() for job in ("0", "1")]
    assert ["- seed=1\n" in seeds[0], "- seed=2\n" in seeds[1]] == [True, True]
    before = files_of(place / "sweep")
    refused(feedtune("train", *typed), ["hydra.sweep.dir: sweep already holds runs"])
    assert files_of(place / "sweep") == before


def test_a_mistake_in_one_job_of_a_sweep_stops_only_that_job(place: Path, feedtune: Any) -> None:
    typed = [*TINY, "trainer.max_epochs=1", "hydra.sweep.dir=sweep", "reward.target=0,3", "-m"]
    said = feedtune("train", *typed)
    refused(said, ["reward.target"])
    assert not (place / "sweep" / "0" / "metrics.csv").exists()
    assert (place / "sweep" / "1" / "metrics.csv").exists()


def test_the_folder_of_a_start_that_failed_can_be_used_again(place: Path, feedtune: Any) -> None:
    assert feedtune("train", *TINY, "task.path=nowhere.jsonl").code == 2
    assert feedtune("train", *TINY).code == 0


def test_a_tokenizer_without_pad_token_is_handled(place: Path, model_folder: Path, feedtune: Any) -> None:
    assert json.loads((model_folder / "tokenizer_config.json").read_text())["pad_token"] is None
    said = feedtune("train", *with_backbone("backbone=hf", f"backbone.name={model_folder}"))
    assert said.code == 0, said.err
    saved = json.loads((place / "run" / "export" / "generation_config.json").read_text())
    assert saved["pad_token_id"] == saved["eos_token_id"] == 1  # <eos>, second after <pad> in the vocabulary


def test_names_that_the_user_trusts_may_be_called(place: Path, feedtune: Any) -> None:
    (place / "mine_trusted.py").write_text(
        "from collections import Counter as Reexported\n"
        "class Mine:\n"
        "    def __call__(self, samples): return [1.5 for _ in samples]\n"
    )
    typed = [*TINY, "~reward", "+reward._target_=mine_trusted.Mine"]
    sys.path.append(str(place))
    try:
        refused(feedtune("train", *typed), ["'mine_trusted.Mine' is not trusted", "trust=[mine_trusted]"])
        said = feedtune("train", *typed, "trust=[mine_trusted]")
    finally:
        sys.path.remove(str(place))
    assert said.code == 0
    assert "rollout/reward 1.5" in said.out


def test_a_reward_function_of_the_working_directory_needs_no_flag(place: Path, feedtune: Any) -> None:
    (place / "own_rewards.py").write_text("def score(responses):\n    return [2.5 for _ in responses]\n")
    for number, path in enumerate(["./own_rewards.py:score", "own_rewards:score"]):
        said = feedtune(
            "train", *TINY, f"hydra.run.dir=run{number}", "reward=function", f"reward.path={path}"
        )
        assert "rollout/reward 2.5" in said.out, said.err


# Names on the hub, which cannot be reached


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that refuses every connection at once: what the libraries print about it is the same."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    ("typed", "key"),
    [
        (["backbone=hf", "backbone.name=nobody/nomodel"], "backbone.name"),
        (["task=datasets", "task.path=nodata"], "task.path"),
    ],
)
def test_a_hub_that_cannot_be_reached(typed: list[str], key: str, place: Path, feedtune: Any) -> None:
    _said.clear()
    name = typed[1].partition("=")[2]
    group = typed[0].partition("=")[0]
    base = with_backbone() if group == "backbone" else [one for one in TINY if not one.startswith("task")]
    said = feedtune("train", *base, *typed)
    assert said.code == 2
    first, second = said.err.splitlines()
    assert first == f"fetching '{name}' from the Hugging Face hub, as there is no such folder"
    assert second.startswith(f"feedtune: {key}: ")
    assert f"no folder '{name}' here" in second
    assert said.out == ""


def test_a_folder_that_is_not_there_is_the_backbones_name(place: Path, feedtune: Any) -> None:
    said = feedtune("train", *with_backbone("backbone=hf", "backbone.name=/nope"))
    refused(said, ["backbone.name: no folder '/nope'"])
    assert "tokenizer" not in said.err


# One row, one job, no report


def test_a_text_without_blank_lines_is_one_row(place: Path, feedtune: Any) -> None:
    sft = overrides(Path("rows.jsonl"), "lstm", "sft", "report=false", "hydra.run.dir=run")
    base = [one for one in sft if not one.startswith("task")]
    text = [*base, "task=text", "task.path=book.txt"]
    refused(feedtune("train", *text), ["'book.txt' is one paragraph without blank lines", "task.unit=line"])
    assert feedtune("train", *text, "task.unit=line", "trainer.max_epochs=1").code == 0


def test_a_silent_source_of_a_sum_is_named(place: Path, feedtune: Any) -> None:
    typed = [
        "reward=sum",
        "+reward@reward.sources.mute=function",
        "reward.sources.mute.path=./rewards.py:silent",
    ]
    typed += ["+reward@reward.sources.short=length"]
    refused(
        feedtune("train", *[one for one in TINY if not one.startswith("reward")], *typed),
        ["sources mute of reward 'Sum': every one of 8 scores is NaN"],
    )


def test_the_job_of_a_sweep_that_fails_is_named(place: Path, feedtune: Any) -> None:
    typed = [*TINY, "trainer.max_epochs=1", "hydra.sweep.dir=sweep", "reward.target=0,3", "-m"]
    said = feedtune("train", *typed)
    refused(said, [f"feedtune: reward.target=0 ({place / 'sweep' / '0'}): reward.target"])


def test_a_report_that_cannot_be_drawn_is_told(
    place: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = feedtune("train", *[one for one in TINY if one != "report=false"], "trainer.max_epochs=1")
    assert said.code == 0
    [line] = [line for line in said.out.splitlines() if line.startswith("report:")]
    assert "report.html was not written" in line
    assert "pip install 'feedtune[report]'" in line
    assert not (place / "run" / "feedtune.log").exists()


def test_a_file_whose_own_choices_do_not_fit_is_told_once(tmp_path: Path) -> None:
    """What is wrong in an option's own defaults is no key of the user's, and asking again would never end."""
    text = "In 'algorithm/mine': Could not override 'rewart'. No match in the defaults list."
    assert explain(ConfigCompositionException(text), ["algorithm=mine"]) == text


# On-policy algorithms and what others said


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("collector=offline", ["collector: Offline reads what others said", "Leave the collector out"]),
        ("collector=pairs", ["collector: Pairs reads what others said", "Leave the collector out"]),
        ("buffer=replay", ["buffer: Replay brings back what earlier policies said", "Leave the buffer out"]),
    ],
)
def test_an_on_policy_algorithm_learns_from_its_own_policy(
    typed: str, words: list[str], place: Path, feedtune: Any
) -> None:
    said = feedtune("train", *[one for one in TINY if not one.startswith(typed.split("=")[0])], typed)
    refused(said, [*words, "PolicyGradient is right only for"])
