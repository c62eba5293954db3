"""Run folders of a few lines, and the pages that are made of them, element by element."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from feedtune.report import write_report

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
VOID = {"meta", "link", "img", "br", "hr", "input"}
ATTACKS = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\" onmouseover=\"document.title='owned'\" x='",
    "</style></pre></details></td></svg><script>document.title='owned'</script>",
    "<!-- {{ 7 * 7 }} {% raw %} ]]> &lt;b&gt;",
)


class Page(HTMLParser):
    """The elements of a page, the text of each, and all attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(self.source)
        self.close()
        assert self.open == []  # every element is closed where it should be

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.texts.append(data.strip())

    @property
    def text(self) -> str:
        """All text, pieces apart by one space."""
        return " ".join(" ".join(self.texts).split())

    def attributes(self, name: str, tag: str | None = None) -> list[str | None]:
        return [attrs[name] for found, attrs in self.elements if name in attrs and tag in (None, found)]


def answer(prompt: str, response: str, reward: float | None = 0.0, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "response": response, "reward": reward, **more}


def make_run(
    folder: Path,
    *,
    metrics: str | None = None,
    samples: list[dict[str, Any]] | None = None,
    evaluation: Any = None,
    config: str | None = None,
    overrides: str | None = None,
) -> Path:
    """A run folder with these files and no others."""
    (folder / ".hydra").mkdir(parents=True)
    rows = None if samples is None else "".join(json.dumps(row) + "\n" for row in samples)
    texts = {
        "metrics.csv": metrics,
        "samples.jsonl": rows,
        "evaluation.json": None if evaluation is None else json.dumps(evaluation),
        ".hydra/config.yaml": config,
        ".hydra/overrides.yaml": overrides,
    }
    for name, text in texts.items():
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def report_of(*folders: Path) -> Page:
    return Page(write_report(folders, folders[0].parent / "report.html"))


def line_paths(page: Page, run: int = 0) -> list[dict[str, str | None]]:
    """The curves of a run: the paths inside pictures that are stroked in its colour and not filled."""
    return [
        attrs
        for tag, attrs in page.elements
        if tag == "path" and re.search(rf"fill: none;.*stroke: var\(--run-{run}\)", attrs.get("style") or "")
    ]


def in_browser(page: Path, profile: Path) -> str:
    """The page's document after it was loaded, as HTML."""
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --virtual-time-budget=5000 --dump-dom"
    command = ["chromium", *flags.split(), f"--user-data-dir={profile}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
