"""Secrets never reach a config, a file or a logger; everything that only looks like one is let through."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from feedtune.config.compose import compose_config
from feedtune.config.discovery import own_conf
from feedtune.config.secrets import looks_secret, redacted, refuse_secrets
from feedtune.errors import UserError
from small_runs import overrides, run

# None of them was ever anybody's: each is the alphabet in the form of its kind.
LETTERS = "Abcdefghij0123456789klmnopqrstuvwxyz"
FORMS = {
    "OpenAI": f"sk-proj-{LETTERS}",
    "Anthropic": f"sk-ant-api03-{LETTERS}",
    "Hugging Face": f"hf_{LETTERS}",
    "GitHub": f"ghp_{LETTERS}",
    "GitHub's finer ones": f"github_pat_{LETTERS}",
    "GitLab": f"glpat-{LETTERS}",
    "AWS": "AKIAABCDEFGHIJ012345",
    "Google": f"AIza{LETTERS[:35]}",
    "Slack": f"xoxb-{LETTERS}",
    "W&B": f"wandb_v1_{LETTERS}",
    "JWT": f"eyJ{LETTERS}.eyJ{LETTERS}.{LETTERS}",
    "header": f"Bearer {LETTERS}",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
    "32 bytes": f"{LETTERS}-_abcde=",
    "URL": "https://me:hunter2@example.com/v1",
}
CANARY = "canary-3c1f9e27b5d84"

HOLDING = """
api_key apiKey API_KEY X-Api-Key apikey token hf_token HF_TOKEN hub_token access_token auth_token
authToken use_auth_token bearer_token refresh_token secret client_secret secret_key
aws_secret_access_key password db_password passwd passphrase pwd auth Authorization authorization
credentials private_key ssh_key Cookie wandb_token signing_key
"""

HARMLESS = """
tokenizer token_ids tokens max_new_tokens pad_token eos_token bos_token unk_token eos_tokens
stop_token user_token token_type key keys keyword column path api_key_env token_env password_env env
num_env secretary author authors keypoints tokenize monkey hotkeys kv_heads key_value
parameter_groups pass passes compass
"""


def keys_in(node: Any) -> set[str]:
    """Every key of a YAML file, at any depth."""
    if isinstance(node, dict):
        return {str(key) for key in node}.union(*map(keys_in, node.values()))
    return set().union(*map(keys_in, node)) if isinstance(node, list) else set()


def test_no_key_and_no_value_that_we_ship_is_taken_for_a_secret() -> None:
    files = sorted(own_conf().rglob("*.yaml"))
    plain = [OmegaConf.to_container(OmegaConf.load(file), resolve=False) for file in files]
    keys = set().union(*map(keys_in, plain))
    assert len(files) > 70
    assert {"tokenizer", "max_new_tokens", "path", "eos_tokens", "target"} <= keys
    assert [key for key in sorted(keys) if looks_secret(key)] == []
    for one in plain:
        refuse_secrets(one)


@pytest.mark.parametrize(
    "key",
    HOLDING.split(),
)
def test_keys_that_hold_secrets(key: str) -> None:
    assert looks_secret(key)
    with pytest.raises(
        UserError, match=rf"^logger\.{key}: its name says that it is a secret, .*_env$"
    ) as caught:
        refuse_secrets({"logger": {key: CANARY}})
    assert CANARY not in str(caught.value)
    refuse_secrets({"logger": {key: None}, "reward": {f"{key}_env": "OPENAI_API_KEY", key: "???"}})


@pytest.mark.parametrize(
    "key",
    HARMLESS.split(),
)
def test_keys_that_do_not(key: str) -> None:
    assert not looks_secret(key)
    refuse_secrets({"tokenizer": {key: CANARY}, key: [CANARY]})


@pytest.mark.parametrize("kind", FORMS)
def test_forms_of_secrets(kind: str) -> None:
    for values in ({"reward": {"note": f"see {FORMS[kind]}"}}, {"a": [{"b": [FORMS[kind]]}]}):
        with pytest.raises(
            UserError, match=r"^(reward\.note|a\[0\]\.b\[0\]): it looks like a key or password"
        ) as caught:
            refuse_secrets(values)
        assert FORMS[kind][-12:] not in str(caught.value)
    with pytest.raises(UserError, match="name: it looks like a key"):
        refuse_secrets({}, [f"logger.name='{FORMS[kind]}'"])
    assert FORMS[kind] not in redacted(f"401: {FORMS[kind]} is unknown")


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn-intents-cleaned-2024-v2",  # a folder's name
        "risk-ABCDEFGHIJ0123456789",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",  # a commit
        "https://example.com:8000/v1/a@b",
        "hf_hub",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "Bearer",
        "${oc.env:HOME}",
    ],
)
def test_what_only_resembles_them(text: str) -> None:
    refuse_secrets({"path": text}, [f"task.path='{text}'"])
    assert redacted(text) == text


def test_values_of_the_environment_are_known_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_JUDGE_KEY", CANARY)
    monkeypatch.setenv("NOT_A_KEYHOLE", "another-long-enough-value")
    monkeypatch.setenv("SHORT_TOKEN", "feedtune")  # what stands anywhere by chance
    config = OmegaConf.create({"logger": {"project": "${oc.env:MY_JUDGE_KEY}"}})
    with pytest.raises(UserError, match=r"^logger\.project: it holds the value of .* MY_JUDGE_KEY") as caught:
        refuse_secrets(OmegaConf.to_container(config, resolve=True))
    assert CANARY not in str(caught.value)
    refuse_secrets({"project": "feedtune", "note": "another-long-enough-value"})
    assert redacted(f"GET /{CANARY}/feedtune") == "GET /<MY_JUDGE_KEY>/feedtune"


@pytest.mark.parametrize(
    "typed",
    [
        [f"+logger.api_key={CANARY}"],
        [f"+reward.headers={{Authorization: {CANARY}}}"],
        [f"+logger.token={CANARY}", "-m"],
        [f"+reward.password={CANARY},other", "-m"],
        [f"+hydra.job.env_set={{OPENAI_API_KEY: {CANARY}}}"],
        [f"+reward.headers=[{{x: 'Bearer {CANARY}'}}]"],
        ["logger=wandb", f"logger.project={CANARY}"],  # it is in the environment
    ],
)
def test_the_command_line_is_refused_before_anything_is_written(
    typed: list[str], rows: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "project" in typed[-1]:
        monkeypatch.setenv("WANDB_API_KEY", CANARY)
    chosen = overrides(
        Path("rows.jsonl"), "ngram", "sft", "report=false", "hydra.run.dir=run", "hydra.sweep.dir=sweep"
    )
    said = feedtune("train", *chosen, *typed)
    assert said.code == 2, said
    assert "written to disk and to loggers" in said.err
    assert CANARY not in said.err + said.out
    assert [path.name for path in rows.parent.iterdir()] == ["rows.jsonl"]


def test_each_key_of_the_users_is_named_once(
    rows: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the list beside its entry, nor what Hydra writes of the command line under keys of its own."""
    monkeypatch.setenv("JUDGE_API_KEY", CANARY)
    chosen = overrides(Path("rows.jsonl"), "ngram", "ppo", "reward=keyword", f"reward.words=[{CANARY},b]")
    said = feedtune("train", *chosen, "hydra.run.dir=run")
    assert said.code == 2
    assert [line.split(": it ")[0] for line in said.err.splitlines()] == ["feedtune: reward.words[0]"]


