"""Act in a text environment: observation in, action out, until it says that it is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from feedtune.checks import check_choice
from feedtune.contracts import Collector, Plan, RewardSource, Rollout, Row, mean_of_scored
from feedtune.errors import UserError
from feedtune.experience import Experience, place_scores
from feedtune.policy import Policy
from feedtune.randomness import generator_for
from feedtune.rewards import rows_missing
from feedtune.sampling import Decoding
from feedtune.text.codec import Codec
from feedtune.transcript import Manner, Observe, Step, Transcript, as_experience

if TYPE_CHECKING:
    from feedtune_plugins.collectors.play import Episode
    from feedtune_plugins.environments.making import TextEnv

LARGEST_SEED = 2**31


class Gymnasium(Collector):
    """Episodes of any Gymnasium environment whose observations are texts; its actions are texts or numbers.

    A row of experience is the transcript of an episode: the first observation, the tokens of an action, the
    next observation and so on. Only tokens that the policy chose are actions, and they are trained as they
    were sampled. A step's reward stands on its last action token. An episode that the environment terminates
    is done and has ended. One that is cut - truncated by the environment, after `max_turns`, or where the
    backbone's context is full - is neither: the last observation is appended as far as it fits, so that the
    value of the final state can be bootstrapped. An action outside of the action space never reaches the
    environment: the episode is done, with `invalid_reward`.

    Args:
        codec: text to tokens and back.
        reward: handed to the environment's constructor if that has a parameter `reward`; not used otherwise.
        env: name that the environment is registered with, such as "feedtune/CharText-v0"; "module:name"
            imports the module first.
        options: arguments of its constructor, and `max_episode_steps` for a limit that truncates.
        episodes: episodes of a rollout, over all ranks. More gives steadier gradients and costs time.
        group_size: episodes from each start state (row of the task); it divides `episodes`.
        envs: environments that are played side by side on each rank. More is faster and takes memory.
        step: "turn": the policy speaks until an end-of-text token, a stop string or `max_new_tokens`, and
            what it said is the action. "token": the text of every single token is an action.
        observe: "new": of an observation that repeats the last one and the action, only what follows them
            is appended. "all": every observation as it is.
        max_turns: most steps of an episode.
        max_new_tokens: most tokens of an action; longer ones are cut, and acted as they are.
        invalid_reward: reward of an action that is none of the environment's.
        decoding: how tokens are drawn; anything but the policy's own distribution is refused by on-policy
            algorithms.
        records: episodes of each rollout that are kept as text for samples.jsonl.

    Raises:
        UserError: an argument is out of range, there is no such environment, or it is none of text.
    """

    def __init__(
        self,
        *,
        codec: Codec,
        reward: RewardSource | None = None,
        env: str,
        options: Mapping[str, Any] | None = None,
        episodes: int = 64,
        group_size: int = 1,
        envs: int = 16,
        step: Step = "turn",
        observe: Observe = "new",
        max_turns: int = 32,
        max_new_tokens: int = 16,
        invalid_reward: float = 0.0,
        decoding: Decoding | Mapping[str, Any] | None = None,
        records: int = 8,
    ) -> None:
        sizes = {
            "episodes": episodes,
            "group_size": group_size,
            "envs": envs,
            "max_turns": max_turns,
            "max_new_tokens": max_new_tokens,
        }
        for name, value in sizes.items():
            if value < 1:
                raise UserError(f"collector.{name}: expected at least 1, got {value}")
        if episodes % group_size:
            raise UserError(
                f"collector.group_size: {group_size} does not divide collector.episodes={episodes}"
            )
        check_choice("collector.step", step, get_args(Step))
        check_choice("collector.observe", observe, get_args(Observe))
        self.episodes, self.group_size, self.envs, self.records = episodes, group_size, envs, records
        self.decoding = decoding if isinstance(decoding, Decoding) else Decoding(**(decoding or {}))
        self.warped = self.decoding.warped
        self.greedy = False  # whether greedy episodes are to be played too
        self.env, self.max_turns, self.invalid_reward = env, max_turns, float(invalid_reward)
        self.manner = Manner(codec=codec, step=step, observe=observe, max_new_tokens=max_new_tokens)
        self._options, self._reward = options, reward
        self._pool: list[TextEnv] = []
        self._grow(1)  # what is wrong with the environment shows at once

    def supply(self, needs: frozenset[str]) -> frozenset[str]:
        self.greedy = "greedy" in needs
        return frozenset({"greedy", "groups"} if self.group_size > 1 else {"greedy"})

    def load(self, rows: Sequence[Row], context_length: int | None) -> Sequence[Row]:
        for number, row in enumerate(rows, 1):
            if row.get("env", self.env) != self.env:
                raise UserError(
                    f"task.env: its rows are start states of {row['env']}, but collector.env={self.env} is "
                    "what is played; set collector.env alone, from which the task takes its own"
                )
            seed = row.get("seed")
            if seed is not None and not (isinstance(seed, int) and seed >= 0):
                raise UserError(f"row {number}: 'seed' must be a whole number from 0, got {seed!r}")
        self.manner = replace(self.manner, context_length=context_length)
        return rows

    def plan(self, items: int, ranks: int) -> Plan:
        if self.episodes % (self.group_size * ranks):
            raise UserError(
                f"collector.episodes: {self.episodes} is not divisible by collector.group_size="
                f"{self.group_size} times {ranks} ranks"
            )
        rows = self.episodes // ranks
        return Plan(collections=1, items=rows // self.group_size, rows=rows)

    def collect(self, items: Sequence[Row], policy: Policy, generator: torch.Generator) -> Rollout:
        base = int(torch.randint(2**62, (), generator=generator))
        seeds = [self._seed(row, base, number) for number, row in enumerate(items)]
        played = self._play(policy, [s for s in seeds for _ in range(self.group_size)], base, self.decoding)
        exp, total = self._experience(played, self.group_size)
        metrics = _metrics(played, exp, total)
        if self.greedy:
            best = _totals(self._play(policy, seeds, base, Decoding(greedy=True)))
            exp = exp.with_(greedy=best.repeat_interleave(self.group_size))
            if bool(best.isnan().all()):  # nothing to compare with; a baseline of 0 would be a score of 0
                exp = place_scores(exp, torch.full((len(exp),), torch.nan))
            metrics["rollout/greedy"] = mean_of_scored(best)
        rewards = total[: self.records].tolist()
        records = [_record(e, r) for e, r in zip(played, rewards, strict=False)]
        return Rollout(exp, metrics, records, range(len(records)))

    def perform(
        self, rows: Sequence[Row], policy: Policy, generator: torch.Generator, decoding: Decoding
    ) -> Rollout:
        starts = self.load(rows, policy.backbone.context_length)
        base = int(torch.randint(2**62, (), generator=generator))
        seeds = [self._seed(row, base, number) for number, row in enumerate(starts)]
        played = self._play(policy, seeds, base, decoding)
        exp, total = self._experience(played)
        records = [_record(e, r) for e, r in zip(played, total.tolist(), strict=True)]
        return Rollout(exp, _metrics(played, exp, total), records)

    @staticmethod
    def _seed(row: Row, base: int, number: int) -> int:
        """What the environment is reset with: the row's own seed, or one that is drawn."""
        if row.get("seed") is not None:
            return int(row["seed"])
        return int(torch.randint(LARGEST_SEED, (), generator=generator_for(base, number, 1)))

    def _play(self, policy: Policy, seeds: Sequence[int], base: int, decoding: Decoding) -> list[Episode]:
        from feedtune_plugins.collectors.play import Episode, play

        played: list[Episode] = []
        self._grow(min(self.envs, len(seeds)))
        for start in range(0, len(seeds), self.envs):
            wave = [
                Episode(
                    self._pool[number - start],
                    self.env,
                    seeds[number],
                    Transcript(self.manner, generator_for(base, number)),
                    self.max_turns,
                    self.invalid_reward,
                )
                for number in range(start, min(start + self.envs, len(seeds)))
            ]
            play(policy, wave, decoding)
            played += wave
        return played

    def _grow(self, size: int) -> None:
        """See to it that there are so many environments."""
        from feedtune_plugins.environments.making import make_environment

        while len(self._pool) < size:
            env = make_environment(self.env, self._options, self._reward, "collector")
            self._pool.append(env)

    def _experience(self, played: Sequence[Episode], group_size: int = 1) -> tuple[Experience, Tensor]:
        """The transcripts as rows, and the sum of each one's rewards `[B]`; NaN: it takes part in nothing."""
        total = _totals(played)
        if bool(total.isnan().all()) and not rows_missing(self._reward):
            raise UserError(
                f"collector.env={self.env}: a reward of every one of {len(played)} episodes is NaN, so "
                "there is nothing to learn"
            )
        groups = [index // group_size for index in range(len(played))]
        return as_experience([e.transcript for e in played], groups), total


def _totals(played: Sequence[Episode]) -> Tensor:
    """Sum of the rewards of each episode, `[B]`."""
    return torch.tensor([sum(e.transcript.reward) for e in played], dtype=torch.float32)


def _metrics(played: Sequence[Episode], exp: Experience, total: Tensor) -> dict[str, float]:
    count = len(played)
    return {
        "rollout/reward": mean_of_scored(total),
        "rollout/unscored": float(total.isnan().sum()) / count,
        "rollout/length": sum(sum(e.transcript.action) for e in played) / count,
        "rollout/turns": sum(e.turns for e in played) / count,
        "rollout/ended": float(exp.ended.float().mean()),
        "rollout/truncated": float((~exp.done).float().mean()),
        "rollout/invalid": sum(e.invalid for e in played) / count,
        "rollout/distinct": len({_actions(e) for e in played}) / count,
    }


def _actions(episode: Episode) -> tuple[int, ...]:
    """The tokens that the policy chose, in order."""
    done = episode.transcript
    return tuple(token for token, chosen in zip(done.tokens, done.action, strict=True) if chosen)


def _record(episode: Episode, reward: float) -> dict[str, Any]:
    """An episode for people: observations are the user's, actions the assistant's."""
    said = episode.transcript.said
    (_, first), *rest = said
    between = "" if episode.transcript.manner.step == "token" else "\n"
    return {
        "prompt": first,
        "response": between.join(text for _, text in rest),
        "reward": reward,
        "ended": episode.transcript.terminated,
        "messages": [{"role": role, "content": text} for role, text in said],
    }
