"""The LightningModule: hosts the policy and the reference, and knows no algorithm, backbone or reward."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from feedtune.completion import SUPPLIES, complete, logp_drift
from feedtune.contracts import Algorithm, Backbone, Buffer, Collector, Reference, Row
from feedtune.credit import Spell, with_credit
from feedtune.distributed import gather_objects, sum_over_ranks
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.metrics import EpochMetrics, EpochRows
from feedtune.nonfinite import FiniteGuard, OnNonFinite, diverged
from feedtune.on_policy import check_on_policy
from feedtune.optimizers import check_optimizer
from feedtune.policy import Policy
from feedtune.profiling import Stopwatch, timing
from feedtune.randomness import global_rng_state, set_global_rng_state
from feedtune.references import reference_of
from feedtune.rollout import RolloutLoader
from feedtune.totals import with_totals

MakeOptimizer = Callable[[Iterable[Any]], torch.optim.Optimizer]
MakeScheduler = Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler]


class TuningModule(lightning.LightningModule):
    """Tunes a policy with feedback; give it to `lightning.Trainer.fit`.

    Args:
        algorithm: turns experience into a loss.
        make_backbone: builds a backbone with its first weights; called for each that the algorithm wants.
        collector: makes experience from rows.
        buffer: makes minibatches from experience.
        rows: the task's training rows.
        optimizer: takes parameter groups; by default AdamW at 1e-3.
        scheduler: takes the optimizer and the number of optimiser steps; null keeps the learning rate.
        parameter_groups: options by the name of a policy's part, such as `{"value": {"lr": 1e-3}}`.
        init_heads: gives the policy's heads their first weights; null leaves them at 0.
        seed: everything drawn in training depends on it.
        profile: whether each epoch's metrics say how many seconds each part of it took
            (`feedtune.profiling`). A GPU is then waited for between the parts, which costs a little.
        on_nonfinite: what NaN or infinity in a reward, in what is prepared of a rollout, in a loss or in a
            gradient does: "raise" stops, "skip" leaves out the rows or the optimiser step (`FiniteGuard`).
        measures: asked after each collection for further metrics of it, such as failed calls of the reward.
        spell: says the text of each token of a response; the records of a rollout then tell what each earned
            (`feedtune.credit`). null: they do not.
    """

    def __init__(
        self,
        *,
        algorithm: Algorithm,
        make_backbone: Callable[[], Backbone],
        collector: Collector,
        buffer: Buffer,
        rows: Sequence[Row],
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
        parameter_groups: Mapping[str, Mapping[str, Any]] | None = None,
        init_heads: Callable[[Policy], None] | None = None,
        seed: int = 0,
        profile: bool = False,
        on_nonfinite: OnNonFinite = "raise",
        measures: Callable[[], Mapping[str, float]] = dict,
        spell: Spell | None = None,
    ) -> None:
        super().__init__()
        check_on_policy(algorithm, collector, buffer)
        self.algorithm, self.collector, self.buffer = algorithm, collector, buffer
        self.policy: Policy = algorithm.build_policy(make_backbone)
        if init_heads is not None:
            init_heads(self.policy)
        algorithm.setup(self.policy)
        self.needs = algorithm.needs()
        missing = self.needs - SUPPLIES - collector.supply(self.needs)
        if missing:
            hint = "; set collector.group_size above 1" if "groups" in missing else ""
            raise UserError(
                f"collector: {type(algorithm).__name__} needs {', '.join(sorted(missing))}, "
                f"which {type(collector).__name__} does not supply{hint}"
            )
        self.reference: Reference | None = reference_of(self.policy) if "reference" in self.needs else None
        self.rows, self.seed = rows, seed
        self.make_optimizer: MakeOptimizer = optimizer or (lambda groups: torch.optim.AdamW(groups, lr=1e-3))
        self.make_scheduler = scheduler
        self.group_options = {name: dict(options) for name, options in (parameter_groups or {}).items()}
        self.metrics = EpochMetrics()  # of this epoch so far
        self.epoch_metrics: dict[str, float] | None = None  # means of the epoch that is just ending
        self.ended_metrics: dict[str, float] = {}  # of the last epoch that has ended in this process
        self.epoch_records: list[Mapping[str, Any]] = []  # a few responses of this epoch, as text
        self.rows_so_far = EpochRows()  # numbers of every row that the policy has said in this epoch
        self.epoch_rows: dict[str, list[float]] = {}  # those of the epoch that is just ending, of all ranks
        self.tokens = 0.0  # action tokens that all epochs that have ended collected, over all ranks
        self.loader: RolloutLoader | None = None
        self.on_phase: Callable[[str], None] = lambda phase: (
            None
        )  # told "collect" and "update" (progress bars)
        self._resumed: dict[str, Any] | None = None
        self.profile, self.stopwatch = profile, Stopwatch()
        self.guard = FiniteGuard(on_nonfinite, lambda: self.place)
        self._made = True  # whether the newest optimiser step was made, or else left out
        self._idle = False  # whether the step that is being made has no token to learn from, on any rank
        self.measures, self.spell = measures, spell

    # Data: one Lightning epoch = one trip through the loader

    def setup(self, stage: str) -> None:
        """Encode the task's rows and build the loader."""
        if stage != "fit" or self.loader is not None:
            return
        # References and target networks stay in evaluation mode on purpose.
        warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
        items = self.collector.load(self.rows, self.policy.backbone.context_length)
        if not items:
            raise UserError("the task has no training rows")
        self.loader = RolloutLoader(
            items,
            self.collector,
            self.buffer,
            self.collect,
            seed=self.seed,
            rank=self.trainer.global_rank,
            ranks=self.trainer.world_size,
            accumulate=self.trainer.accumulate_grad_batches,
            sum_over_ranks=lambda totals: sum_over_ranks(totals.to(self.device, torch.float32)),
        )
        self.algorithm.check_steps(self.loader.steps_of_a_collection)
        self.needs = self.algorithm.needs()  # fewer, perhaps, where there is but one step

    def train_dataloader(self) -> RolloutLoader:
        """The rollout loader."""
        if self.loader is None:
            raise RuntimeError("train_dataloader() before setup()")
        return self.loader

    @torch.no_grad()
    def collect(self, items: Sequence[Any], generator: torch.Generator) -> Experience:
        """One collection, prepared for the loss: the policy acts in evaluation mode.

        Lightning draws batches outside its precision context and in training mode; both are set here.
        """
        self.on_phase("collect")
        with self.stopwatch.part("prepare"), timing(self.stopwatch):
            was_training = self.training
            self.eval()
            with self.trainer.precision_plugin.forward_context():
                rollout = self.collector.collect(items, self.policy, generator)
                collected = self.guard.collected(rollout.experience.to(self.device))
                exp = self._complete(collected)
                drift = logp_drift(exp)
                exp, prepared = self.algorithm.prepare(exp, self.policy)
                exp = self.guard.prepared(exp, collected)
            self.train(was_training)
        self.metrics.add({**rollout.metrics, **drift, **prepared, **self.measures()}, weight=len(exp))
        self.stopwatch.now.collected += float(rollout.experience.action.sum())
        records = with_credit(rollout, exp, self.spell) if self.spell else rollout.records
        self.epoch_records.extend(with_totals(records, rollout, exp))
        if self.collector.on_policy:
            self.rows_so_far.add(rollout.experience)
        self.on_phase("update")
        return exp

    def _complete(self, exp: Experience) -> Experience:
        """Add what the algorithm needs; in float32 the sampler's own log-probabilities are exact."""
        # In bfloat16 cached decoding drifts from a pass over the whole row.
        exact = exp.sampler_logp is not None and not self.collector.warped and self._in_full_precision()
        return complete(exp, self.needs, self.policy, self.reference, sampler_exact=exact)

    def _in_full_precision(self) -> bool:
        """Whether every pass of the policy, with a cache or without, computes in float32 or wider."""
        wide = (torch.float32, torch.float64)
        exact_weights = all(weight.dtype in wide for weight in self.policy.parameters())
        return exact_weights and not torch.is_autocast_enabled(self.device.type)

    # Training: automatic optimisation

    def training_step(self, batch: Experience, batch_idx: int) -> Tensor:
        """The loss of one minibatch; Lightning's division by micro-batches and ranks cancels."""
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.stopwatch.now.trained += batch.step_tokens or 0.0  # of the whole step
            self.guard.open(batch)
            self._idle = batch.step_tokens == 0
        loss = self.algorithm.loss(batch, self.policy)
        self.guard.saw(loss, len(batch))
        return loss.sum / loss.denominator * (self.trainer.accumulate_grad_batches * self.trainer.world_size)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Every micro-batch of the step has its gradient: make it only where all of them are finite."""
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        # Momentum and weight decay would move weights on a step that nobody has taught anything.
        self._made = self.guard.passes(self.policy.named_parameters(), scaled) and not self._idle
        if self._made:
            for metrics, rows in self.guard.window():
                self.metrics.add(metrics, weight=rows)
            return
        for weight in self.parameters():
            weight.grad = None  # optimisers pass over such weights: neither they nor their state move

    @property
    def place(self) -> str:
        """How far training has come, for messages: the step that is next or being made. Both count from 1."""
        return f"at optimiser step {self.trainer.global_step + 1} of epoch {self.trainer.current_epoch + 1}"

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One optimiser step, then the algorithm's own (not after each micro-batch)."""
        super().optimizer_step(*args, **kwargs)
        if self._made:
            self.algorithm.after_step(self.policy)

    def configure_optimizers(self) -> Any:
        """One optimiser over the policy's parts; each part may have options of its own."""
        parts = self.policy.parameter_groups()
        for name in self.group_options:
            if name not in parts:
                raise UserError(
                    f"parameter_groups.{name}: the policy has no such part; it has {', '.join(parts)}"
                )
        groups = [
            {"params": ps, "name": name, **self.group_options.get(name, {})} for name, ps in parts.items()
        ]
        optimizer = self.make_optimizer(groups)
        check_optimizer(optimizer, self.group_options)
        if self.make_scheduler is None:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        return [optimizer], [{"scheduler": self.make_scheduler(optimizer, steps), "interval": "step"}]

    def transfer_batch_to_device(
        self, batch: Experience, device: torch.device, dataloader_idx: int
    ) -> Experience:
        """Experience knows how to move."""
        return batch.to(device)

    # Metrics: one row an epoch

    def on_train_epoch_start(self) -> None:
        """Whatever happens between here and the epoch's end is learning, but for marked parts."""
        self.stopwatch.switch("update")

    def finish_epoch(self) -> dict[str, float]:
        """The epoch's means, over all ranks. Callbacks that need them call this first; it counts once.

        An epoch's seconds (those of rank 0) last from here to here: what follows the row, such as writing it
        and the epoch's checkpoint, is part of the next one's, so that the rows add up to the whole run but
        for what follows its last row.
        """
        if self.epoch_metrics is not None:
            return self.epoch_metrics
        means = self.metrics.means()  # a GPU is waited for here: it is still busy with the update
        means |= self.guard.metrics()
        lap = self.stopwatch.lap()
        self.tokens += lap.collected
        self.epoch_rows = self.rows_so_far.gathered()
        self.epoch_metrics = means | self._progress() | lap.metrics(by_part=self.profile)
        self.stopwatch.switch("other")
        return self.epoch_metrics

    def _progress(self) -> dict[str, float]:
        """What other metrics can be drawn against, since the start of training."""
        return {
            "progress/rollouts": float(self.loader.collected if self.loader else 0),
            "progress/updates": float(self.trainer.global_step),
            "progress/tokens": self.tokens,
        }

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means to every logger and begin anew. Runs after the callbacks' own."""
        means = self.finish_epoch()
        self.stopwatch.switch("logging")  # and all else until the next epoch, but checkpoints
        self.log_dict(means, logger=False, rank_zero_only=True)  # for callbacks that monitor one of them
        # Lightning would tell the loggers after the epoch's checkpoint: a run that is killed in between, and
        # goes on from there, would never do so.
        for logger in self.trainer.loggers:
            logger.log_metrics({**means, "epoch": self.trainer.current_epoch}, self.trainer.global_step - 1)
            logger.save()
        self.metrics.clear()
        self.guard.clear()
        self.rows_so_far.clear()
        self.ended_metrics, self.epoch_metrics, self.epoch_records = means, None, []

    # Checkpoints: everything that a resumed run needs to repeat this one

    def on_train_start(self) -> None:
        """Restore the global generators: building iterators and optimisers has drawn from them."""
        if self._resumed is not None:
            set_global_rng_state(self._resumed["ranks"][self.trainer.global_rank]["rng"])
            self._resumed = None
        gc.collect()
        gc.freeze()  # the task's rows stay; looking through them at every collection costs more than a step
        if self.profile and self.device.type != "cpu":
            self.stopwatch.wait = torch.accelerator.synchronize
        self.stopwatch.start("update")  # a run that goes on within an epoch does not begin it anew

    def on_train_end(self) -> None:
        """Stop the clock."""
        self.stopwatch.stop()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the loader's place and the generators of every rank; leave out weights that can be rebuilt.

        Raises:
            UserError: a weight is not finite, so nobody could go on from here.
        """
        self.check_weights()
        own = {
            "loader": self.loader.state_dict() if self.loader else {},
            "rng": global_rng_state(),
            "metrics": self.metrics.state_dict(),
            "guard": self.guard.state_dict(),
            "stopwatch": self.stopwatch.state_dict(),
            "records": [dict(record) for record in self.epoch_records],
            "rows": self.rows_so_far.state_dict(),
            "tokens": self.tokens,
        }
        checkpoint["feedtune"] = {"ranks": gather_objects(own), "seed": self.seed}
        for name in self._rebuilt_keys():
            checkpoint["state_dict"].pop(name, None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the loader's place and fill in the weights that were left out."""
        self._resumed = state = checkpoint["feedtune"]
        if len(state["ranks"]) != self.trainer.world_size:
            raise UserError(
                f"the checkpoint was written by {len(state['ranks'])} processes and cannot go on with "
                f"{self.trainer.world_size}"
            )
        current = self.state_dict()
        checkpoint["state_dict"] |= {name: current[name] for name in self._rebuilt_keys()}
        mine = state["ranks"][self.trainer.global_rank]
        if self.loader is not None:
            self.loader.load_state_dict(mine["loader"])
        self.metrics.load_state_dict(mine["metrics"])
        self.guard.load_state_dict(mine["guard"])
        self.stopwatch.load_state_dict(mine["stopwatch"])
        self.epoch_records = list(mine["records"])
        self.rows_so_far.load_state_dict(mine["rows"])
        self.tokens = mine["tokens"]

    @property
    def collecting(self) -> bool:
        """Whether training has come as far as its first collection."""
        return self.loader is not None and self.loader.collected > 0

    @property
    def restoring(self) -> bool:
        """Whether a checkpoint has been read from which training has not gone on yet."""
        return self._resumed is not None

    def check_weights(self) -> None:
        """Raise a `UserError` if a weight of the policy is not finite: the last step was too wide."""
        broken = [name for name, weight in self.policy.named_parameters() if not weight.isfinite().all()]
        if broken:
            more = f" and {len(broken) - 1} more" if broken[1:] else ""
            made = f"after optimiser step {self.trainer.global_step}"
            raise diverged(f"the weight {broken[0]}{more} {'are' if more else 'is'}", made)

    def _rebuilt_keys(self) -> list[str]:
        return [
            f"{prefix}.{key}" if prefix else key
            for prefix, part in self.named_modules()
            if isinstance(part, Backbone)
            for key in part.rebuilt_keys()
        ]


def trainable_parameters(module: nn.Module) -> int:
    """Number of weights that training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
