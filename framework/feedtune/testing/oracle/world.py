"""Token worlds that are small enough to be enumerated: every state, every row, every reward.

A state is everything that a policy has read before it chooses a token. Because a row's rewards depend on its
tokens alone, rows form a tree, and expectations are sums over its leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from math import factorial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Context = tuple[int, ...]
Reward = Callable[[Context, int], float]
"""What choosing a token after a context pays."""

NOWHERE = -1
"""In place of a state's number: no reward follows."""


@dataclass(frozen=True, eq=False)
class Row:
    """One row: a prompt, the tokens that were chosen and, where there are turns, what was observed.

    T tokens, of which n are actions.
    """

    tokens: Context  # the whole row, from the prompt's first token on
    action: tuple[bool, ...]  # [T]: chosen by the policy
    reward: Floats  # [T]: on the token that earned it; 0 elsewhere
    states: Ints  # [n]: number of the state in which each action token was chosen
    final: int  # number of the state after the row, from which values go on; NOWHERE in rows that are done
    prompt: int  # number of the prompt
    ended: bool  # closed by the end-of-text token, not cut at the limit
    scored: bool = True  # whether the reward source had an opinion

    @property
    def done(self) -> bool:
        """No reward counts after this row."""
        return self.final == NOWHERE

    @property
    def chosen(self) -> Ints:
        """The action tokens, `[n]`."""
        return np.array([token for token, acts in zip(self.tokens, self.action, strict=True) if acts], int)

    @property
    def earned(self) -> Floats:
        """Rewards of the action tokens, `[n]`."""
        found: Floats = self.reward[np.array(self.action, bool)]
        return found

    @property
    def score(self) -> float:
        """The sum of all rewards."""
        return float(self.reward.sum())

    def unscored(self) -> Row:
        """The row with a reward of NaN: it keeps its tokens, and takes part in nothing."""
        nothing = np.zeros(len(self.tokens))
        silent = (False,) * len(self.tokens)
        return replace(self, reward=nothing, action=silent, states=self.states[:0], scored=False)

    def silent(self) -> Row:
        """The row with its actions made part of the prompt, and its score kept on the last token."""
        reward = np.zeros(len(self.tokens))
        reward[-1] = self.score
        return replace(self, reward=reward, action=(False,) * len(self.tokens), states=self.states[:0])


