"""An agent for loops written by hand: it acts on observations and learns from rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from feedtune.completion import SUPPLIES, complete
from feedtune.contracts import Algorithm, Backbone, Buffer, Reference
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.module import MakeOptimizer
from feedtune.randomness import generator_for
from feedtune.references import reference_of
from feedtune.sampling import Decoding
from feedtune.text.codec import Codec
from feedtune.transcript import Manner, Observe, Step, Talk, Transcript, as_experience

ACT, LEARN = range(2)  # what a generator is for


class Agent:
    """The classic loop over an algorithm, a backbone and a codec, one environment at a time.

        observation, _ = env.reset(seed=0)
        while learning:
            action = agent.act(observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            agent.update(reward, terminated, truncated, observation)
            if terminated or truncated:
                observation, _ = env.reset()

    It learns whenever `episodes` episodes are over: the same trip of the data as in training (transcripts,
    `Algorithm.prepare`, a buffer if there is one, `Algorithm.loss`, `Algorithm.after_step`).

    Args:
        algorithm: any that needs nothing of a collector; one row at a time has no other rows to compare with,
            so baselines over rows want `episodes` above 1.
        make_backbone: builds a backbone with its first weights; called for each that the algorithm wants.
        codec: text to tokens and back.
        optimizer: takes parameter groups; by default AdamW at 1e-3.
        buffer: makes minibatches of the experience; null: one step on each batch of episodes.
        episodes: episodes to learn from at once.
        step, observe, max_new_tokens: see `feedtune.transcript.Manner`.
        decoding: how tokens are chosen; on-policy algorithms refuse all but the policy's own distribution.
        seed: everything that is drawn depends on it.

    Raises:
        UserError: the algorithm needs what no collector is here to supply, or refuses decoding or buffer.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        make_backbone: Callable[[], Backbone],
        codec: Codec,
        *,
        optimizer: MakeOptimizer | None = None,
        buffer: Buffer | None = None,
        episodes: int = 1,
        step: Step = "turn",
        observe: Observe = "new",
        max_new_tokens: int = 16,
        decoding: Decoding | None = None,
        seed: int = 0,
    ) -> None:
        missing = algorithm.needs() - SUPPLIES
        if missing:
            raise UserError(
                f"{type(algorithm).__name__} needs {', '.join(sorted(missing))}, which an agent has not"
            )
        self.decoding = decoding or Decoding()
        if algorithm.on_policy and self.decoding.warped:
            raise UserError(f"{type(algorithm).__name__} learns from the policy's own distribution only")
        algorithm.check_steps(1 if buffer is None else buffer.steps(episodes))
        self.algorithm, self.buffer, self.episodes, self.seed = algorithm, buffer, episodes, seed
        self.policy = algorithm.build_policy(make_backbone)
        algorithm.setup(self.policy)
        wanted = "reference" in algorithm.needs()
        self.reference: Reference | None = reference_of(self.policy) if wanted else None
        groups = [{"params": ps, "name": name} for name, ps in self.policy.parameter_groups().items()]
        self.optimizer = optimizer(groups) if optimizer else torch.optim.AdamW(groups, lr=1e-3)
        limit = self.policy.backbone.context_length
        self.manner = Manner(
            codec=codec, step=step, observe=observe, max_new_tokens=max_new_tokens, context_length=limit
        )
        self.metrics: dict[str, float] = {}  # of the last optimiser step and its batch
        self._begun = self._updates = 0
        self._finished: list[Transcript] = []
        self._transcript: Transcript | None = None
        self._talk: Talk | None = None

    def act(self, observation: str) -> str:
        """What the policy says to an observation: the first of an episode, or what followed its last action.

        Where the context is full the row is cut, and another begins with this observation.
        """
        if self._transcript is not None:
            self._transcript.hear(observation)
            if self._transcript.room < 1:
                self._finish(self._transcript)
        if self._transcript is None:
            self._transcript = self._open(observation)
        assert self._talk is not None
        self.policy.eval()
        self._talk.turn([self._transcript])
        return self._transcript.close_turn()

    def update(
        self, reward: float, terminated: bool, truncated: bool = False, observation: str | None = None
    ) -> None:
        """Take in what the environment made of the last action; learn if enough episodes are over.

        Args:
            reward: of the action.
            terminated: no reward follows.
            truncated: the episode was cut: the value of what would follow is bootstrapped.
            observation: the last one, which only a truncated episode needs.
        """
        transcript = self._transcript
        if transcript is None:
            raise RuntimeError("update() before act()")
        transcript.earn(reward)
        transcript.done = transcript.terminated = terminated
        if truncated and not terminated and observation is not None:
            transcript.hear(observation)
        if terminated or truncated:
            self._finish(transcript)

    def _open(self, observation: str) -> Transcript:
        transcript = Transcript(self.manner, generator_for(self.seed, self._begun, ACT))
        transcript.open(observation)
        self._begun += 1
        self._talk = Talk(self.policy, self.decoding)
        return transcript

    def _finish(self, transcript: Transcript) -> None:
        self._finished.append(transcript)
        self._transcript = None
        if len(self._finished) == self.episodes:
            self._learn(as_experience(self._finished))
            self._finished = []

    def _learn(self, exp: Experience) -> None:
        """The data's trip from a collection to the last optimiser step on it."""
        weights = list(self.policy.parameters())
        exact = not self.decoding.warped and all(w.dtype in (torch.float32, torch.float64) for w in weights)
        self.policy.eval()
        with torch.no_grad():
            exp = exp.to(weights[0].device)
            exp = complete(exp, self.algorithm.needs(), self.policy, self.reference, sampler_exact=exact)
            exp, prepared = self.algorithm.prepare(exp, self.policy)
        self.metrics = dict(prepared)
        self._updates += 1
        for minibatch in self._minibatches(exp):
            self._step(minibatch.to(weights[0].device))

    def _minibatches(self, exp: Experience) -> Iterable[Experience]:
        if self.buffer is None:
            return [exp]
        self.buffer.add(exp)
        return self.buffer.minibatches(generator_for(self.seed, self._updates, LEARN))

    def _step(self, exp: Experience) -> None:
        self.policy.train()
        loss = self.algorithm.loss(exp, self.policy)
        self.optimizer.zero_grad()
        (loss.sum / loss.denominator).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.algorithm.after_step(self.policy)
        self.metrics |= {name: float(value) for name, value in loss.metrics.items()}
