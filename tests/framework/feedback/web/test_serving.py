"""Where the page listens, and what is said where it cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from feedback_sites import Visitor
from feedtune.errors import UserError
from feedtune.feedback import FeedbackStore
from feedtune.feedback.web.addresses import listening, url_of
from feedtune.feedback.web.serving import serve_in_thread


def test_only_this_machine_is_served_unless_told_otherwise(tmp_path: Path) -> None:
    with serve_in_thread(FeedbackStore(tmp_path / "feedback.sqlite")) as url:
        assert url.startswith("http://127.0.0.1:")
        with Visitor(url) as stranger:
            assert stranger.get("/login").status_code == 200
        port = int(url.rpartition(":")[2])
        with pytest.raises(
            UserError,
            match=rf"^feedback\.port: cannot listen on 127\.0\.0\.1, port {port}: .*port=0 takes a free",
        ):
            listening("127.0.0.1", port)
    with listening("127.0.0.1", port) as again:  # it has gone with the block
        assert url_of(again) == url


def test_addresses_of_the_newer_kind_are_written_as_browsers_want_them() -> None:
    with listening("::1", 0) as taken:
        assert url_of(taken) == f"http://[::1]:{taken.getsockname()[1]}"


@pytest.mark.parametrize("package", ["uvicorn", "fastapi"])
def test_the_extra_is_named_where_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in list(sys.modules):
        if name == package or name.startswith("feedtune.feedback.web."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with (
        pytest.raises(UserError, match=rf"serve needs the package '{package}'\. .*feedtune\[feedback\]"),
        serve_in_thread(FeedbackStore(tmp_path / "feedback.sqlite")),
    ):
        pass
