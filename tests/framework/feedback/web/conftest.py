"""A page over three prompts with two responses each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback_sites import Site, feedback_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with feedback_site(tmp_path) as found:
        yield found
