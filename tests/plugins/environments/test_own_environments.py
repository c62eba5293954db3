"""Our environments: Gymnasium's own checker, the rules by hand, what is shown and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import feedtune_plugins.environments
from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune_plugins.rewards.bleu import Bleu
from feedtune_plugins.rewards.length import Length

gymnasium.register_envs(feedtune_plugins.environments)
CHAR, EDIT = "feedtune/CharText-v0", "feedtune/TextEdit-v0"


class Judge:
    """Pays the number of letters and remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[Sample] = []

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        self.seen += samples
        return [float(len(sample.response)) for sample in samples]


def make(name: str, **options: Any) -> gymnasium.Env[str, str]:
    return gymnasium.make(name, **{"reward": Judge(), **options}).unwrapped


@pytest.mark.parametrize("mode", [None, "ansi", "human"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        (CHAR, {"reward": Length(target=1)}),
        (CHAR, {"reward": Length(target=1), "length": 1, "end": True, "rows": [{"prompt": "To: "}]}),
        (EDIT, {"reward": Bleu()}),
        (EDIT, {"reward": Length(), "rows": [{"text": ""}, {"text": "ä b"}], "words": ["c"], "max_edits": 3}),
    ],
)
def test_gymnasiums_checker_finds_nothing(name: str, options: dict[str, Any], mode: str | None) -> None:
    """Its warnings are errors, as everywhere in this suite."""
    check_env(gymnasium.make(name, render_mode=mode, **options).unwrapped)


def test_letters_make_a_text_that_is_judged_at_its_end() -> None:
    env = make(CHAR, length=3, alphabet="abc", rows=[{"prompt": "x ", "answer": 7}])
    assert env.reset(seed=0) == ("x ", {})
    assert env.step("c") == ("x c", 0.0, False, False, {})
    assert env.step("a") == ("x ca", 0.0, False, False, {})
    assert env.step("b") == ("x cab", 3.0, True, False, {})
    (seen,) = env.reward.seen  # type: ignore[attr-defined]
    assert (seen.prompt, seen.response, seen.columns["answer"]) == ("x ", "cab", 7)
    assert env.reset(seed=0) == ("x ", {})  # nothing is left of the first episode
    assert env.step("a")[0] == "x a"


def test_the_default_alphabet_is_26_letters_and_the_space() -> None:
    space = make(CHAR).action_space
    assert set(space.character_list) == set("abcdefghijklmnopqrstuvwxyz ")  # type: ignore[attr-defined]
    assert "" not in space


def test_an_end_may_be_chosen() -> None:
    env = make(CHAR, length=3, end=True)
    env.reset(seed=0)
    env.step("h")
    assert env.step("") == ("h", 1.0, True, False, {})


def test_a_letter_that_there_is_not() -> None:
    env = make(CHAR, alphabet="ab")
    env.reset(seed=0)
    for wrong in ("c", "ab", ""):
        with pytest.raises(ValueError, match="is not in Text"):
            env.step(wrong)


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ("insert 0 now", "now the cat sat"),
        ("insert 3 now", "the cat sat now"),
        ("delete 0", "cat sat"),
        ("delete 2", "the cat"),
        ("replace 1 dog", "the dog sat"),
    ],
)
def test_edits(action: str, text: str) -> None:
    env = make(EDIT, rows=[{"text": " the  cat sat"}])
    assert env.reset(seed=0)[0] == "the cat sat"
    gain = float(len(text) - len("the cat sat"))
    assert env.step(action) == (text, gain, False, False, {})


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("", "expected insert I WORD"),
        ("fly 3", "expected insert I WORD"),
        ("delete -1", "expected insert I WORD"),
        ("delete  1", "expected insert I WORD"),
        ("insert 1 two words", "expected insert I WORD"),
        ("delete 99999999999", "expected insert I WORD"),
        ("delete 2", "expected a place from 0 to 1"),
        ("replace 2 a", "expected a place from 0 to 1"),
        ("insert 3 a", "expected a place from 0 to 2"),
        ("insert 0 b", "'b' is none of the words"),
        ("replace 0 b", "'b' is none of the words"),
    ],
)
def test_an_edit_that_cannot_be_done_changes_nothing_and_says_so(action: str, why: str) -> None:
    env = make(EDIT, rows=[{"text": "the cat"}], words=["a"])
    env.reset(seed=0)
    text, reward, terminated, truncated, info = env.step(action)
    assert (text, reward, terminated, truncated) == ("the cat", 0.0, False, False)
    assert why in info["error"]
    assert repr(action) in info["error"]


def test_there_is_nothing_to_delete_in_an_empty_text() -> None:
    env = make(EDIT, rows=[{"text": ""}])
    env.reset(seed=0)
    assert "there is no word" in env.step("delete 0")[4]["error"]
    assert env.step("insert 0 hi")[:2] == ("hi", 2.0)


def test_stopping_terminates_and_too_many_edits_truncate() -> None:
    env = make(EDIT, max_edits=2)
    env.reset(seed=0)
    assert env.step("delete 0")[2:4] == (False, False)
    assert env.step("stop")[2:4] == (True, False)  # at the limit, but by its own will
    env.reset(seed=0)
    env.step("delete 0")
    assert env.step("delete 0")[2:4] == (False, True)


def test_rewards_sum_to_the_gain() -> None:
    """BLEU-1 of "the dog" against "the cat": 1/2 at first, 1 after the edit, 1/3 x ... after another."""
    env = make(EDIT, reward=Bleu(n_gram=1), rows=[{"text": "the dog", "reference": "the cat"}])
    env.reset(seed=0)
    rewards = [env.step(action)[1] for action in ("replace 1 cat", "insert 0 oh", "stop")]
    # "oh the cat": two of three words match and it is longer than the reference, so no brevity: 2/3.
    assert rewards == pytest.approx([0.5, 2 / 3 - 1, 0.0])


def test_rows_are_drawn_by_the_seed() -> None:
    env = make(EDIT, rows=[{"text": letter} for letter in "abcdef"])
    drawn = [env.reset(seed=seed)[0] for seed in range(20)]
    assert drawn == [env.reset(seed=seed)[0] for seed in range(20)]
    assert len(set(drawn)) > 3


def test_render_shows_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    env = make(CHAR, render_mode="ansi", rows=[{"prompt": "> "}])
    env.reset(seed=0)
    env.step("h")
    assert env.render() == "> h"
    assert capsys.readouterr().out == ""
    env = make(EDIT, render_mode="human", rows=[{"text": "hi you"}])
    env.reset(seed=0)
    env.step("delete 1")
    assert capsys.readouterr().out == "hi you\nhi\n"  # a person sees every state without asking
    assert make(CHAR).render() is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (CHAR, {"reward": None}, "feedtune/CharText-v0: reward is missing"),
        (CHAR, {"length": 0}, "length: expected at least 1, got 0"),
        (CHAR, {"alphabet": ""}, "alphabet: expected at least one letter"),
        (CHAR, {"rows": []}, "rows is empty"),
        (CHAR, {"rows": [{"prompt": ""}, {"text": "a"}]}, "row 2 needs a text 'prompt', got None"),
        (EDIT, {"rows": [{"text": 3}]}, "feedtune/TextEdit-v0: row 1 needs a text 'text', got 3"),
        (EDIT, {"max_edits": 0}, "max_edits: expected at least 1, got 0"),
        (EDIT, {"words": ["a", "b c"]}, "words: expected words without blanks, got 'b c'"),
    ],
)
def test_what_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(name, **options)
