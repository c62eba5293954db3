"""The report in a real browser, with hostile text in every place that takes text: no script runs."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from feedtune.report import write_report
from hostile_texts import ATTACKS
from report_pages import in_browser

PROVOKE = """
frame.onload = () => {
  const page = frame.contentDocument;
  for (const one of page.querySelectorAll('*')) {
    if (one.tagName === 'DETAILS') one.open = true;
    for (const name of ['mouseover', 'mouseenter', 'focus', 'focusin', 'error', 'load', 'toggle', 'click',
                        'pointerdown', 'keydown', 'animationstart', 'submit', 'input'])
      one.dispatchEvent(new Event(name, {bubbles: true, cancelable: true}));
    if (one.click) one.click();
  }
  document.documentElement.setAttribute('data-provoked', page.querySelectorAll('*').length);
};
"""


def hostile_run(folder: Path) -> Path:
    """Attacks wherever text comes from: samples and their tokens, metrics, sources, config, and command."""
    (folder / ".hydra").mkdir(parents=True)
    answers = [
        {
            "prompt": one,
            "response": one * 9,
            "reward": n / 9,
            "reference": [one],
            f"reward/{one}": 1.0,
            "epoch": n % 3,
            "tokens": [one, f" {one}", ""],
            "advantage": [1.0, -0.5, None],
            "kl": [0.0, 0.5, -0.5],
        }
        for n, one in enumerate(ATTACKS)
    ]
    names = [
        json.dumps(one.replace("\u2028", "").replace("\u2029", ""))[1:-1].replace('\\"', '""')
        for one in ATTACKS
    ]
    header = ",".join(
        ["epoch", *(f'"{name}"' for name in names), *(f'"rollout/reward/{name}"' for name in names)]
    )
    values = [",".join([str(epoch), *["1"] * 2 * len(names)]) for epoch in range(3)]
    metrics: dict[str, Any] = dict.fromkeys(ATTACKS, 1.0)
    found = {"metrics": metrics, "records": answers, "reference": {"metrics": metrics, "records": answers}}
    texts = {
        "metrics.csv": "\n".join([header, *values]) + "\n",
        "samples.jsonl": "".join(json.dumps(one) + "\n" for one in answers),
        "evaluation.json": json.dumps(found),
        ".hydra/config.yaml": json.dumps({"run": folder.name} | {one: [folder.name, one] for one in ATTACKS}),
        ".hydra/overrides.yaml": json.dumps(ATTACKS),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def framed(source: str, folder: Path) -> str:
    """A page that holds this one in a frame, after everything in it was pressed and passed over."""
    folder.mkdir()
    frame = folder / "frame.html"
    frame.write_text(
        f'<!doctype html><meta charset="utf-8"><body><iframe srcdoc="{html.escape(source)}"></iframe>'
        f"<script>const frame = document.querySelector('iframe'); {PROVOKE}</script>",
        encoding="utf-8",
    )
    return in_browser(frame, folder / "profile")


@pytest.mark.browser
def test_no_text_runs_in_a_browser(tmp_path: Path) -> None:
    names = ["run <img src=x onerror=alert(1)>", "run \u202e<script>alert(1)<"]
    folders = [hostile_run(tmp_path / name) for name in names]
    source = write_report(folders, tmp_path / "report.html").read_text(encoding="utf-8")
    # Without the policy that forbids scripts: escaping alone has to hold.
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)
    assert bare != source
    found = framed(bare, tmp_path / "bare")
    [provoked] = re.findall(r'data-provoked="(\d+)"', found.partition("<body")[0])
    assert int(provoked) > 1000  # elements of the page, each of them pressed
    assert "data-owned" not in found.partition("<body")[0]
    # The control: one of these attacks, unescaped, does leave its mark.
    broken = bare.replace("</main>", ATTACKS[1] + "</main>")
    assert "data-owned" in framed(broken, tmp_path / "broken").partition("<body")[0]
    # And the page's own policy stops even that one.
    guarded = source.replace("</main>", ATTACKS[1] + "</main>")
    assert "data-owned" not in framed(guarded, tmp_path / "guarded").partition("<body")[0]


def test_a_link_out_of_a_run_folder_is_not_followed(tmp_path: Path) -> None:
    from feedtune.errors import UserError

    (tmp_path / "secret.txt").write_text("canary")
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    (run / "metrics.csv").write_text("epoch\n0\n")
    (run / ".hydra" / "config.yaml").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UserError, match=r"config\.yaml: a link that leads out of the run folder"):
        write_report([run], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    (run / ".hydra" / "config.yaml").unlink()
    (run / "started.yaml").write_text("seed: 1\n")
    (run / ".hydra" / "config.yaml").symlink_to(run / "started.yaml")  # within it: fine
    (tmp_path / "link").symlink_to(run)  # and so is a folder that is a link itself, or a way with ..
    for folder in (tmp_path / "link", run / ".." / "run"):
        assert "seed: 1" in write_report([folder], tmp_path / "report.html").read_text()
