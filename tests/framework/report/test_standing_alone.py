"""The page needs nothing but itself, gives the same bytes again, and fits a phone."""

from __future__ import annotations

import html
import json
import re
import sys
from pathlib import Path

import matplotlib
import pytest

from feedtune.errors import UserError
from feedtune.report import write_report
from report_pages import ATTACKS, answer, in_browser, make_run, report_of


def test_the_page_refers_to_nothing_outside_itself(full_run: Path) -> None:
    page = report_of(full_run)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "base", "form"}
    links = page.attributes("href") + page.attributes("xlink:href") + page.attributes("src")
    assert {link for link in links if link and not link.startswith("#")} == {"data:,"}
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", page.source)
    assert "default-src 'none'" in (page.attributes("content")[0] or "")


def test_ids_are_distinct_and_references_lead_somewhere(tmp_path: Path) -> None:
    rows = "epoch,a,b,c\n" + "".join(f"{e},{e},{e},{e}\n" for e in range(3))
    page = report_of(*(make_run(tmp_path / name, metrics=rows) for name in ("one", "two")))
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    used = [
        link[1:]
        for link in page.attributes("xlink:href") + page.attributes("href")
        if link and link[0] == "#"
    ]
    used += re.findall(r"url\(#(.*?)\)", page.source)
    assert used
    assert set(used) <= set(ids)


def test_same_input_same_bytes_whatever_matplotlib_was_told(
    full_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # its import fails: it sets a global backend
    first = write_report([full_run], full_run / "a.html").read_bytes()
    with monkeypatch.context() as patch:
        for key, value in {"svg.fonttype": "path", "lines.linewidth": 9.0, "axes.grid": True}.items():
            patch.setitem(matplotlib.rcParams, key, value)
        before = matplotlib.rcParams.copy()
        second = write_report([full_run], full_run / "b.html").read_bytes()
        assert matplotlib.rcParams.copy() == before
    assert first == second


def test_curves_need_the_extra(full_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"feedtune report needs .*'matplotlib'.*feedtune\[report\]"):
        report_of(full_run)
    (full_run / "metrics.csv").unlink()
    assert "Before and after" in report_of(full_run).text  # no curves, no matplotlib


@pytest.mark.browser
def test_nothing_runs_and_nothing_overflows_a_phone(full_run: Path, tmp_path: Path) -> None:
    samples = [answer(attack, "x" * 300 + attack, 1.0, epoch=i) for i, attack in enumerate(ATTACKS)]
    credit = {"tokens": ["x" * 300, *[" word"] * 200], "kl": [0.5] * 201, "advantage": [-0.5] * 201}
    samples += [answer("p", "said", 1.0, epoch=9, **credit)]
    (full_run / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    other = make_run(
        full_run.parent / "other", metrics="epoch\n0\n", config=f"{'key' * 99}: {'value' * 99}\n"
    )
    source = report_of(full_run, other).source
    # Without the policy that forbids scripts: escaping alone has to hold.
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)
    assert bare != source
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body><iframe style="width:360px;height:800px;border:0" srcdoc="{html.escape(bare)}"></iframe>'
        "<script>const frame = document.querySelector('iframe'); frame.onload = () => {"
        "const page = frame.contentDocument, root = page.documentElement;"
        "document.title = page.title + (root.scrollWidth > root.clientWidth ? ' overflows' : ' fits');"
        "}</script>",
        encoding="utf-8",
    )
    title = re.search(r"<title>(.*?)</title>", in_browser(frame, tmp_path / "profile"))
    assert title is not None
    assert title[1].endswith("feedtune report fits")
