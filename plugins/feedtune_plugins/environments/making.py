"""Making a text environment by its name, and handing it actions as text."""

from __future__ import annotations

import importlib
import inspect
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator
from gymnasium.spaces import Discrete, Text

from feedtune.config.trust import is_trusted
from feedtune.contracts import RewardSource, Sample, Scores
from feedtune.errors import UserError, nearest, one_line

TextEnv = gymnasium.Env[str, Any]
VERSION = re.compile(r"-v\d+$")


def make_environment(
    name: str, options: Mapping[str, Any] | None, reward: RewardSource | None, noun: str
) -> TextEnv:
    """A new environment whose observations are texts and whose actions can be said as text.

    Args:
        name: as it is registered with Gymnasium, such as "feedtune/CharText-v0"; "module:name" imports the
            module that registers it first.
        options: arguments of its constructor, and `max_episode_steps` if wanted.
        reward: given to the constructor if that has a parameter `reward` and `options` do not set it.
        noun: "collector" or "task", for errors.

    Raises:
        UserError: there is none, its module is not trusted, it refuses the options, or it speaks no text.
    """
    spec = _spec(name, noun)
    given = dict(options or {})
    if "reward" not in given and "reward" in _parameters(spec):
        given["reward"] = reward or unjudged
    try:
        env: TextEnv = gymnasium.make(spec, **given)
    except UserError as error:
        raise UserError(f"{noun}.options: {error}") from error
    except Exception as error:  # whatever an environment's own code raises
        said, _, _ = one_line(error).partition(" was raised from the environment creator")
        raise UserError(f"{noun}.options: {name} refused them: {said}") from error
    # That a source has no opinion is no fault of the environment.
    warnings.filterwarnings("ignore", ".*The reward is a NaN value")
    _check_spaces(env, name, noun)
    return env


def unjudged(samples: Sequence[Sample]) -> Scores:
    """Stands where a reward source is missing: an environment that asks for a score is told so."""
    raise UserError("reward: the environment asks for a score, but was given no reward source")


def _spec(name: str, noun: str) -> gymnasium.envs.registration.EnvSpec:
    module, _, plain = name.rpartition(":")
    if module and not is_trusted(module):
        raise UserError(
            f"{noun}.env: the module '{module}' is not trusted. If you know what it does, add "
            f"trust=[{module.split('.')[0]}] on the command line"
        )
    try:
        if module:
            importlib.import_module(module)
    except Exception as error:  # whatever a module's own code raises
        raise UserError(f"{noun}.env: cannot import the module of '{name}': {one_line(error)}") from error
    try:
        return gymnasium.spec(plain)
    except gymnasium.error.Error as error:
        raise UserError(f"{noun}.env: cannot find '{name}'.{_hint(module, plain)}") from error


def _hint(module: str, plain: str) -> str:
    """What somebody may have meant by a name that nobody has registered, or what names are."""
    front = f"{module}:" if module else ""
    bare = {VERSION.sub("", known.split("/")[-1]): known for known in gymnasium.registry}
    meant = nearest(plain, gymnasium.registry)
    if not meant and (same := bare.get(VERSION.sub("", plain.split("/")[-1]))):
        meant = f" Did you mean '{same}'?"
    if meant:
        return meant.replace("'", f"'{front}", 1)
    where = f"importing {module} registers none of it" if module else "put its module first: module:name"
    return f" A name is what an environment is registered by, such as feedtune/CharText-v0, no class; {where}"


def _parameters(spec: gymnasium.envs.registration.EnvSpec) -> Mapping[str, inspect.Parameter]:
    point = spec.entry_point
    creator = load_env_creator(point) if isinstance(point, str) else point
    return {} if creator is None else inspect.signature(creator).parameters


def _check_spaces(env: TextEnv, name: str, noun: str) -> None:
    if not isinstance(env.observation_space, Text):
        raise UserError(
            f"{noun}.env={name}: expected observations that are texts (gymnasium.spaces.Text), "
            f"found {one_line(env.observation_space)}"
        )
    if not isinstance(env.action_space, Text | Discrete):
        raise UserError(
            f"{noun}.env={name}: expected actions that are texts or whole numbers (gymnasium.spaces.Text or "
            f"Discrete), found {one_line(env.action_space)}"
        )


def action_of(text: str, env: TextEnv) -> Any:
    """What a text means to the environment: itself, or the number that it spells; None: no action of its.

    >>> from gymnasium.envs.toy_text import FrozenLakeEnv
    >>> lake = FrozenLakeEnv()  # four moves, 0 to 3
    >>> action_of("2", lake), action_of("4", lake), action_of("left", lake)
    (2, None, None)
    """
    if isinstance(env.action_space, Text):
        return text if env.action_space.contains(text) else None
    try:
        number = int(text)
    except ValueError:
        return None
    return number if env.action_space.contains(number) else None


def texts_of_space(env: TextEnv) -> tuple[str, ...]:
    """What a tokenizer has to spell: the environment's own `texts`, or the letters of its actions.

    >>> from gymnasium.envs.toy_text import FrozenLakeEnv
    >>> texts_of_space(FrozenLakeEnv())
    ('0', '1', '2', '3')
    """
    own = getattr(env.unwrapped, "texts", None)
    if own is not None:
        return tuple(own)
    space = env.action_space
    if isinstance(space, Text):
        return ("".join(space.character_list),)
    assert isinstance(space, Discrete)
    return tuple(str(int(space.start) + i) for i in range(int(space.n)))


def checked_step(env: TextEnv, action: Any, name: str) -> tuple[str, float, bool, bool]:
    """`env.step`: observation, reward, terminated, truncated; what goes wrong names the environment."""
    try:
        observation, reward, terminated, truncated, _ = env.step(action)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"collector.env={name}: step({action!r}) raised {type(error).__name__}: {one_line(error)}"
        ) from error
    if math.isinf(float(reward)):
        raise UserError(f"collector.env={name}: the reward of step({action!r}) is infinite")
    return str(observation), float(reward), bool(terminated), bool(truncated)
