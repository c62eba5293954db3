"""Per-token credit on the page: colour, sign, number in words, legend; and records that are damaged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from feedtune.errors import UserError
from report_pages import ATTACKS, DASH, MINUS, Page, answer, make_run, report_of

TOKENS = [" so", "", "\n", "<eos>"]


def sample(epoch: int = 0, **credit: Any) -> dict[str, Any]:
    return answer("p", "so", 1.0, epoch=epoch, **{"tokens": TOKENS, **credit})


def shades(page: Page) -> list[tuple[str, ...]]:
    """Each coloured token: sign, strength, title, text."""
    found = re.findall(
        r'<span class="tok (\w+)" style="--a:([\d.]+)" title="([^"]*)">(.*?)</span>', page.source, re.DOTALL
    )
    return [(sign, strength, title, re.sub("<[^>]*>", "", text)) for sign, strength, title, text in found]


def test_colour_sign_and_number_of_each_token(tmp_path: Path) -> None:
    credit = {"advantage": [2.0, -0.5, 0.0, None], "kl": [0.25, 0.25, 0.125, -0.25]}
    page = report_of(make_run(tmp_path / "run", samples=[sample(**credit)]))
    assert shades(page) == [
        ("up", "1.00", "␣so: 2", " so"),  # the widest of all has the full colour
        ("down", "0.25", f"·: {MINUS}0.5", "·"),
        ("zero", "0.00", "↵: 0", "↵\n"),
        ("untold", "0.00", f"&lt;eos&gt;: {DASH}", "&lt;eos&gt;"),
        ("up", "1.00", "␣so: 0.25", " so"),
        ("up", "1.00", "·: 0.25", "·"),
        ("up", "0.50", "↵: 0.125", "↵\n"),
        ("down", "1.00", f"&lt;eos&gt;: {MINUS}0.25", "&lt;eos&gt;"),
    ]
    # The legend of each, and all numbers as a table for whom colours and pointing are no help.
    assert f"Advantage {MINUS}2 to 2 what the token" in page.text
    assert f"KL {MINUS}0.25 to 0.25 log-probability" in page.text
    assert f"Token Advantage KL ␣so 2 0.25 · {MINUS}0.5 0.25 ↵ 0 0.125 <eos> {DASH} {MINUS}0.25" in page.text


def test_all_samples_of_an_epoch_share_a_scale(tmp_path: Path) -> None:
    samples = [sample(kl=[1.0, 0, 0, 0]), sample(kl=[4.0, 0, 0, 0])]
    page = report_of(make_run(tmp_path / "run", samples=samples))
    assert [strength for _, strength, *_ in shades(page)][::4] == ["0.25", "1.00"]
    assert "Advantage" not in page.text


def test_credit_that_is_0_everywhere(tmp_path: Path) -> None:
    page = report_of(make_run(tmp_path / "run", samples=[sample(advantage=[0.0, 0.0, None, 0.0])]))
    assert [sign for sign, *_ in shades(page)] == ["zero", "zero", "untold", "zero"]
    assert "Advantage 0 everywhere what the token" in page.text


def test_the_last_epoch_is_open_and_the_first_is_folded(tmp_path: Path) -> None:
    samples = [sample(epoch, kl=[epoch + 1.0, 0, 0, 0]) for epoch in range(3)]
    samples.append(answer("p", "without", 1.0, epoch=3))
    text = report_of(make_run(tmp_path / "run", samples=samples)).text
    assert "Credit by token Epoch 2." in text
    assert f"KL {MINUS}3 to 3" in text
    assert "The same in epoch 0" in text
    assert f"KL {MINUS}1 to 1" in text
    assert f"{MINUS}2 to 2" not in text


def test_samples_without_credit_are_shown_as_before(tmp_path: Path) -> None:
    """Those of runs that were written before there was any, and of algorithms without."""
    text = report_of(make_run(tmp_path / "run", samples=[answer("p", "said", 1.0, epoch=0)])).text
    assert "said" in text
    assert "Credit by token" not in text


@pytest.mark.parametrize("attack", [*ATTACKS, "a\u202eb\u200b"])
def test_tokens_are_escaped(tmp_path: Path, attack: str) -> None:
    def page(token: str, name: str) -> Page:
        samples = [answer("p", "r", 1.0, epoch=0, tokens=[token], advantage=[1.0])]
        return report_of(make_run(tmp_path / name, samples=samples))

    found, harmless = page(attack, "attacked"), page("benign", "harmless")
    assert [tag for tag, _ in found.elements if tag != "span"] == [
        tag for tag, _ in harmless.elements if tag != "span"
    ]
    assert {name for _, attrs in found.elements for name in attrs} == {
        name for _, attrs in harmless.elements for name in attrs
    }
    assert "\u202e" not in found.source
    told = attack.replace("\u202e", "U+202E").replace("\u200b", "U+200B").replace(" ", "␣")
    assert f"{told}: 1" in found.attributes("title")


@pytest.mark.parametrize(
    ("credit", "message"),
    [
        ({"tokens": "so"}, r"'tokens': expected a list of texts, got 'so'"),
        ({"tokens": ["so", 1]}, r"'tokens': expected a list of texts, got \"\['so', 1\]\""),
        ({"kl": [1.0]}, r"'kl': expected 4 numbers, one a token, got 1 of them"),
        ({"kl": 0.5}, r"'kl': expected 4 numbers, one a token, got '0.5'"),
        ({"advantage": [1, 2, 3, "x"]}, r"'advantage': expected a number, got 'x'"),
    ],
)
def test_damaged_credit_is_refused_by_line(tmp_path: Path, credit: dict[str, Any], message: str) -> None:
    folder = make_run(tmp_path / "run", samples=[sample(), sample(**credit)])
    with pytest.raises(UserError, match=r"samples\.jsonl:2: " + message):
        report_of(folder)


def test_infinity_and_null_have_no_colour(tmp_path: Path) -> None:
    row = json.dumps(sample(kl=[1.0, None, None, None])).replace("null, null, null", "Infinity, NaN, null")
    folder = make_run(tmp_path / "run", metrics="epoch\n0\n")
    (folder / "samples.jsonl").write_text(row + "\n")
    assert [sign for sign, *_ in shades(report_of(folder))] == ["up", "untold", "untold", "untold"]
