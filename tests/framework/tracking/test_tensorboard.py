"""logger=tensorboard: event files, read back by TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from small_runs import overrides, run, write_rows
from wandb_files import metrics_of


def test_every_metric_is_a_curve_and_the_facts_stand_beside(tmp_path: Path) -> None:
    run(tmp_path / "run", overrides(write_rows(tmp_path), "lstm", "ppo", "logger=tensorboard"))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    rows = metrics_of(tmp_path / "run")
    assert set(events.Tags()["scalars"]) == set(rows[0])  # and no curve of Lightning's own
    for name in rows[0]:
        assert [event.value for event in events.Scalars(name)] == [_single(row[name]) for row in rows], name
        assert [event.step for event in events.Scalars(name)] == [3, 7]
    hparams = _hparams(events, "_hparams_/session_start_info").session_start_info.hparams
    assert hparams["values.backbone.hidden_size"].number_value == 16
    assert hparams["values.trainer.precision"].string_value == "32-true"
    assert hparams["values.report"].number_value == 1  # true
    assert {key for key in hparams if key.startswith("versions.")} >= {"versions.torch", "versions.feedtune"}
    shown = _hparams(events, "_hparams_/experiment").experiment.metric_infos
    assert {"rollout/reward", "policy/kl"} <= {one.name.tag for one in shown}


def _single(value: float) -> float:
    """TensorBoard keeps single precision."""
    return float(np.float32(value))


def _hparams(events: Any, tag: str) -> Any:
    metadata = events.SummaryMetadata(tag)
    return HParamsPluginData.FromString(metadata.plugin_data.content)
