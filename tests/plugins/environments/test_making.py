"""Environments by name: who gets the reward source, what is said of those that cannot be played."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import text_environments  # noqa: F401 - registers tests/...
from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune_plugins.environments.making import (
    action_of,
    checked_step,
    make_environment,
    texts_of_space,
)


def judge(samples: list[Sample]) -> list[float]:
    return [1.0] * len(samples)


def other(samples: list[Sample]) -> list[float]:
    return [2.0] * len(samples)


def test_the_runs_reward_goes_to_environments_that_take_one() -> None:
    def given(options: dict[str, Any] | None) -> Any:
        return make_environment("tests/Judged-v0", options, judge, "collector").unwrapped.reward  # type: ignore[attr-defined]

    assert given(None) is judge
    assert given({"hidden": 0}) is judge
    assert given({"reward": other}) is other
    make_environment("tests/Guess-v0", None, judge, "collector")  # has no such parameter, and gets none


def test_without_a_reward_source_an_environment_can_be_reset_but_not_judged() -> None:
    env = make_environment("feedtune/CharText-v0", {"length": 1}, None, "task")
    env.reset(seed=0)
    with pytest.raises(UserError, match="was given no reward source"):
        env.step("a")


def test_options_reach_the_constructor_and_may_limit_the_steps() -> None:
    env = make_environment("tests/Guess-v0", {"hidden": 2, "max_episode_steps": 1}, None, "collector")
    env.reset(seed=0)
    assert checked_step(env, "0", "it") == ("higher", -0.25, False, True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tests/Gues-v0", None, r"task\.env: cannot find 'tests/Gues-v0'\. Did you mean 'tests/Guess-v0'\?$"),
        ("nobody/Guess-v0", None, r"cannot find 'nobody/Guess-v0'\. Did you mean 'tests/Guess-v0'\?$"),
        ("Guess", None, r"task\.env: cannot find 'Guess'\. Did you mean 'tests/Guess-v0'\?$"),
        ("tests/Guess-v7", None, r"cannot find 'tests/Guess-v7'\. Did you mean 'tests/Guess-v0'\?$"),
        # a full stop where the colon belongs; a class where the name belongs; nothing where a name belongs
        ("my.envs.tests/Guess-v0", None, r"Did you mean 'tests/Guess-v0'\?$"),
        ("feedtune.errors:MyOwnClass", None, r"no class; importing feedtune\.errors registers none of it$"),
        ("feedtune.errors:", None, r"cannot find 'feedtune\.errors:'\. A name is what an environment is"),
        ("Nothing-v0", None, r"such as feedtune/CharText-v0, no class; put its module first: module:name$"),
        ("feedtune.errors:tests/Gues-v0", None, r"Did you mean 'feedtune\.errors:tests/Guess-v0'\?$"),
        ("os:tests/Guess-v0", None, r"task\.env: the module 'os' is not trusted.*trust=\[os\]"),
        ("feedtune.nothing:X-v0", None, r"cannot import the module of 'feedtune.nothing:X-v0': No module"),
        ("tests/Guess-v0", {"nmber": 1}, r"task\.options: tests/Guess-v0 refused them: .*'nmber'$"),
        ("tests/Broken-v0", {"how": "constructor"}, r"task\.options: tests/Broken-v0 .*no screen"),
        ("feedtune/CharText-v0", {"length": 0}, r"task\.options: feedtune/CharText-v0: length"),
        ("tests/Broken-v0", {"how": "observation"}, r"expected observations that are texts .*found Box"),
        ("tests/Broken-v0", {"how": "action"}, r"task\.env=.*expected actions that are texts.*found Box"),
        ("CartPole-v1", None, r"task\.env=CartPole-v1: expected observations that are texts.*found Box"),
    ],
)
def test_what_is_refused_and_how(name: str, options: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_environment(name, options, None, "task")


def test_a_module_may_be_named_before_the_environment() -> None:
    name = "feedtune_plugins.environments:feedtune/TextEdit-v0"
    assert make_environment(name, None, judge, "task").unwrapped.max_edits == 8  # type: ignore[attr-defined]


def test_actions_are_texts_or_the_numbers_that_they_spell() -> None:
    texts = make_environment("tests/Guess-v0", None, None, "task")
    assert [action_of(text, texts) for text in ("0", "3", "01", "")] == ["0", None, None, None]
    numbers = make_environment("tests/Guess-v0", {"discrete": True}, None, "task")
    assert [action_of(text, numbers) for text in ("0", "2", "3", "-1", "two", "")] == [
        0,
        2,
        None,
        None,
        None,
        None,
    ]


def test_what_there_is_to_spell() -> None:
    assert texts_of_space(make_environment("tests/Guess-v0", None, None, "task")) == ("012",)
    numbers = make_environment("tests/Guess-v0", {"discrete": True}, None, "task")
    assert texts_of_space(numbers) == ("0", "1", "2")
    own = make_environment("feedtune/CharText-v0", {"alphabet": "xy"}, judge, "task")
    assert texts_of_space(own) == ("xy", "")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("step", r"collector\.env=it: step\('a'\) raised RuntimeError: out of paper"),
        ("inf", r"collector\.env=it: the reward of step\('a'\) is infinite"),
    ],
)
def test_a_step_that_goes_wrong(how: str, message: str) -> None:
    env = make_environment("tests/Broken-v0", {"how": how}, None, "collector")
    env.reset(seed=0)
    with pytest.raises(UserError, match=message):
        checked_step(env, "a", "it")


def test_without_gymnasium_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from feedtune_plugins.tasks.gymnasium import Gymnasium

    for name in list(sys.modules):
        if name.split(".")[0] == "gymnasium" or name.startswith("feedtune_plugins.environments"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    task = Gymnasium(env="feedtune/CharText-v0")
    with pytest.raises(UserError, match=r"needs the package 'gymnasium'.*feedtune\[environments\]"):
        task.load("train")
