"""How each card of conf/algorithm learns the small task on each backbone, and how well it has to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """A training: epochs, learning rate, the score that it must reach, and what else is not as shipped."""

    epochs: int
    lr: float
    at_least: float
    overrides: tuple[str, ...] = ()

    def chosen(self) -> tuple[str, ...]:
        """All overrides of the run.

        >>> Setting(40, 0.01, 0.8).chosen()
        ('optimizer.lr=0.01',)
        """
        return (f"optimizer.lr={self.lr}", *self.overrides)


# An answer has two letters and an end. Twice the responses of the cards: so few tokens cost the same.
ANSWERS = ("collector.responses=128", "collector.max_new_tokens=3")
# A fourth token costs a third, a fifth would cost two: at three, ending at once would be the best start.
DAPO = (
    "collector.responses=128",
    "collector.max_new_tokens=4",
    "algorithm.overlong.limit=6",
    "algorithm.overlong.margin=3",
)
# A policy that is nearly sure has few answers left to compare, and at a full rate each of them is a leap by
# which a rounding difference can grow into another policy: the rate falls to 0, and what is learnt stays.
DECAY = ("scheduler=linear",)
SETTLING = (*ANSWERS, *DECAY)
# No leash: a group that says one wrong answer eight times has nothing left to learn from.
VARIED = (*SETTLING, "algorithm.entropy=0.02")
VALUES = (*ANSWERS, "optimizer=adam")
Q_TABLE = (*ANSWERS, "optimizer=sgd", "algorithm.acting.epsilon=0.5", "buffer.updates=16")
LOG = ("collector.rows=64",)
# Weights for rewards of at most 1: as shipped, both keep closer to a log that is mostly wrong.
CQL = (*LOG, "algorithm.conservative=0.1")
CQL_FAST = (*CQL, "algorithm.target.polyak=0.2")
ILQL = (*LOG, "algorithm.beta=8", "algorithm.target.polyak=0.1")
ILQL_SURE = (*LOG, "algorithm.beta=16", "algorithm.target.polyak=0.1", *DECAY)
DPO = ("algorithm.beta=0.5", *DECAY)
# One layer cannot count letters that are alike, and learning from others makes the most of such mistakes.
TWO_LAYERS = ("backbone.layers=2",)
CQL_TWO_LAYERS = (*CQL_FAST, *TWO_LAYERS, *DECAY)
DPO_TWO_LAYERS = (*DPO, *TWO_LAYERS)
ONLY_A_TABLE = "the sum of squares and plain SGD are a table's update; algorithm=dqn is the one for networks"

IMITATION = {
    "ngram": Setting(30, 0.1, 0.0, LOG),
    "lstm": Setting(60, 0.01, 0.0, LOG),
    "gru": Setting(60, 0.01, 0.0, LOG),
    "transformer": Setting(60, 0.005, 0.0, (*LOG, *TWO_LAYERS, *DECAY)),
}
"""How sft learns to speak like the log; dpo starts from there."""

SETTINGS: dict[str, Mapping[str, Setting | str]] = {
    "reinforce": {
        "ngram": Setting(40, 0.2, 0.85, ANSWERS),  # 0.98, 0.98
        "lstm": Setting(80, 0.01, 0.85, ANSWERS),  # 0.94, 0.97
        "gru": Setting(80, 0.01, 0.85, ANSWERS),  # 0.97, 0.99
        "transformer": Setting(160, 0.01, 0.85, SETTLING),  # 0.99, 0.96
    },
    "a2c": {
        "ngram": Setting(40, 0.2, 0.85, ANSWERS),  # 0.99, 0.98
        "lstm": Setting(80, 0.01, 0.85, ANSWERS),  # 0.96, 0.99
        "gru": Setting(80, 0.01, 0.85, ANSWERS),  # 0.97, 0.99
        "transformer": Setting(160, 0.01, 0.85, SETTLING),  # 0.97, 0.98
    },
    "ppo": {
        "ngram": Setting(20, 0.2, 0.85, ANSWERS),  # 0.98, 0.98
        "lstm": Setting(40, 0.01, 0.85, ANSWERS),  # 0.98, 0.99
        "gru": Setting(40, 0.01, 0.85, ANSWERS),  # 0.98, 0.97
        "transformer": Setting(80, 0.01, 0.85, SETTLING),  # 0.98, 0.98
    },
    "rloo": {
        "ngram": Setting(40, 0.2, 0.85, ANSWERS),  # 0.98, 0.98
        "lstm": Setting(80, 0.01, 0.85, ANSWERS),  # 0.97, 0.99
        "gru": Setting(80, 0.01, 0.85, ANSWERS),  # 0.98, 0.99
        "transformer": Setting(160, 0.01, 0.85, SETTLING),  # 0.98, 0.99
    },
    "grpo": {
        "ngram": Setting(20, 0.2, 0.90, ANSWERS),  # 0.99, 0.99
        "lstm": Setting(40, 0.01, 0.85, ANSWERS),  # 0.98, 0.99
        "gru": Setting(40, 0.01, 0.85, ANSWERS),  # 0.98, 0.97
        "transformer": Setting(80, 0.01, 0.85, SETTLING),  # 0.99, 0.97
    },
    "dr_grpo": {
        "ngram": Setting(20, 0.2, 0.90, ANSWERS),  # 0.99, 0.99
        "lstm": Setting(40, 0.01, 0.85, ANSWERS),  # 0.99, 0.97
        "gru": Setting(40, 0.01, 0.85, ANSWERS),  # 0.96, 1.00
        "transformer": Setting(100, 0.005, 0.85, SETTLING),  # 0.95, 1.00
    },
    "dapo": {
        "ngram": Setting(40, 0.1, 0.90, (*DAPO, "collector.group_size=16")),  # 0.99, 0.99
        "lstm": Setting(40, 0.01, 0.90, DAPO),  # 1.00, 1.00
        "gru": Setting(40, 0.01, 0.90, DAPO),  # 1.00, 0.99
        "transformer": Setting(100, 0.005, 0.90, (*DAPO, *DECAY)),  # 0.99, 0.99
    },
    "gspo": {
        "ngram": Setting(20, 0.2, 0.85, ANSWERS),  # 0.98, 0.99
        "lstm": Setting(40, 0.01, 0.90, ANSWERS),  # 0.99, 0.99
        "gru": Setting(40, 0.01, 0.90, ANSWERS),  # 0.99, 1.00
        "transformer": Setting(80, 0.01, 0.90, SETTLING),  # 0.99, 0.99
    },
    "cispo": {
        "ngram": Setting(20, 0.2, 0.90, ANSWERS),  # 1.00, 0.99
        "lstm": Setting(100, 0.005, 0.85, SETTLING),  # 0.97, 0.97
        "gru": Setting(100, 0.005, 0.85, VARIED),  # 0.97, 1.00
        "transformer": Setting(120, 0.005, 0.85, SETTLING),  # 1.00, 1.00
    },
    "reinforce_pp": {
        "ngram": Setting(20, 0.2, 0.85, ANSWERS),  # 0.96, 0.98
        "lstm": Setting(40, 0.01, 0.85, ANSWERS),  # 0.99, 0.98
        "gru": Setting(40, 0.01, 0.90, ANSWERS),  # 0.99, 0.99
        "transformer": Setting(80, 0.01, 0.85, SETTLING),  # 0.98, 0.98
    },
    "remax": {
        "ngram": Setting(40, 0.2, 0.85, ANSWERS),  # 0.98, 0.98
        "lstm": Setting(80, 0.01, 0.85, ANSWERS),  # 0.95, 0.95
        "gru": Setting(80, 0.01, 0.85, ANSWERS),  # 0.97, 0.97
        "transformer": Setting(160, 0.01, 0.85, SETTLING),  # 0.98, 0.96
    },
    "q_learning": {
        "ngram": Setting(60, 0.2, 0.90, Q_TABLE),  # 1.00, 1.00
        "lstm": ONLY_A_TABLE,
        "gru": ONLY_A_TABLE,
        "transformer": ONLY_A_TABLE,
    },
    "dqn": {
        "ngram": Setting(60, 0.05, 0.90, VALUES),  # 1.00, 1.00
        "lstm": Setting(60, 0.003, 0.90, VALUES),  # 1.00, 1.00
        "gru": Setting(60, 0.003, 0.90, VALUES),  # 1.00, 1.00
        "transformer": Setting(60, 0.005, 0.90, VALUES),  # 1.00, 1.00
    },
    "soft_q": {
        "ngram": Setting(60, 0.03, 0.90, VALUES),  # 1.00, 1.00
        "lstm": Setting(80, 0.005, 0.90, VALUES),  # 1.00, 1.00
        "gru": Setting(80, 0.005, 0.90, VALUES),  # 1.00, 1.00
        "transformer": Setting(100, 0.005, 0.85, (*VALUES, *DECAY)),  # 1.00, 0.97
    },
    "cql": {
        "ngram": Setting(20, 0.1, 0.90, CQL),  # 1.00, 1.00
        "lstm": Setting(40, 0.02, 0.90, CQL_FAST),  # 1.00, 1.00
        "gru": Setting(40, 0.02, 0.90, CQL_FAST),  # 1.00, 1.00
        "transformer": Setting(150, 0.005, 0.90, CQL_TWO_LAYERS),  # 1.00, 1.00
    },
    "ilql": {
        "ngram": Setting(20, 0.1, 0.85, ILQL),  # 0.94, 0.96
        "lstm": Setting(80, 0.01, 0.85, ILQL),  # 0.93, 0.94
        "gru": Setting(80, 0.01, 0.80, ILQL),  # 0.95, 0.94
        "transformer": Setting(80, 0.005, 0.85, ILQL_SURE),  # 0.95, 0.98
    },
    "sft": {
        "ngram": Setting(40, 0.1, 0.85),  # 0.97, 0.97
        "lstm": Setting(40, 0.01, 0.80),  # 0.95, 0.99
        "gru": Setting(40, 0.01, 0.90),  # 0.99, 0.99
        "transformer": Setting(40, 0.01, 0.90),  # 1.00, 0.99
    },
    "reward_model": {
        "ngram": Setting(10, 0.1, 0.90),  # 1.00, 1.00
        "lstm": Setting(30, 0.01, 0.90),  # 1.00, 1.00
        "gru": Setting(30, 0.01, 0.90),  # 1.00, 1.00
        "transformer": Setting(100, 0.003, 0.90, (*TWO_LAYERS, *DECAY)),  # 1.00, 0.98: one of 69 pairs wrong
    },
    "dpo": {
        "ngram": Setting(10, 0.1, 0.90),  # 1.00, 1.00
        "lstm": Setting(15, 0.002, 0.80, DPO),  # 0.89, 0.95
        "gru": Setting(15, 0.002, 0.80, DPO),  # 0.98, 0.99
        "transformer": Setting(25, 0.001, 0.70, DPO_TWO_LAYERS),  # 0.99, 0.96; 0.82 with seed 2
    },
    "online_dpo": {
        "ngram": Setting(40, 0.2, 0.85, ANSWERS),  # 0.99, 0.99
        "lstm": Setting(80, 0.01, 0.90, ANSWERS),  # 0.99, 1.00
        "gru": Setting(80, 0.01, 0.90, ANSWERS),  # 0.99, 1.00
        "transformer": Setting(160, 0.01, 0.90, SETTLING),  # 0.99, 0.99
    },
    "best_of_n": {
        "ngram": Setting(60, 0.1, 0.85, ANSWERS),  # 0.95, 0.96
        "lstm": Setting(120, 0.01, 0.90, ANSWERS),  # 0.99, 1.00
        "gru": Setting(80, 0.01, 0.85, ANSWERS),  # 0.97, 1.00
        "transformer": Setting(120, 0.01, 0.90, SETTLING),  # 1.00, 0.99
    },
    "raft": {
        "ngram": Setting(30, 0.1, 0.90, ANSWERS),  # 0.99, 0.99
        "lstm": Setting(40, 0.01, 0.90, ANSWERS),  # 1.00, 0.99
        "gru": Setting(40, 0.01, 0.90, ANSWERS),  # 1.00, 0.99
        "transformer": Setting(60, 0.01, 0.90, SETTLING),  # 1.00, 0.99
    },
}
"""By card and backbone; behind each, what seeds 0 and 1 came to.

Thresholds lie 0.08 or more below it: other seeds, and the last bits of other machines, move it by less.
"""
