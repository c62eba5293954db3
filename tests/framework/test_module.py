"""The module that hosts the policy: what a ratio divides by, and the options of its optimiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from feedtune.config.compose import compose_config
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.module import TuningModule
from feedtune.randomness import generator_for
from feedtune.runs.assembly import assemble, checked
from feedtune.scoring import score_actions
from small_runs import newest_state, overrides, run, write_rows


def module_of(folder: Path, *chosen: str) -> TuningModule:
    base = overrides(write_rows(folder), "lstm", "ppo", "algorithm.kl=null")
    base = [one for one in base if not one.startswith(("backbone", "tokenizer"))]
    module: TuningModule = assemble(checked(compose_config([*base, *chosen]), folder)).module.eval()
    return module


def completed(module: TuningModule, autocast: bool = False) -> tuple[Experience, torch.Tensor]:
    """A rollout as the loss sees it, and the log-probabilities of a pass over its whole rows."""
    items = module.collector.load(module.rows, None)[:8]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        exp = module.collector.collect(items, module.policy, generator_for(0)).experience
        return module._complete(exp), score_actions(module.policy, exp).logp


@pytest.mark.parametrize(
    ("dtype", "autocast", "reused"),
    [("float32", False, True), ("float32", True, False), ("bfloat16", False, False)],
)
def test_the_samplers_numbers_are_reused_only_where_they_are_exact(
    dtype: str, autocast: bool, reused: bool, tmp_path: Path, model_folder: Path
) -> None:
    """In bfloat16, weights or autocast, a cached step and a pass over the whole row may differ."""
    hf = ["backbone=hf", f"backbone.name={model_folder}", f"backbone.dtype={dtype}"]
    exp, whole = completed(module_of(tmp_path, *hf), autocast)
    assert exp.old_logp is not None
    assert exp.sampler_logp is not None
    assert (exp.old_logp is exp.sampler_logp) == reused
    if reused:
        torch.testing.assert_close(exp.old_logp, whole, atol=1e-5, rtol=0)
    else:
        assert torch.equal(exp.old_logp, whole)


def test_a_part_of_the_policy_has_a_rate_of_its_own(tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo", "parameter_groups={value: {lr: 0.5}}")
    module: TuningModule = assemble(checked(compose_config(chosen), tmp_path)).module
    groups: Any = module.make_optimizer([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.5}])
    assert groups.param_groups[0]["lr"] == 0.5
    assert module.group_options == {"value": {"lr": 0.5}}
    run(tmp_path / "still", [*chosen, "optimizer.lr=0.0"])
    state = torch.load(newest_state(tmp_path / "still"), weights_only=True)
    rates = {group["name"]: group["lr"] for group in state["optimizer_states"][0]["param_groups"]}
    assert rates == {"backbone": 0.0, "value": 0.5}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            "{valve: {lr: 1}}",
            r"^parameter_groups\.valve: the policy has no such part; it has backbone, value$",
        ),
        (
            "{value: {lrr: 1}}",
            r"^parameter_groups\.value\.lrr: AdamW has no such option\. Did you mean 'lr'\?",
        ),
    ],
)
def test_options_that_nobody_would_read(groups: str, message: str, tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo", f"parameter_groups={groups}")
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", chosen)


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "best_of_n"])
def test_what_compares_rows_of_a_group_wants_several(algorithm: str, tmp_path: Path) -> None:
    chosen = [*overrides(write_rows(tmp_path), "lstm", algorithm), "collector.group_size=1"]
    with pytest.raises(UserError, match=r"needs groups.*set collector\.group_size above 1"):
        assemble(checked(compose_config(chosen), tmp_path))
