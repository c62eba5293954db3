"""Alarms: what goes wrong in tuning by reward, seen in the epoch's numbers and said once, with what to try.

Each rule looks at metrics that the run has anyway and compares them with the run's own first epochs. Where a
run has no such metric (imitation draws no responses), the rule is silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from feedtune.checks import check_positive
from feedtune.errors import UserError
from feedtune.module import TuningModule

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Rule:
    """What an alarm asks of an epoch.

    Args:
        needs: metrics without which it says nothing.
        broken: of this epoch's metrics, the means of the first epochs and the threshold.
        seen: what it saw, as a template over `now`, `first` (of the first metric) and `limit`.
        advice: what it may mean and what to try.
        relative: whether it compares with the first epochs, and so waits for them.
    """

    needs: tuple[str, ...]
    broken: Callable[[Numbers, Numbers, float], bool]
    seen: str
    advice: str
    relative: bool = True


def _below(metric: str) -> Callable[[Numbers, Numbers, float], bool]:
    return lambda now, first, share: now[metric] < share * first[metric]


def _above(metric: str) -> Callable[[Numbers, Numbers, float], bool]:
    return lambda now, first, times: now[metric] > times * first[metric]


RULES: Mapping[str, Rule] = {
    "kl": Rule(
        ("policy/kl", "rollout/length"),
        lambda now, first, limit: now["policy/kl"] > limit * max(1.0, now["rollout/length"]),
        "policy/kl is {now:.3g} nats a response, more than {limit:g} a token",
        "The policy says what the reference hardly ever would: often the reward is being gamed. Try a higher "
        "algorithm.kl.coefficient or a lower optimizer.lr, and read samples.jsonl",
        relative=False,
    ),
    "entropy": Rule(
        ("policy/entropy",),
        _below("policy/entropy"),
        "policy/entropy is {now:.3g} nats, less than {limit:g} times the first epochs' {first:.3g}",
        "The policy has all but stopped to try anything else (fine where each prompt has one right answer). "
        "Try algorithm.entropy above 0, a lower optimizer.lr or a higher algorithm.kl.coefficient",
    ),
    "shorter": Rule(
        ("rollout/length",),
        _below("rollout/length"),
        "rollout/length is {now:.3g} tokens, less than {limit:g} times the first epochs' {first:.3g}",
        "The reward may pay for saying little. Read samples.jsonl; a reward that short answers can't win, or "
        "a higher algorithm.kl.coefficient, helps",
    ),
    "longer": Rule(
        ("rollout/length",),
        _above("rollout/length"),
        "rollout/length is {now:.3g} tokens, more than {limit:g} times the first epochs' {first:.3g}",
        "The reward may pay for length. Read samples.jsonl; algorithm.overlong, a reward that does not grow "
        "with length, or algorithm.aggregation=token_mean in place of row_mean helps",
    ),
    "cut": Rule(
        ("rollout/ended",),
        _below("rollout/ended"),
        "rollout/ended is {now:.3g}, less than {limit:g} times the first epochs' {first:.3g}: the rest is "
        "cut at the limit",
        "The policy is forgetting to stop. Try collector.max_new_tokens higher if they are good, or "
        "algorithm.overlong and a higher algorithm.kl.coefficient if they are not",
    ),
    "distinct": Rule(
        ("rollout/distinct",),
        _below("rollout/distinct"),
        "rollout/distinct is {now:.3g}, less than {limit:g} times the first epochs' {first:.3g}",
        "The policy says the same to everybody (fine where many prompts share one right answer). Try "
        "algorithm.entropy above 0, a higher algorithm.kl.coefficient or a lower optimizer.lr",
    ),
    "drift": Rule(
        ("rollout/logp_drift",),
        lambda now, first, limit: now["rollout/logp_drift"] > limit,
        "rollout/logp_drift is {now:.3g} nats a token, more than {limit:g}",
        "What draws tokens and what is trained no longer agree. Try trainer.precision=32-true or "
        "backbone.dtype=float32; selfcheck=true on a resumed run says where they part",
        relative=False,
    ),
}
"""The rules over an epoch's own metrics, by name."""

HACKING = ("eval/reward", "eval/monitor", "eval/monitor_error")

HACKING_ADVICE = (
    "The reward is being gamed: what it pays for is no longer what you want. Stop here or go back to the "
    "checkpoint of that time; a higher algorithm.kl.coefficient or a part of the monitor in the reward helps"
)


