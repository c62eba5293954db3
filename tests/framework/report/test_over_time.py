"""Samples side by side: of one run over time, of several runs beside one another."""

from __future__ import annotations

import re
from pathlib import Path

from feedtune.report.choosing import over_time
from feedtune.report.reading import read_run
from report_pages import answer, make_run, report_of


def section(text: str, head: str, following: str) -> str:
    return text[text.index(head) : text.index(following)]


def test_prompts_that_come_again_at_four_epochs(tmp_path: Path) -> None:
    samples = [answer("again", f"at {e}", e / 10, epoch=e) for e in range(10)]
    samples += [answer(f"once {e}", "x", 0.0, epoch=e) for e in range(10)]
    samples += [answer("twice", f"and {e}", 0.0, epoch=e) for e in (2, 7)]
    page = report_of(make_run(tmp_path / "run", samples=samples))
    text = section(page.text, "Samples over time", "Best and worst")
    assert "The same prompts at several epochs." in text
    assert "Prompt again Epoch 0 at 0 reward 0 Epoch 3 at 3 reward 0.3 Epoch 6 at 6 reward 0.6" in text
    assert "Epoch 9 at 9 reward 0.9 Prompt twice Epoch 2 and 2 reward 0 Epoch 7 and 7 reward 0" in text
    # Two places are left for prompts of their own: but each epoch has one only.
    assert re.findall(r"once (\d)", text) == ["0", "3", "6", "9"]


def test_of_several_answers_to_a_prompt_in_an_epoch_the_first_is_shown(tmp_path: Path) -> None:
    samples = [answer("p", said, 0.0, epoch=e) for e in (0, 1) for said in (f"one {e}", f"two {e}")]
    found = over_time(read_run(make_run(tmp_path / "run", samples=samples), "run"))
    assert [(row.prompt, [(e, a.response) for e, a in row.answers]) for row in found] == [
        ("p", [(0, "one 0"), (1, "one 1")])
    ]


def test_without_a_prompt_that_comes_again_places_stand_side_by_side(tmp_path: Path) -> None:
    samples = [answer(f"p{e}{i}", f"r{e}{i}", 0.0, epoch=e) for e in range(3) for i in range(6 - e)]
    run = make_run(tmp_path / "run", samples=samples)
    assert "No prompt came twice: the first samples of several epochs." in report_of(run).text
    found = over_time(read_run(run, "run"))
    assert [row.prompt for row in found] == [None] * 4
    assert [[a.response for _, a in row.answers] for row in found] == [
        ["r00", "r10", "r20"],
        ["r01", "r11", "r21"],
        ["r02", "r12", "r22"],
        ["r03", "r13", "r23"],
    ]


def test_runs_beside_one_another_where_they_were_asked_the_same(tmp_path: Path) -> None:
    """Of each run the latest answer; prompts that all have been asked, and lately, come first."""
    one = [answer(f"p{e}", f"one {e}", 0.5, epoch=e) for e in range(8)] + [answer("p0", "late", 1.0, epoch=9)]
    two = [answer(f"p{e}", f"two {e}", 0.25, epoch=e) for e in range(6)]
    folders = [make_run(tmp_path / n, samples=s) for n, s in (("first", one), ("second", two))]
    text = section(report_of(*folders).text, "Samples beside one another", "Samples over time")
    assert re.findall(r"Prompt (p\d)", text) == ["p5", "p4", "p3", "p2"]
    assert "Prompt p5 first , epoch 5 one 5 reward 0.5 second , epoch 5 two 5 reward 0.25" in text
    assert "one 6" not in text  # asked of the first alone


def test_evaluated_runs_stand_beside_one_another_on_held_out_prompts(tmp_path: Path) -> None:
    """These say more than prompts of training, which are drawn anew for each run."""
    trained = [answer("met by both", "in training", 0.0, epoch=0)]
    folders = []
    for name, asked in (("first", "abcdef"), ("second", "fedcbx"), ("third", "fe")):
        said = [answer(f"held {letter}", f"{name} {letter}", 0.5) for letter in asked]
        evaluation = {"metrics": {}, "records": [*said, answer("held f", "again", 0.0)]}
        folders.append(make_run(tmp_path / name, samples=trained, evaluation=evaluation))
    text = section(report_of(*folders).text, "Samples beside one another", "Samples over time")
    assert "to the same prompts, held out, when they were evaluated." in text
    assert re.findall(r"Prompt held (\w)", text) == ["e", "f", "b", "c"]  # of all three first
    assert "held e first first e reward 0.5 second second e reward 0.5 third third e reward 0.5" in text
    assert "Prompt held f first first f reward 0.5 second" in text  # and not what was said again


def test_runs_that_share_no_prompt_stand_apart(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / n, samples=[answer(n, "x", 0.0, epoch=0)]) for n in ("a", "b")]
    assert "beside one another" not in report_of(*folders).text
