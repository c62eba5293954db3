"""A machine that has never seen W&B, and one run with everything on that many tests look at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from feedtune.cli import main
from small_runs import overrides, write_rows
from wandb_files import CANARY, Tracked, offline_run, repository

NAMES = ("MODE", "API_KEY", "PROJECT", "RUN_ID", "SWEEP_ID", "SWEEP_PARAM_PATH", "IDENTITY_TOKEN_FILE")


def forget_account(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """No key, no settings of W&B."""
    for name in NAMES:
        patch.delenv(f"WANDB_{name}", raising=False)
    patch.setenv("NETRC", str(folder / "netrc"))
    patch.setenv("WANDB_SILENT", "true")


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine that has never seen W&B."""
    forget_account(monkeypatch, tmp_path)


SETTINGS = [
    "logger=wandb",
    "logger.project=tuning",
    "logger.entity=crew",
    "logger.name=first",
    "logger.group=seeds",
    "logger.job_type=study",
    "logger.tags=[one,two]",
    "logger.notes='about lengths'",
    "logger.log_model=true",
]


@pytest.fixture(scope="session")
def tracked_run(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """`feedtune train` with everything on, in a Git repository whose remote has a key in its URL.

    The environment holds secrets, and a reward source prints one.
    """
    folder = tmp_path_factory.mktemp("tracked")
    (folder / "judging.py").write_text(
        "import os\n"
        "def score(responses):\n"
        "    print('asking with', os.environ['JUDGE_API_KEY'])\n"
        "    return [float(len(text)) for text in responses]\n"
    )
    repository(folder, f"https://{CANARY}4:x-oauth-basic@example.org/me/mine.git")
    chosen = overrides(write_rows(folder), "lstm", "ppo", *SETTINGS, "profile=true", "trainer.max_epochs=3")
    chosen += ["callbacks=default", "callbacks.alarms.first=1", "evaluation.every=1", "evaluation.rows=4"]
    chosen += ["reward=sum", "reward@reward.sources.sentiment=function"]
    chosen += ["reward.sources.sentiment.path=./judging.py:score"]
    with pytest.MonkeyPatch.context() as patch:
        forget_account(patch, folder)
        patch.chdir(folder)
        for number, name in enumerate(("JUDGE_API_KEY", "HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY")):
            patch.setenv(name, f"{CANARY}{number}")
        patch.setenv("WANDB_MODE", "offline")
        assert main(["train", *chosen, "report=false", "hydra.run.dir=run"]) == 0
        assert os.environ["WANDB_MODE"] == "offline"  # as it was
    return Tracked(folder / "run", offline_run(folder / "run"))
