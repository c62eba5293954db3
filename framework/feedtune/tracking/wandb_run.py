"""One W&B run for each run folder."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from feedtune.config.secrets import redacted
from feedtune.durable import replace_file
from feedtune.errors import UserError, one_line
from feedtune.tracking.facts import code_version

WANDB_ID = "wandb_id.txt"
"""In a run folder: the run's id at W&B."""

AXES: Mapping[str, str] = {
    "rollout/*": "progress/rollouts",
    "histogram/*": "progress/rollouts",
    "eval/*": "progress/rollouts",
    "alarm/*": "progress/rollouts",
    "reward/*": "progress/rollouts",
    "skipped/*": "progress/rollouts",
    "loss/*": "progress/updates",
    "policy/*": "progress/updates",
    "perf/*": "progress/tokens",
}
"""What W&B draws metrics against, by how their names begin; all others against its own step."""

_taken: dict[str, Path] = {}  # ids of the environment, and the run folders of this process that have them


class RunWandb(WandbLogger):
    """The logger of a run folder: where a sweep trains several, and where a stopped one goes on.

    Every row has its optimiser step as W&B's own step too: so one that W&B has already, which a run repeats
    that goes on from an earlier checkpoint, is known for what it is.

    Args:
        folder: the run folder, which remembers the id.
        mode: of `wandb.init`.
        samples_every, histograms, log_model, console: as `feedtune.tracking.loggers.wandb_logger` has them.
        options: of `wandb.init`.
    """

    def __init__(
        self,
        *,
        folder: Path,
        mode: str,
        samples_every: int | None = 1,
        histograms: bool = True,
        log_model: bool = False,
        console: bool = False,
        **options: Any,
    ) -> None:
        self.folder, self.samples_every, self.histograms = folder, samples_every, histograms
        self.wants_model, self.console = log_model, console
        self._status: str | None = None  # with which training has ended
        super().__init__(id=_id_of(folder), save_dir=folder, resume="allow", mode=mode, **options)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run at W&B; begun when it is first asked for.

        Raises:
            UserError: W&B refuses, or cannot be reached.
        """
        if self._experiment is None:
            self._experiment = self._begun()
            _remember(self.folder, self._experiment)
            for name in sorted({*AXES.values()}):
                self._experiment.define_metric(name)
            for names, axis in AXES.items():
                self._experiment.define_metric(names, step_metric=axis)
        return self._experiment

    def _begun(self) -> Any:
        import wandb

        given = {name: value for name, value in self._wandb_init.items() if name != "anonymous"}  # it is gone
        if os.environ.get("WANDB_SWEEP_ID"):  # the agent says which run of which project this is
            given |= {"id": None, "project": None, "entity": None}
        commit, remote = code_version()
        settings = wandb.Settings(
            console="auto" if self.console else "off", git_commit=commit, git_remote_url=remote
        )
        try:
            with _redacted_arguments():
                return wandb.init(**given, settings=settings)
        except (wandb.Error, ValueError, OSError) as error:
            raise UserError(
                f"logger=wandb: {redacted(one_line(error))}; logger.mode=offline goes without the server"
            ) from error

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Tell W&B the run's facts; what a sweep has set already is left as it is."""
        config = self.experiment.config
        new = {key: value for key, value in dict(params).items() if key not in config or config[key] != value}
        config.update(new, allow_val_change=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Tell W&B these numbers, tables or histograms; several times for one step makes one row."""
        if step is None:
            self.experiment.log(dict(metrics))
        elif step >= self.experiment.starting_step:  # what comes before stands on the server
            self.experiment.log({**metrics, "trainer/global_step": step}, step=step)

    def wants_samples(self, epoch: int) -> bool:
        """Whether the epoch of this number, from 0, is to bring a table of samples."""
        return self.samples_every is not None and (epoch + 1) % self.samples_every == 0

    def finalize(self, status: str) -> None:
        """Training is over. A run that went well stays open for its model, until `close`."""
        self._status = status
        if status != "success":
            self.close()

    @rank_zero_only
    def close(self, model: Path | None = None, metrics: Mapping[str, float] | None = None) -> None:
        """End the run at W&B, if it has begun.

        Args:
            model: the folder of the exported model; null: there is none.
            metrics: of the last epoch, which the model's artifact is described by.
        """
        if self._experiment is None:
            return
        if model is not None and self.wants_model:
            self._log_model_of(model, metrics or {})
        run, self._experiment = self._experiment, None
        run.finish(exit_code=0 if self._status == "success" else 1)

    def _log_model_of(self, folder: Path, metrics: Mapping[str, float]) -> None:
        import wandb

        artifact = wandb.Artifact(f"model-{self.experiment.id}", type="model", metadata=dict(metrics))
        artifact.add_dir(str(folder))
        self.experiment.log_artifact(artifact, aliases=["latest", "final"])


def _id_of(folder: Path) -> str:
    """The folder's own id; of a new folder that of WANDB_RUN_ID, which one run of a process can have."""
    path = folder / WANDB_ID
    if path.is_file():
        return path.read_text().strip()
    given = os.environ.get("WANDB_RUN_ID")
    chosen = given if given and _taken.setdefault(given, folder) == folder else secrets.token_hex(4)
    if getattr(rank_zero_only, "rank", 0) == 0:
        replace_file(path, chosen + "\n")
    return chosen


def _remember(folder: Path, run: Any) -> None:
    """The id that the run really has; one that is disabled has none."""
    path = folder / WANDB_ID
    if not run.disabled and path.read_text().strip() != run.id:
        replace_file(path, f"{run.id}\n")


@contextmanager
def _redacted_arguments() -> Iterator[None]:
    """W&B notes the command line."""
    given = sys.argv
    sys.argv = [redacted(argument) for argument in given]
    try:
        yield
    finally:
        sys.argv = given
