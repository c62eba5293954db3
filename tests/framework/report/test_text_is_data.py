"""Text of models, data and settings is shown, whatever it is made of, and never becomes markup."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedtune.report.numerals import number
from feedtune.report.page import visible
from feedtune.text.visible import plain
from report_pages import ATTACKS, MINUS, answer, make_run, report_of


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_becomes_markup(tmp_path: Path, attack: str) -> None:
    metrics = 'epoch,"{0}","rollout/reward/{0}"\n0,1,1\n1,2,2\n'.format(attack.replace('"', '""'))
    record = answer(attack, attack, 1.0, reference=[attack])
    folder = make_run(
        tmp_path / "run",
        metrics=metrics,
        samples=[answer(attack, attack * 40, 1.0, epoch=0, **{f"reward/{attack}": 1.0})] * 2,
        evaluation={
            "metrics": {attack: 1.0},
            "records": [record, record],
            "reference": {"metrics": {attack: 1.0}, "records": [record, record]},
        },
        config=attack,
        overrides=json.dumps([attack]),
    )
    page = report_of(folder)
    text = "benign"
    harmless = report_of(
        make_run(
            tmp_path / "other",
            metrics=f"epoch,{text},rollout/reward/{text}\n0,1,1\n1,2,2\n",
            samples=[answer(text, text * 400, 1.0, epoch=0, **{f"reward/{text}": 1.0})] * 2,
            evaluation={
                "metrics": {text: 1.0},
                "records": [answer(text, text, 1.0, reference=[text])] * 2,
                "reference": {"metrics": {text: 1.0}, "records": [answer(text, text, 1.0)] * 2},
            },
            config=text,
            overrides=json.dumps([text]),
        )
    )
    # The same elements with the same attribute names as with harmless text, and the attack word for word.
    assert [(tag, sorted(attrs)) for tag, attrs in page.elements] == [
        (tag, sorted(attrs)) for tag, attrs in harmless.elements
    ]
    assert page.texts.count(attack) == harmless.texts.count(text) > 10
    assert any(attack in (label or "") for label in page.attributes("aria-label"))


@pytest.mark.parametrize("attack", ATTACKS)
def test_keys_and_values_that_differ_are_escaped(tmp_path: Path, attack: str) -> None:
    page = report_of(
        *(
            make_run(tmp_path / name, metrics="epoch\n0\n", config=json.dumps({attack: f"{name} {attack}"}))
            for name in ("first", "second")
        )
    )
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "img", "iframe", "b"})
    for told in (attack, f"first {attack}", f"second {attack}"):
        assert told in page.texts


def test_run_folders_with_hostile_names(tmp_path: Path) -> None:
    curve = "epoch,a\n0,1\n1,2\n"
    folders = [make_run(tmp_path / name, metrics=curve) for name in ("<b>\u202ex", '"&')]
    page = report_of(*folders)
    assert page.texts.count("<b>U+202Ex") == 3  # summary, legend, section
    assert ': <b>U+202Ex from 1 to 2; "& from 1 to 2' in (
        page.attributes("aria-label", "svg")[0] or page.source
    )


def test_text_that_would_reorder_or_hide_itself_is_spelled_out(tmp_path: Path) -> None:
    said = "a\u202eb\u2066c\u200fd\u200be\x00f\x1b[31m\ud800g\u061ch\U000e0041"
    page = report_of(make_run(tmp_path / "run", samples=[answer("p", said, 1.0, epoch=0)]))
    spelled = "a U+202E b U+2066 c U+200F d U+200B e U+0000 f U+001B [31m U+D800 g U+061C h U+E0041"
    assert spelled in page.text
    assert not (set(said) - set("abcdefgh[31m")) & set(page.source)


def test_text_of_other_scripts_stays_as_it_is_in_its_own_direction(tmp_path: Path) -> None:
    said = "مرحبا 你好 👩\u200d🚀\nnext\tline"
    page = report_of(make_run(tmp_path / "run", samples=[answer("p", said, 1.0, epoch=0)]))
    assert f'<div class="said" dir="auto">{said}</div>' in page.source


@given(st.text())
def test_visible_text_reads_as_plain_text_does(text: str) -> None:
    assert html.unescape(re.sub(r"<[^>]*>", "", visible(text))) == plain(text)
    assert plain(plain(text)) == plain(text)
    plain(text).encode("utf-8")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.9126, "0.913"),
        (-0.5, f"{MINUS}0.5"),
        (999.6, "1,000"),
        (1234.6, "1,235"),
        (2e6, "2e+06"),
    ],
)
def test_numbers_for_people(value: float, shown: str) -> None:
    assert number(value) == shown
