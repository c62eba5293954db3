"""The runs that are killed: one for each kind of state that has to survive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kills.layout import EVERY_STEP
from small_runs import overrides, rows_for, write_rows

ADAPTIVE = "algorithm.kl.adaptive={_target_: feedtune_plugins.algorithms.Adaptive, target: 0.1, horizon: 9}"
SCALED = "algorithm.scaling={_target_: feedtune_plugins.algorithms.RunningScale, center: true}"
FALLING = (
    "algorithm.acting.epsilon="
    "{_target_: feedtune_plugins.algorithms.LinearEpsilon, start: 1.0, end: 0.05, steps: 10}"
)
QUICK = ("report=false", "selfcheck=false")


@dataclass(frozen=True)
class Case:
    """A tiny run.

    Args:
        backbone, algorithm, options: what is trained, and how.
        world: processes that train together (gloo).
        saved: how often it is saved.
    """

    backbone: str
    algorithm: str
    options: tuple[str, ...] = ()
    world: int = 1
    saved: str = EVERY_STEP

    @property
    def steps_of(self) -> int:
        """Minibatches of an optimiser step."""
        prefix = "trainer.accumulate_grad_batches="
        return max(
            [int(one.removeprefix(prefix)) for one in self.options if one.startswith(prefix)], default=1
        )

    def arguments(self, folder: Path, *more: str) -> list[str]:
        """Of `feedtune train`, for a run in `folder/run` that reads `folder/rows.jsonl`."""
        folder.mkdir(parents=True, exist_ok=True)
        data = write_rows(folder, rows_for(self.algorithm))
        chosen = overrides(data, self.backbone, self.algorithm, *self.options)
        if self.world > 1:
            chosen += ["trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={self.world}"]
        # Later ones win.
        return [
            "train",
            *chosen,
            *QUICK,
            "optimizer.lr=0.01",
            self.saved,
            *more,
            f"hydra.run.dir={folder / 'run'}",
        ]


def _both(algorithm: str, *options: str) -> dict[str, Case]:
    return {
        f"{algorithm} on {backbone}": Case(backbone, algorithm, options)
        for backbone in ("lstm", "transformer")
    }


CASES: dict[str, Case] = {
    # 3 minibatches an epoch (25 rows, 8 each) and steps of 2 and 1 of them; a rate that falls
    **_both("sft", "trainer.accumulate_grad_batches=2", "scheduler=cosine"),
    # a running mean of returns as baseline
    **_both("reinforce", "algorithm.advantage.baseline=running", "trainer.max_epochs=4"),
    # 3 minibatches a rollout in steps of 2 and 1; a leash whose strength is moved; running moments of scores
    **_both(
        "ppo",
        ADAPTIVE,
        SCALED,
        "buffer.passes=1",
        "buffer.minibatches=3",
        "trainer.accumulate_grad_batches=2",
    ),
    # groups of 4; a leash in the loss
    **_both("grpo", "collector.group_size=4", "buffer.passes=1", "buffer.minibatches=2"),
    # replay: what earlier rollouts brought is drawn from again
    **_both("q_learning", "buffer.updates=2", "buffer.minibatch_size=4", "optimizer.lr=0.001"),
    # a copy of the network that follows, and a falling share of random tokens
    "dqn on lstm": Case("lstm", "dqn", (FALLING, "buffer.updates=2", "buffer.minibatch_size=4")),
}
"""Each is killed at every minibatch."""

DROPOUT = Case("transformer", "ppo", ("backbone.dropout=0.2", "trainer.max_epochs=1"))

TWO_PROCESSES = Case("lstm", "ppo", (ADAPTIVE, SCALED, "buffer.passes=1", "buffer.minibatches=2"), world=2)

LONGER = {
    "ppo": Case("lstm", "ppo", (ADAPTIVE, SCALED, "trainer.max_epochs=8")),
    "q_learning": Case("transformer", "q_learning", ("buffer.updates=4", "trainer.max_epochs=10")),
}
"""Killed at random moments."""
