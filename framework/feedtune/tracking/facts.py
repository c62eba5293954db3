"""What a run is, for those who compare it with others: its choices, values, versions and code."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from feedtune.checkpoints.manifest import versions
from feedtune.config.compose import to_plain
from feedtune.config.secrets import redacted

HYDRA = Path(".hydra") / "hydra.yaml"
"""Of a run folder: what Hydra knew of the command, the choices among them."""

BROUGHT = ("backbone", "tokenizer")
"""Groups whose values `init_from` brings, whatever was chosen."""


def run_facts(config: DictConfig, folder: Path) -> dict[str, Any]:
    """The run in plain values without secrets.

    Args:
        config: after `feedtune.runs.assembly.checked`.
        folder: of the run.

    Returns:
        The option of each group by the group's name (`{"algorithm": "ppo"}`, as far as Hydra knows them);
        `values`: the resolved config; `versions`: of the distributions that compute; `code`: the commit of
        the working directory, where that is in a Git repository, and whether a file has changed since.
    """
    plain = to_plain(config)
    chosen = choices(folder)
    if config.init_from is not None:
        chosen = {group: option for group, option in chosen.items() if group not in BROUGHT}
    commit, _ = code_version()
    facts = {**chosen, "values": plain, "versions": versions(plain)}
    if commit is not None:
        facts["code"] = {"commit": commit, "changed": _is_changed()}
    cleaned: dict[str, Any] = _redacted(facts)
    return cleaned


def choices(folder: Path) -> dict[str, str]:
    """The chosen option of each group, from what Hydra wrote into a run folder; none where it did not."""
    path = folder / HYDRA
    try:
        found = OmegaConf.select(OmegaConf.load(path), "hydra.runtime.choices") if path.is_file() else None
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return {}
    if not isinstance(found, DictConfig):
        return {}
    return {
        str(group): str(option)
        for group, option in found.items()
        if option is not None and group != "local" and not str(group).startswith("hydra/")
    }


def code_version() -> tuple[str | None, str | None]:
    """(commit, remote) of the working directory's Git repository; the remote without who logs in there.

    Neither with W&B's variable WANDB_DISABLE_GIT.
    """
    hidden = os.environ.get("WANDB_DISABLE_GIT", "").lower() in ("1", "true", "yes", "on")
    commit = None if hidden else _git("rev-parse", "HEAD")
    remote = _git("config", "--get", "remote.origin.url") if commit else None
    return commit, remote and without_login(remote)


def without_login(url: str) -> str:
    """A URL without what stands before its host: hosts of code take keys there, also as the user's name.

    >>> without_login("https://key:x-oauth-basic@example.org/me/mine.git"), without_login("git@host:me/mine")
    ('https://example.org/me/mine.git', 'git@host:me/mine')
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.netloc else url


def _is_changed() -> bool:
    """Whether a file that Git knows is not as in the commit."""
    return bool(_git("status", "--porcelain", "--untracked-files=no"))


def _git(*arguments: str) -> str | None:
    """What git says; None: nothing, or there is no git."""
    try:
        said = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return said.stdout.strip() or None if said.returncode == 0 else None


def _redacted(value: Any) -> Any:
    """Plain values, every text in them without secrets."""
    if isinstance(value, Mapping):
        return {redacted(str(key)): _redacted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inner) for inner in value]
    return redacted(value) if isinstance(value, str) else value
