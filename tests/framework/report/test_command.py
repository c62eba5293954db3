"""`feedtune report`."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedtune.commands.report import main
from feedtune.errors import UserError
from report_pages import Page, make_run


def test_command_writes_beside_one_run_and_here_for_several(
    full_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_run(full_run.parent / "other", metrics="epoch\n0\n")
    monkeypatch.chdir(full_run.parent)
    assert main(["tuned"]) == 0
    assert main(["tuned", str(other)]) == 0
    assert main(["tuned", "--out", "new/folder/mine.html"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["tuned/report.html", "report.html", "new/folder/mine.html"]
    assert all("feedtune report" in Page(Path(name)).text for name in printed)


def test_command_refuses_to_write_over_what_is_no_report(full_run: Path) -> None:
    with pytest.raises(UserError, match=r"--out: expected a name that ends in .html, got '.*metrics.csv'"):
        main([str(full_run), "--out", str(full_run / "metrics.csv")])
    (full_run / "folder.html").mkdir()
    with pytest.raises(UserError, match=r"folder.html: cannot write the report \(Is a directory\)"):
        main([str(full_run), "--out", str(full_run / "folder.html")])


def test_command_without_folders_asks_for_them() -> None:
    with pytest.raises(UserError, match=r"required: DIR; see feedtune report --help$"):
        main([])
