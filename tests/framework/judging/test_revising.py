"""Critique and revision: what is asked in which order, and by which principle."""

from __future__ import annotations

from collections import Counter

from feedtune.contracts import Sample
from feedtune.judging import Constitution, Question, revised
from scripted_judges import Scripted, texts_in

TWO = Constitution(name="short", principles=["Be kind.", "Be brief."], rounds=2)


def editor(question: Question) -> tuple[str, None]:
    shown = texts_in(question)
    if "CRITIQUE" in shown:
        return f"<think>hm</think> {shown['RESPONSE']}, after: {shown['CRITIQUE']}", None
    return f"{len(shown['RESPONSE'])} letters", None


def test_each_round_criticises_and_revises_what_the_last_one_left() -> None:
    judge = Scripted(editor)
    (found,) = revised(judge, TWO, [Sample("Hi", "Go")])
    assert found.critiques == ("2 letters", "20 letters")  # "Go" and "Go, after: 2 letters"
    assert found.text == "Go, after: 2 letters, after: 20 letters"
    assert found.principles == tuple(TWO.drawn("Hi\nGo", turn) for turn in range(2))
    assert [texts_in(one).keys() for one in judge.asked] == [
        {"PROMPT", "RESPONSE"},
        {"PROMPT", "RESPONSE", "CRITIQUE"},
    ] * 2
    assert all(rule in one.system for one, rule in zip(judge.asked[::2], found.principles, strict=True))
    assert [one.words for one in judge.asked] == [()] * 4


def test_principles_are_drawn_evenly_and_always_the_same() -> None:
    drawn = [TWO.drawn(f"item {number}", 0) for number in range(1000)]
    assert drawn == [TWO.drawn(f"item {number}", 0) for number in range(1000)]
    # 500 of each are expected, with a standard deviation of sqrt(1000) / 2 = 15.8
    assert all(abs(count - 500) < 5 * 15.8 for count in Counter(drawn).values())
    other = Constitution(name="short", principles=TWO.principles, seed=1)
    assert drawn != [other.drawn(f"item {number}", 0) for number in range(1000)]


def test_a_conversation_is_shown_whole() -> None:
    judge = Scripted(editor)
    talk = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"})
    revised(judge, Constitution(name="x", principles=["Be kind."]), [Sample("raw", "Go", talk)])
    assert texts_in(judge.asked[0])["PROMPT"] == "user: Hi\nassistant: Ho"


def test_all_principles_make_one_rubric() -> None:
    assert "- Be kind.\n- Be brief." in TWO.rubric.asks
    assert TWO.rubric.name == "short"
