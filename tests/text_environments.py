"""Text environments of another author, registered with Gymnasium as `tests/...`, and a codec for them."""

from __future__ import annotations

import string
from typing import Any, ClassVar

import gymnasium
from gymnasium.spaces import Box, Discrete, Text

from feedtune.text.codec import Codec
from feedtune.text.tokenizers import TrainedTokenizer

WORDS = ["0", "1", "2", "higher", "lower"]
Step = tuple[str, float, bool, bool, dict[str, Any]]


def make_codec() -> Codec:
    """The five words and six special tokens: 11 tokens, as many as the tiny backbones know."""
    codec: Codec = TrainedTokenizer(kind="word").build(lambda: [" ".join(WORDS)])
    assert codec.vocab_size == 11
    return codec


class Guess(gymnasium.Env[str, Any]):
    """Guess a number from 0 to 2; the answer to a wrong guess says where it lies.

    Reward: 1 for the right number (terminated), -0.25 for a wrong one; truncated after `tries`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(self, hidden: int | None = None, tries: int = 3, discrete: bool = False) -> None:
        self.given, self.tries = hidden, tries
        self.observation_space = Text(12, charset=string.ascii_lowercase + " ")
        self.action_space = Discrete(3) if discrete else Text(1, charset="012")

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.hidden = int(self.np_random.integers(3)) if self.given is None else self.given
        self.left = self.tries
        return "lower higher", {}

    def step(self, action: Any) -> Step:
        self.left -= 1
        guess = int(action)
        if guess == self.hidden:
            return "higher", 1.0, True, False, {}
        return "lower" if guess > self.hidden else "higher", -0.25, False, self.left == 0, {}


class Parrot(gymnasium.Env[str, str]):
    """Takes any text. Says "lower" or "higher" at random, pays a tenth a letter, ends at random.

    With `whole`, it repeats everything that it and the policy have said.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(self, whole: bool = False, steps: int = 6, pay: float = 0.1) -> None:
        self.whole, self.steps, self.pay = whole, steps, pay
        self.observation_space = Text(1000, min_length=0, charset=string.printable)
        self.action_space = Text(1000, min_length=0, charset=string.printable)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.left, self.heard, self.text = self.steps, list[str](), self._word()
        return self.text, {}

    def step(self, action: str) -> Step:
        self.left -= 1
        self.heard.append(action)
        new = " " + " ".join(self._word() for _ in range(int(self.np_random.integers(1, 3))))
        self.text += action + new
        over = bool(self.np_random.random() < 0.15)
        pay = self.pay * len(action)
        return self.text if self.whole else new, pay, over, self.left == 0 and not over, {}

    def _word(self) -> str:
        return str(self.np_random.choice(["lower", "higher"]))


class Broken(gymnasium.Env[str, str]):
    """Goes wrong in a way of one's choice."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(self, how: str = "step") -> None:
        if how == "constructor":
            raise RuntimeError("no screen")
        self.how = how
        self.observation_space: Any = Box(0, 1) if how == "observation" else Text(9)
        self.action_space: Any = (
            Box(0, 1) if how == "action" else Text(99, min_length=0, charset=string.printable)
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "lower", {}

    def step(self, action: str) -> Step:
        if self.how == "step":
            raise RuntimeError("out of paper")
        sometimes = float("nan") if self.np_random.random() < 0.5 else 1.0
        reward = {"nan": float("nan"), "inf": float("inf"), "sometimes": sometimes}[self.how]
        return "lower", reward, True, False, {}


class Judged(Guess):
    """Says which reward source it was given."""

    def __init__(self, reward: Any, hidden: int = 1) -> None:
        super().__init__(hidden=hidden)
        self.reward = reward


for made in (Guess, Parrot, Broken, Judged):
    gymnasium.registry.pop(f"tests/{made.__name__}-v0", None)  # collecting doctests imports this file anew
    gymnasium.register(f"tests/{made.__name__}-v0", entry_point=made, disable_env_checker=made is Broken)
