"""Laws of an option's YAML, each broken once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedtune.errors import UserError
from feedtune.testing import option_files as laws

GOOD = """\
# feedtune train reward=mine: what to expect
# and more of it.
defaults:
  - /tokenizer@_global_.tokenizer: char
  - _self_
_target_: feedtune_plugins.rewards.length.Length
target: 20  # words
# what counts
unit: words
part:
  _target_: feedtune_plugins.algorithms.Clip
  low: 0.2 # below 1
weights:
  - 1.0 # the first
  - 2.0
question: "What # is it?" # a text with a sign in it
shape: exact  # exact, or something
              # else [unseen]
words: [a, b] # [unseen]
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_comments_are_found_behind_values_and_above_keys(tmp_path: Path) -> None:
    found = dict(laws.comments(written(tmp_path, GOOD)))
    assert found == {
        "target": "words",
        "unit": "what counts",
        "part.low": "below 1",
        "weights": "",
        "question": "a text with a sign in it",
        "shape": "exact, or something else [unseen]",
        "words": "[unseen]",
    }
    assert laws.unseen_keys(tmp_path / "mine.yaml") == {"shape", "words"}


def test_a_key_without_a_comment_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"mine\.yaml: no comment says what weights means"):
        laws.every_key_has_a_comment(written(tmp_path, GOOD))
    laws.every_key_has_a_comment(written(tmp_path, GOOD.replace("  - 2.0\n", "  - 2.0 # weights\n")))
    bare = "# feedtune train reward=mine\n_target_: a.B\nscale: 1.0\npart:\n  low: 0.2\n"
    with pytest.raises(AssertionError, match=r"what scale, part\.low means"):
        laws.every_key_has_a_comment(written(tmp_path, bare))


def test_the_header_is_no_comment_of_the_first_key(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="what scale means"):
        laws.every_key_has_a_comment(written(tmp_path, "# reward=mine\nscale: 1.0\n"))


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("# feedtune train reward=mine\n", True),
        ("# reward=mine: scores\n", True),
        ("# Scores.\n# feedtune evaluate DIR reward=mine\n", True),
        ("# Scores.\n", False),
        ("scale: 1.0 # reward=mine\n", False),
        ("", False),
    ],
)
def test_a_file_opens_with_a_command(text: str, fine: bool, tmp_path: Path) -> None:
    file = written(tmp_path, text)
    if fine:
        laws.opens_with_a_command(file, "reward", "mine")
    else:
        with pytest.raises(AssertionError, match=r"'# feedtune train reward=mine'"):
            laws.opens_with_a_command(file, "reward", "mine")


def test_a_target_has_to_be_there() -> None:
    with pytest.raises(AssertionError, match="reward has no _target_"):
        laws.targets_can_be_imported({"target": 20}, "reward")
    with pytest.raises(UserError, match=r"reward\._target_: .* has no 'Lenght'. Did you mean 'Length'"):
        laws.targets_can_be_imported({"_target_": "feedtune_plugins.rewards.length.Lenght"}, "reward")
    inner = {"_target_": "feedtune_plugins.rewards.length.Length", "part": {"_target_": "os.system"}}
    with pytest.raises(UserError, match=r"reward\.part\._target_: 'os\.system' is not trusted"):
        laws.targets_can_be_imported(inner, "reward")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"targt": 3}, r"reward\.targt is no argument of Length\. Did you mean 'target'"),
        ({"target": "many"}, r"reward\.target: expected a whole number, got 'many'"),
        ({"shape": "round"}, r"reward\.shape: expected one of exact, at_least, at_most, got 'round'"),
    ],
)
def test_keys_are_arguments_of_their_types(more: dict[str, Any], problem: str) -> None:
    node = {"_target_": "feedtune_plugins.rewards.length.Length", "target": 20}
    laws.keys_are_arguments(node, "reward")
    laws.keys_are_arguments({**node, "target": "???"}, "reward")  # another law's
    with pytest.raises(AssertionError, match=problem):
        laws.keys_are_arguments({**node, **more}, "reward")


def test_what_has_to_be_given_is_named_with_the_command() -> None:
    laws.values_are_given({"path": "a.py:f"}, "reward", "function")
    message = r"reward\.path has to be given: feedtune check reward=function reward\.path=\.\.\.$"
    with pytest.raises(AssertionError, match=message):
        laws.values_are_given({"path": "???"}, "reward", "function")
