"""One HTML page about a run, or several side by side: numbers, curves, settings, before and after, samples.

The page needs nothing but itself: no script, no network, no other file. Text of models, prompts and
configurations is data and is escaped; characters that would reorder or hide text are spelled out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from feedtune.errors import UserError
from feedtune.report.choosing import credited, extremes, over_time, shared
from feedtune.report.configs import compare
from feedtune.report.credit import spelled, strip, widest
from feedtune.report.drawing import DASHES, PICTURE, curves, ends, smoothed
from feedtune.report.numerals import number
from feedtune.report.reading import Run, read_run
from feedtune.report.reliability import in_words
from feedtune.report.reliability_picture import SIZE, picture
from feedtune.text.visible import UNSEEN, plain


def write_report(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write the report of these run folders to `out` and return it.

    The same folders give the same bytes. Nothing is written unless all of them could be read.

    Args:
        run_dirs: run folders; each holds some of `metrics.csv`, `samples.jsonl`, `evaluation.json` and
            `.hydra/`. A folder named twice counts once.
        out: the HTML file; its folder is made if need be.

    Raises:
        UserError: a folder is no run, a file cannot be parsed (its line is named), or there are curves
            to draw and matplotlib, the extra `report`, is not installed.
    """
    folders = list({Path(folder).resolve(): Path(folder) for folder in run_dirs}.values())
    if not folders:
        raise UserError("report: expected at least one run folder")
    title, names = _names([folder.resolve() for folder in folders])
    html = _page(title, [read_run(folder, name) for folder, name in zip(folders, names, strict=True)])
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(html, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"{out}: cannot write the report ({error.strerror})") from error
    return out


def _names(folders: Sequence[Path]) -> tuple[str, list[str]]:
    """A title, and the folders' own names, or their paths below a common folder if two are namesakes."""
    common = Path(os.path.commonpath(folders))
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder.relative_to(common)) for folder in folders]
    return plain(common.name), [plain(name) for name in names]


def _page(title: str, runs: Sequence[Run]) -> str:
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"number": number, "plain": plain, "visible": visible, "spelled": spelled}
    page.globals |= {"ends": ends, "nan": math.nan, "sum": np.nansum, "zip": zip}
    page.globals |= {"picture": [72 * inches for inches in PICTURE], "dashes": DASHES, "runs": runs}
    page.globals |= {"reliability_size": [72 * inches for inches in SIZE]}
    page.globals |= {"reliability_picture": picture, "in_words": in_words}
    page.globals |= {"extremes": extremes, "over_time": over_time}
    page.globals |= {"credited": credited, "strip": strip, "widest": widest}
    return (
        page.get_template("page.html")
        .render(
            title=title,
            groups=curves(runs),
            smoothed=smoothed(runs),
            comparison=compare(runs),
            shared=shared(runs),
        )
        .lstrip()
    )


def visible(text: str) -> Markup:
    """Escaped text, its unseen characters spelled out and marked.

    >>> visible("<b>\u200b")
    Markup('&lt;b&gt;<span class="unseen">U+200B</span>')
    """
    pieces = UNSEEN.split(text)  # text and unseen characters in turn
    mark = Markup('<span class="unseen">{}</span>')
    return Markup("").join(mark.format(plain(p)) if i % 2 else p for i, p in enumerate(pieces))