class World:
    """All rows over a vocabulary that end with the end-of-text token or are cut at a length.

    A policy is a table of logits `[S, V]`, one line a state. Between turns come observation tokens that the
    world picks by what was said (any token, the end-of-text token too).

    Args:
        vocab_size: V, the number of tokens.
        length: most action tokens of a turn.
        eos: the token that ends a turn; by default the last one.
        prompts: none may be the beginning of another.
        prompt_probability: of each prompt; by default all are equally likely.
        turns: of the policy, with an observation between any two.
        observation: tokens of an observation.
        reward: "token": every token earns something of its own, normally distributed; "row": only the last
            one; or a function of a context and a token.
        cut: a row at the length limit is "done" (scored as it is) or "truncated": not done, and worth
            `beyond` of the state after it.
        seed: of rewards, observations and `beyond`.

    >>> world = World(vocab_size=2, length=2, prompts=[(0,)], reward=lambda context, token: 1.0)
    >>> [row.tokens for row in world.rows]  # token 1 ends a row
    [(0, 0, 0), (0, 0, 1), (0, 1)]
    >>> world.states
    [(0,), (0, 0)]
    """

    def __init__(
        self,
        *,
        vocab_size: int = 3,
        length: int = 2,
        eos: int | None = None,
        prompts: Sequence[Sequence[int]] = ((1,),),
        prompt_probability: Sequence[float] | None = None,
        turns: int = 1,
        observation: int = 1,
        reward: Literal["token", "row"] | Reward = "token",
        cut: Literal["done", "truncated"] = "done",
        seed: int = 0,
    ) -> None:
        self.vocab_size, self.length, self.turns, self.cut = vocab_size, length, turns, cut
        self.eos = vocab_size - 1 if eos is None else eos
        self.prompts = [tuple(prompt) for prompt in prompts]
        even = [1 / len(self.prompts)] * len(self.prompts)
        self.prompt_probability = np.array(even if prompt_probability is None else prompt_probability, float)
        self.states: list[Context] = []
        self.rows: list[Row] = []
        self.index: dict[Context, int] = {}  # the number of each state
        self._observation, self._reward = observation, reward
        self._random = np.random.default_rng(seed)
        self._edges: dict[tuple[int, int], tuple[float, int]] = {}  # (state, token): reward, next state
        self._beyond: dict[int, float] = {}
        self._explore()
        shape = (len(self.states), vocab_size)
        self.reward = np.zeros(shape)  # [S, V]: what each token earns in each state
        self.next_state = np.full(shape, NOWHERE)  # [S, V]: where it leads; NOWHERE where no reward follows
        for edge, (earned, following) in self._edges.items():
            self.reward[edge], self.next_state[edge] = earned, following
        self.beyond = np.zeros(len(self.states))  # [S]: what a truncated row would still have earned
        for state, worth in self._beyond.items():
            self.beyond[state] = worth

    @property
    def deciding(self) -> NDArray[np.bool_]:
        """States in which the policy chooses, `[S]`; the others are where truncated rows were left."""
        return np.array([state not in self._beyond for state in range(len(self.states))], bool)

    def answers(self, prompt: int) -> list[int]:
        """Numbers of the rows that begin with a prompt."""
        return [number for number, row in enumerate(self.rows) if row.prompt == prompt]

    def random_logits(self, seed: int, scale: float = 1.0) -> Floats:
        """A policy `[S, V]`, its logits normally distributed."""
        return np.random.default_rng(seed).normal(scale=scale, size=self.reward.shape)

    def random_values(self, seed: int) -> Floats:
        """A value `[S]` for every state, as wrong as that of a critic that has learned nothing."""
        return np.random.default_rng(seed).normal(size=len(self.states))

    def _explore(self) -> None:
        for number, prompt in enumerate(self.prompts):
            self._visit(_Path(number, prompt, (False,) * len(prompt), (0.0,) * len(prompt)), 0, 1)

    def _visit(self, path: _Path, said: int, turn: int) -> None:
        """Every way on from here: `said` tokens of this turn were chosen."""
        state = self._number(path.tokens)
        for token in range(self.vocab_size):
            closed = token == self.eos
            over = closed or said + 1 == self.length
            last = over and turn == self.turns
            earned = self._pay(path.tokens, token, last)
            longer = path.grown((token,), True, earned, state)
            if over and not last:
                observed = self._random.integers(self.vocab_size, size=self._observation)
                longer = longer.grown(tuple(int(t) for t in observed), False)
            following = self._leave(longer, closed) if last else len(self.states)
            self._edges[state, token] = earned, following
            if last:
                self.rows.append(longer.row(following, closed))
            else:
                self._visit(longer, 0 if over else said + 1, turn + over)

    def _leave(self, path: _Path, closed: bool) -> int:
        """The state after a row: nowhere, unless it was truncated."""
        if closed or self.cut == "done":
            return NOWHERE
        state = self._number(path.tokens)
        self._beyond[state] = float(self._random.normal())
        return state

    def _number(self, context: Context) -> int:
        if context in self.index:
            raise ValueError(f"context {context} belongs to two prompts")
        self.index[context] = len(self.states)
        self.states.append(context)
        return self.index[context]

    def _pay(self, context: Context, token: int, last: bool) -> float:
        if callable(self._reward):
            return self._reward(context, token)
        drawn = float(self._random.normal())
        return drawn if last or self._reward == "token" else 0.0


@dataclass(frozen=True)
class _Path:
    """A row that is not over yet."""

    prompt: int
    tokens: Context
    action: tuple[bool, ...]
    reward: tuple[float, ...]
    states: tuple[int, ...] = ()

    def grown(self, tokens: Context, action: bool, earned: float = 0.0, state: int | None = None) -> _Path:
        states = self.states if state is None else (*self.states, state)
        more = len(tokens)
        rewards = (*self.reward, *(earned,) * more)
        return _Path(self.prompt, self.tokens + tokens, (*self.action, *(action,) * more), rewards, states)

    def row(self, final: int, ended: bool) -> Row:
        states: Any = np.array(self.states, int)
        return Row(self.tokens, self.action, np.array(self.reward), states, final, self.prompt, ended)


def multisets(numbers: Sequence[int], size: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Batches of `size` of these numbers in which order does not count, and how many orders each has.

    >>> list(multisets([3, 5], 2))
    [((3, 3), 1), ((3, 5), 2), ((5, 5), 1)]
    """
    for chosen in combinations_with_replacement(numbers, size):
        orders = factorial(size)
        for number in set(chosen):
            orders //= factorial(chosen.count(number))
        yield chosen, orders
