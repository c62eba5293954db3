"""Playing episodes: environments and a policy by turns, many side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from feedtune.errors import UserError
from feedtune.policy import Policy
from feedtune.profiling import timed
from feedtune.sampling import Decoding
from feedtune.transcript import Talk, Transcript
from feedtune_plugins.environments.making import TextEnv, action_of, checked_step


@dataclass
class Episode:
    """One episode of an environment, and its transcript.

    Args:
        env: plays this episode alone until it is over.
        name: of the environment, for errors.
        seed: that it is reset with.
        transcript: empty.
        max_turns: most steps; the episode is cut there.
        invalid_reward: of an action that the environment does not have.
    """

    env: TextEnv
    name: str
    seed: int
    transcript: Transcript
    max_turns: int
    invalid_reward: float
    turns: int = 0  # steps so far
    invalid: bool = False  # closed by an action that the environment does not have
    over: bool = False

    @timed("reward")
    def begin(self) -> None:
        """Reset the environment and open the transcript."""
        observation, _ = self.env.reset(seed=self.seed)
        try:
            self.transcript.open(str(observation))
        except UserError as error:
            raise UserError(f"collector.env={self.name}: {error}") from error

    @timed("reward")
    def act(self) -> None:
        """Hand what was said to the environment; what it answers joins the transcript if it goes on."""
        transcript = self.transcript
        self.turns += 1
        action = action_of(transcript.close_turn(), self.env)
        if action is None:
            transcript.earn(self.invalid_reward)
            self.invalid = self.over = transcript.done = True
            return
        observation, reward, terminated, truncated = checked_step(self.env, action, self.name)
        transcript.earn(reward)
        if terminated:
            self.over = transcript.done = transcript.terminated = True
            return
        transcript.hear(observation)
        self.over = truncated or self.turns == self.max_turns or transcript.room < 1


def play(policy: Policy, episodes: Sequence[Episode], decoding: Decoding) -> None:
    """Play these episodes to their ends, side by side."""
    talk, playing = Talk(policy, decoding), list(episodes)
    for episode in playing:
        episode.begin()
    while playing:
        talk.turn([episode.transcript for episode in playing])
        for episode in playing:
            episode.act()
        rows = [row for row, episode in enumerate(playing) if not episode.over]
        if rows and len(rows) < len(playing):
            talk.keep(rows)
        playing = [playing[row] for row in rows]
