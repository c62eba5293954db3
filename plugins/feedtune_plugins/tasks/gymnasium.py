"""Start states of a text environment, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedtune.contracts import Row, Task
from feedtune.errors import UserError


class Gymnasium(Task):
    """Rows `{"prompt": the first observation, "seed": 64, "text": [what is spelt], "env": its name}`.

    `collector=gymnasium` resets the environment with a row's seed, so that a row is a start state that comes
    again; the seeds of the two splits differ. A tokenizer is trained on `prompt` and `text`: what the
    environment says it speaks by an attribute `texts`, or else the letters of its actions; and `texts`.

    Args:
        env: the environment's name; that of the collector.
        options: arguments of its constructor; those of the collector.
        rows: start states to train on.
        eval_rows: start states held out.
        seed: the first of the seeds, which are whole numbers in a row: first those held out.
        texts: further texts that the tokenizer is to spell, such as what the environment answers.

    Raises:
        UserError: an argument is out of range, or there is no such text environment.
    """

    def __init__(
        self,
        *,
        env: str,
        options: Mapping[str, Any] | None = None,
        rows: int = 256,
        eval_rows: int = 64,
        seed: int = 0,
        texts: Sequence[str] = (),
    ) -> None:
        least = {"rows": (rows, 1), "eval_rows": (eval_rows, 0), "seed": (seed, 0)}
        for key, (value, smallest) in least.items():
            if value < smallest:
                raise UserError(f"task.{key}: expected a number from {smallest}, got {value}")
        self.env, self.options = env, options
        self.rows, self.eval_rows, self.seed, self.texts = rows, eval_rows, seed, tuple(texts)

    def load(self, split: str) -> Sequence[Row]:
        if split not in ("train", "eval"):
            raise ValueError(f"expected the split 'train' or 'eval', got {split!r}")
        from feedtune_plugins.environments.making import make_environment, texts_of_space

        env = make_environment(self.env, self.options, None, "task")
        text = [*texts_of_space(env), *self.texts]
        start = self.seed if split == "eval" else self.seed + self.eval_rows
        seeds = range(start, start + (self.eval_rows if split == "eval" else self.rows))
        same = {"text": text, "env": self.env}
        rows = [{"prompt": str(env.reset(seed=seed)[0]), "seed": seed, **same} for seed in seeds]
        env.close()
        return rows