def test_configs_made_in_python_are_refused_too(rows: Path) -> None:
    config = compose_config(overrides(rows, "ngram", "sft", f"+parameter_groups.value.hf_token={CANARY}"))
    from feedtune.runs.training import train

    with pytest.raises(UserError, match=r"^parameter_groups\.value\.hf_token: its name says"):
        train(config, rows.parent / "run")
    assert not (rows.parent / "run").exists()


@pytest.mark.filterwarnings("ignore")  # of the loggers' own libraries
@pytest.mark.parametrize("logger", ["wandb", "tensorboard"])
def test_no_file_of_a_run_holds_a_secret_of_the_environment(
    logger: str, rows: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with everything on, byte by byte, W&B's binary file too; and the environment was really there."""
    names = ("WANDB_API_KEY", "HF_TOKEN", "OPENAI_API_KEY", "MY_SECRET")
    secrets = {name: f"{number}{CANARY}{number}" for number, name in enumerate(names)}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    chosen = overrides(Path("rows.jsonl"), "ngram", "ppo", "hydra.run.dir=run", "profile=true")
    chosen += [f"logger={logger}", "evaluation.every=1", "evaluation.rows=2"]
    said = feedtune("train", *chosen)
    assert said.code == 0, said.err
    files = [file for file in Path("run").rglob("*") if file.is_file()]
    names_found = {file.suffix for file in files}
    assert {".html", ".csv", ".jsonl", ".yaml", ".ckpt", ".json"} <= names_found
    assert (".wandb" in names_found) or any("tfevents" in file.name for file in files)
    for file in files:
        data = file.read_bytes()
        assert [name for name, value in secrets.items() if value.encode() in data] == [], file
    assert CANARY not in said.out + said.err
    assert os.environ["OPENAI_API_KEY"] == secrets["OPENAI_API_KEY"]


def test_error_texts_lose_them(rows: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of the user's that fails with its key in the message, as HTTP libraries do."""
    monkeypatch.setenv("JUDGE_API_KEY", CANARY)
    code = "import os\ndef score(responses):\n"
    code += "    raise OSError('GET https://x/?k=' + os.environ['JUDGE_API_KEY'])\n"
    (rows.parent / "judging.py").write_text(code)
    chosen = overrides(Path("rows.jsonl"), "ngram", "ppo", "report=false", "hydra.run.dir=run")
    said = feedtune("train", *chosen, "reward=function", "reward.path=./judging.py:score")
    assert said.code != 0
    assert "https://x/?k=<JUDGE_API_KEY>" in said.err
    assert CANARY not in said.err
    assert not any(CANARY.encode() in file.read_bytes() for file in Path("run").rglob("*") if file.is_file())


def test_tokenizer_and_weights_train_as_ever(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of an ordinary run is taken for a secret, whatever the environment holds."""
    monkeypatch.setenv("GITHUB_TOKEN", "0123456789abcdef0123")
    run(rows.parent / "run", overrides(rows, "lstm", "ppo", "trainer.max_epochs=1"))
