"""A place to install plugins into, which is forgotten with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from feedtune.config import local_plugins, plugin_problems, trust
from feedtune.config.discovery import providers, set_local


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path, in a process that has trusted and said nothing yet."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    for place, name, nothing in (
        (trust, "_trusted_by_user", []),
        (trust, "_code_of_user", set()),
        (plugin_problems, "_said", set()),
        (local_plugins, "_used", []),
    ):
        monkeypatch.setattr(place, name, nothing)
    set_local(None)
    providers.cache_clear()
    yield folder
    set_local(None)
    providers.cache_clear()