class Alarms(Callback):
    """Says in the terminal, once each, what goes wrong; `alarm/<name>` is 1 in the epochs in which it does.

    Stands before the callbacks that write metrics. Every threshold may be null: then there is no such alarm.

    Args:
        first: epochs at the beginning whose mean the later ones are compared with, at least 1.
        in_a_row: epochs (evaluations, of `hacking`) in a row that it takes, at least 1; more is less nervous.
        stop: whether the first alarm ends the run, after its epoch and with a checkpoint.
        kl: most nats a token from the reference.
        entropy: least share of the first epochs' policy/entropy.
        shorter: least share of the first epochs' rollout/length.
        longer: most multiple of the first epochs' rollout/length.
        cut: least share of the first epochs' rollout/ended: responses that are not cut at the limit.
        distinct: least share of the first epochs' rollout/distinct.
        drift: most nats a token between the sampler's log-probabilities and the trainer's.
        hacking: standard errors by which eval/monitor may lie below its best while eval/reward is above
            what it was then. Needs `monitor.reward`.
    """

    def __init__(
        self,
        *,
        first: int = 3,
        in_a_row: int = 2,
        stop: bool = False,
        kl: float | None = 1.0,
        entropy: float | None = 0.1,
        shorter: float | None = 0.25,
        longer: float | None = 3.0,
        cut: float | None = 0.2,
        distinct: float | None = 0.3,
        drift: float | None = 0.1,
        hacking: float | None = 4.0,
    ) -> None:
        for name, count in {"first": first, "in_a_row": in_a_row}.items():
            if count < 1:
                raise UserError(f"callbacks.alarms.{name}: expected at least 1, got {count}")
        self.thresholds = {
            name: value
            for name, value in {
                "kl": kl,
                "entropy": entropy,
                "shorter": shorter,
                "longer": longer,
                "cut": cut,
                "distinct": distinct,
                "drift": drift,
                "hacking": hacking,
            }.items()
            if value is not None
        }
        for name, value in self.thresholds.items():
            check_positive(f"callbacks.alarms.{name}", value)
        self.first, self.in_a_row, self.stop = first, in_a_row, stop
        self.epochs = 0  # seen so far
        self.sums: dict[str, list[float]] = {}  # of each metric over the first epochs, and of how many
        self.streaks: dict[str, int] = {}  # epochs in a row in which a rule was broken
        self.said: list[str] = []  # alarms that the terminal has seen
        self.best: dict[str, float] = {}  # the evaluation with the highest eval/monitor

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Look at the epoch's means, which are the same on all ranks, and add `alarm/*` to them."""
        assert isinstance(module, TuningModule)
        means = module.finish_epoch()
        raised = self.look(means)
        means.update({f"alarm/{name}": float(bool(text)) for name, text in raised.items()})
        for name, text in raised.items():
            if text and name not in self.said:
                self.said.append(name)
                self._say(trainer, name, text)
                trainer.should_stop = trainer.should_stop or self.stop

    def look(self, now: Numbers) -> dict[str, str]:
        """What every rule that can says of the next epoch: why it is alarmed, or nothing."""
        found = {}
        for name, threshold in self.thresholds.items():
            rule = RULES.get(name)
            text = self._hacked(now, threshold) if rule is None else self._broken(rule, now, threshold)
            if text is not None:
                self.streaks[name] = self.streaks.get(name, 0) + 1 if text else 0
                found[name] = text if self.streaks[name] >= self.in_a_row else ""
        self.epochs += 1
        if self.epochs <= self.first:
            self._remember(now)
        return found

    def _broken(self, rule: Rule, now: Numbers, threshold: float) -> str | None:
        if not _known(now, rule.needs):
            return None
        first = {name: total / count for name, (total, count) in self.sums.items()}
        if rule.relative and (self.epochs < self.first or not _known(first, rule.needs)):
            return ""
        if not rule.broken(now, first, threshold):
            return ""
        metric = rule.needs[0]
        seen = rule.seen.format(now=now[metric], first=first.get(metric, math.nan), limit=threshold)
        return f"{seen}. {rule.advice}"

    def _hacked(self, now: Numbers, errors: float) -> str | None:
        """Whether the reward is higher than where the monitor was best, and the monitor surely lower."""
        if not _known(now, HACKING):
            return None
        reward, monitor, error = (now[name] for name in HACKING)
        if not self.best or monitor > self.best["monitor"]:
            self.best = {"reward": reward, "monitor": monitor, "error": error}
            return ""
        wide = errors * max(error, self.best["error"])
        if reward <= self.best["reward"] or monitor >= self.best["monitor"] - wide:
            return ""
        return (
            f"eval/reward has risen from {self.best['reward']:.3g} to {reward:.3g} while eval/monitor has "
            f"fallen from {self.best['monitor']:.3g} to {monitor:.3g}, by more than {errors:g} "
            f"standard errors. {HACKING_ADVICE}"
        )

    def _remember(self, now: Numbers) -> None:
        names = {name for rule in RULES.values() if rule.relative for name in rule.needs}
        for name in names & now.keys():
            if math.isfinite(now[name]):
                total, count = self.sums.get(name, [0.0, 0.0])
                self.sums[name] = [total + now[name], count + 1]

    def _say(self, trainer: Trainer, name: str, text: str) -> None:
        if not trainer.is_global_zero:
            return
        end = "The run ends here (callbacks.alarms.stop=true)" if self.stop else "Said once"
        Console(stderr=True).print(
            f"alarm/{name}, epoch {trainer.current_epoch + 1}: {text}. {end}; "
            f"callbacks.alarms.{name}=null is without",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers: a resumed run compares with the same first epochs and says nothing twice."""
        return {
            "epochs": self.epochs,
            "sums": {name: list(pair) for name, pair in self.sums.items()},
            "streaks": dict(self.streaks),
            "said": list(self.said),
            "best": dict(self.best),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.epochs = state_dict["epochs"]
        self.sums = {name: list(pair) for name, pair in state_dict["sums"].items()}
        self.streaks, self.said = dict(state_dict["streaks"]), list(state_dict["said"])
        self.best = dict(state_dict["best"])


def _known(numbers: Numbers, names: tuple[str, ...]) -> bool:
    return all(name in numbers and math.isfinite(numbers[name]) for name in names)
