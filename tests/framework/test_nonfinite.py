"""What is not finite is found before it moves a weight, named, and refused or left out."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from feedtune.callbacks.files import read_metrics
from feedtune.config.compose import compose_config
from feedtune.contracts import Loss, Rollout
from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune.module import TuningModule
from feedtune.nonfinite import IN_A_ROW, FiniteGuard
from feedtune.runs.assembly import assemble, checked
from small_runs import overrides, run, write_rows

NAN, INF = math.nan, math.inf
PLACE = "at optimiser step 4 of epoch 2"


def guard(choice: Any = "raise") -> FiniteGuard:
    return FiniteGuard(choice, lambda: PLACE)


def rollout(scores: list[float]) -> Experience:
    """Two prompts with two responses each, of one and two tokens in turn."""
    return from_rows(
        [[5, 6], [5, 7, 8], [9, 6], [9, 7, 8]],
        [[0, 1], [0, 1, 1], [0, 1], [0, 1, 1]],
        scores=scores,
        group=[0, 0, 1, 1],
    )


# Rewards


def test_an_infinite_reward_is_named() -> None:
    with pytest.raises(UserError) as stop:
        guard().collected(rollout([1.0, INF, 1.0, -INF]))
    assert str(stop.value) == (
        "the reward of rows 2, 4 of a rollout of 4 (prompts 1, 2) is not finite at optimiser step 4 "
        "of epoch 2. Mend the reward source or the environment, or leave such rows out by on_nonfinite=skip; "
        "nothing of this state was saved"
    )


def test_no_opinion_is_no_broken_reward() -> None:
    exp = rollout([1.0, NAN, 1.0, 2.0])
    assert guard().collected(exp) is exp
    assert guard("skip").collected(exp) is exp


def test_rows_with_a_broken_reward_are_left_out_like_rows_without_one() -> None:
    """Never as rows of reward 0: row 2 is not scored, has no actions, and counts in no baseline."""
    one = guard("skip")
    found = one.collected(rollout([1.0, INF, 1.0, 2.0]))
    like = rollout([1.0, NAN, 1.0, 2.0])
    for name, value in like.tensors().items():
        assert torch.equal(found.tensors()[name], value), name
    assert one.metrics() == {"skipped/rows": 1.0, "skipped/steps": 0.0}


# What was prepared


def test_a_broken_column_is_named_where_something_is_learnt_from_it() -> None:
    """NaN on a prompt, on a row without actions or in what the collector brought says nothing."""
    exp = rollout([1.0, NAN, 1.0, 2.0]).with_(greedy=torch.tensor([NAN, NAN, 1.0, 1.0]))
    columns = {"advantage": torch.zeros(4, 3), "bootstrap": torch.zeros(4)}
    columns["advantage"][0, 0] = columns["advantage"][1, 1] = columns["bootstrap"][1] = NAN
    prepared = exp.with_(**columns)
    assert guard().prepared(prepared, exp) is prepared
    columns["advantage"][3, 2] = INF
    said = r"^training diverged: 'advantage' of row 4 of a rollout of 4 \(prompt 2\) is not finite at opt"
    with pytest.raises(UserError, match=said):
        guard().prepared(prepared, exp)


@pytest.mark.parametrize("column", ["bootstrap", "old_logp", "ref_logp", "distribution"])
def test_every_column_is_looked_at(column: str) -> None:
    exp = rollout([1.0, 1.0, 1.0, 2.0])
    broken = {"bootstrap": torch.zeros(4), "distribution": torch.zeros(4, 3, 7)}.get(
        column, torch.zeros(4, 3)
    )
    broken[2] = NAN
    own: dict[str, Any] = {column: broken} if column in ("old_logp", "ref_logp") else {}
    prepared = replace(exp, **own) if own else exp.with_(**{column: broken})
    with pytest.raises(UserError, match=rf"'{column}' of row 3 of a rollout of 4"):
        guard().prepared(prepared, exp)


def test_the_group_of_a_broken_row_is_left_out() -> None:
    """Its rows were compared with the broken one, or are its pair. No NaN is left: 0 times NaN is NaN."""
    one, exp = guard("skip"), rollout([1.0, 1.0, 1.0, 2.0])
    advantage = torch.tensor([[0, 1, 0], [0, NAN, 3], [0, 4, 0], [0, 5, 6]])
    found = one.prepared(exp.with_(advantage=advantage), exp)
    assert found.action.tolist() == [[False] * 3, [False] * 3, [False, True, False], [False, True, True]]
    assert found.extra["advantage"].tolist() == [[0, 1, 0], [0, 0, 3], [0, 4, 0], [0, 5, 6]]
    assert one.metrics() == {"skipped/rows": 2.0, "skipped/steps": 0.0}


# Optimiser steps


def loss(value: float, **metrics: float) -> Loss:
    return Loss(torch.tensor(value), 1.0, metrics)


def weights(*gradients: float) -> list[tuple[str, nn.Parameter]]:
    """Parameters named a, b, ... with such gradients."""
    found = []
    for name, gradient in zip("abcdefgh", gradients, strict=False):
        parameter = nn.Parameter(torch.zeros(2))
        parameter.grad = torch.tensor([1.0, gradient])
        found.append((name, parameter))
    return found


def step(
    one: FiniteGuard, losses: list[Loss], *gradients: float, tokens: float = 3.0, scaled: bool = False
) -> bool:
    one.open(replace(rollout([1.0] * 4), step_tokens=tokens))
    for micro_batch in losses:
        one.saw(micro_batch, 2)
    return one.passes(weights(*gradients), scaled)


def test_a_whole_step_passes_with_its_metrics() -> None:
    one = guard()
    assert step(one, [loss(1.0, kl=0.5), loss(2.0, kl=0.25)], 1.0, 1e30)  # large is finite
    assert one.window() == [({"kl": 0.5}, 2), ({"kl": 0.25}, 2)]


@pytest.mark.parametrize(
    ("losses", "gradients", "said"),
    [
        ([loss(1.0), loss(NAN)], [1.0], "the loss is"),
        ([loss(INF, kl=INF, entropy=1.0)], [NAN], "kl is"),
        ([loss(INF, kl=INF, entropy=NAN)], [1.0], "kl, entropy are"),
        ([loss(1.0)], [1.0, NAN, 1.0], "the gradient of b is"),
        ([loss(1.0)], [INF, 1.0, -INF, NAN], "the gradient of a and 2 more is"),
    ],
)
def test_a_broken_step_is_named(losses: list[Loss], gradients: list[float], said: str) -> None:
    with pytest.raises(UserError) as stop:
        step(guard(), losses, *gradients)
    assert str(stop.value) == (
        f"training diverged: {said} not finite {PLACE}. Try a lower optimizer.lr, "
        "trainer.gradient_clip_val=1.0 or trainer.precision=32-true; nothing of this state was saved"
    )
    assert not step(guard("skip"), losses, *gradients)


def test_one_broken_micro_batch_breaks_its_step_and_no_other() -> None:
    one = guard("skip")
    assert [step(one, [loss(1.0), loss(v), loss(1.0)], 1.0) for v in (1.0, NAN, 1.0)] == [True, False, True]
    assert one.metrics()["skipped/steps"] == 1.0
    one.clear()
    assert one.metrics()["skipped/steps"] == 0.0


def test_a_scaler_looks_after_gradients_itself() -> None:
    """Under 16-mixed infinite gradients are how the scaler finds its scale; losses are still ours."""
    assert step(guard(), [loss(1.0)], INF, scaled=True)
    with pytest.raises(UserError, match="the loss is"):
        step(guard(), [loss(NAN)], INF, scaled=True)


def test_steps_whose_rows_were_all_left_out_count() -> None:
    one = guard("skip")
    assert step(one, [loss(0.0)], 0.0, tokens=0.0)  # nobody was left out: not ours to judge
    one.collected(rollout([INF] * 4))
    assert not step(one, [loss(0.0)], 0.0, tokens=0.0)


def test_ten_in_a_row_are_enough() -> None:
    one = guard("skip")
    for _ in range(IN_A_ROW - 1):
        assert not step(one, [loss(NAN)], 1.0)
    assert step(one, [loss(1.0)], 1.0)  # the row is broken: it begins anew
    for _ in range(IN_A_ROW - 1):
        assert not step(one, [loss(NAN)], 1.0)
    said = r"10 optimiser steps in a row were left out .* the loss is not finite .* no weight has moved"
    with pytest.raises(UserError, match=said):
        step(one, [loss(NAN)], 1.0)


def test_the_row_survives_a_checkpoint() -> None:
    one, other = guard("skip"), guard("skip")
    one.collected(rollout([1.0, INF, 1.0, 2.0]))
    for _ in range(IN_A_ROW - 1):
        step(one, [loss(NAN)], 1.0)
    other.load_state_dict(one.state_dict())
    assert other.metrics() == {"skipped/rows": 1.0, "skipped/steps": 9.0}
    with pytest.raises(UserError, match="10 optimiser steps in a row"):
        step(other, [loss(NAN)], 1.0)


def test_an_unknown_choice() -> None:
    with pytest.raises(UserError, match=r"on_nonfinite: expected one of raise, skip, got 'skipp'\. Did you"):
        guard("skipp")


def one_of_two(rank: int, port: int, folder: str) -> None:
    """Rank 1 has a broken reward, then a broken loss, then a broken gradient; rank 0 has none."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    bad, fine = (NAN if rank else 1.0), 1.0
    one = guard("skip")
    one.collected(rollout([1.0, INF if rank else 1.0, 1.0, 2.0]))
    steps = [step(one, [loss(bad)], fine), step(one, [loss(fine)], bad), step(one, [loss(fine)], fine)]
    found = {"steps": steps, "metrics": one.metrics(), "said": []}
    for losses, gradient in (([loss(bad)], fine), ([loss(fine)], bad)):
        try:
            step(guard(), losses, gradient)
        except UserError as error:
            found["said"].append(str(error).split(" not finite")[0])
    try:
        guard().collected(rollout([1.0, INF if rank else 1.0, 1.0, 2.0]))
    except UserError as error:
        found["said"].append(str(error).split(" is not finite")[0])
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_all_ranks_agree(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("fork")
    workers = [context.Process(target=one_of_two, args=(rank, port, str(tmp_path))) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    for worker in workers:
        worker.kill()  # nothing is left behind, whatever happened
    assert [worker.exitcode for worker in workers] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first["steps"] == second["steps"] == [False, False, True]
    assert first["metrics"] == second["metrics"] == {"skipped/rows": 1.0, "skipped/steps": 2.0}
    assert first["said"] == [
        "training diverged: the loss is",
        "training diverged: a gradient of another process is",
        "the reward of a row of another process",
    ]
    assert second["said"] == [
        "training diverged: the loss is",
        "training diverged: the gradient of a is",
        "the reward of row 2 of a rollout of 4 (prompt 1)",
    ]


# Whole runs


def chosen(folder: Path, algorithm: str, *more: str) -> list[str]:
    return overrides(
        write_rows(folder), "lstm", algorithm, "trainer.max_epochs=3", "optimizer.lr=0.01", *more
    )


def snapshot(trainer: lightning.Trainer, module: Any) -> dict[str, Tensor]:
    """Weights, and everything that the optimiser remembers of them."""
    found = {name: weight.detach().clone() for name, weight in module.policy.named_parameters()}
    for index, state in enumerate(trainer.optimizers[0].state.values()):
        found |= {f"{index}.{name}": torch.as_tensor(value).clone() for name, value in state.items()}
    return found


class Watch(Callback):
    """Which batches moved anything."""

    def __init__(self) -> None:
        self.moved: list[bool] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.before = snapshot(trainer, module)

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        after = snapshot(trainer, module)
        same = [torch.equal(self.before[n], after[n]) if n in self.before else False for n in after]
        self.moved.append(not all(same))
        if self.moved[-1]:
            assert not any(same), "a step moves everything: the decay of weights and moments too"


class Spoil(Callback):
    """Makes the advantages of some minibatches NaN, which makes their losses NaN."""

    def __init__(self, *batches: int) -> None:
        self.batches, self.seen = batches, -1

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Experience, batch_idx: int) -> None:
        self.seen += 1
        if self.seen in self.batches:
            batch.extra["advantage"].fill_(NAN)


def fit(module: TuningModule, *callbacks: Callback, epochs: int = 3, accumulate: int = 1) -> TuningModule:
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=1.0,
        callbacks=list(callbacks),
    )
    trainer.fit(module)
    return module


def module_of(folder: Path, *more: str) -> TuningModule:
    config = compose_config(chosen(folder, "ppo", "buffer.passes=1", "optimizer.weight_decay=0.1", *more))
    return assemble(checked(config, folder)).module


def test_a_step_that_is_skipped_moves_neither_weights_nor_moments(tmp_path: Path) -> None:
    """AdamW with weight decay would move both on a gradient of 0."""
    watch = Watch()
    module = fit(module_of(tmp_path, "on_nonfinite=skip", "buffer.minibatches=1"), Spoil(1), watch)
    assert watch.moved == [True, False, True]
    assert module.ended_metrics["skipped/steps"] == 0.0  # of the last epoch


def test_one_micro_batch_of_a_window_is_enough_to_skip_it(tmp_path: Path) -> None:
    """Windows of two; batch 2 is broken, batch 3 is not, and neither is learnt from."""
    watch = Watch()
    module = module_of(tmp_path, "on_nonfinite=skip", "buffer.minibatches=2")
    fit(module, Spoil(2), watch, accumulate=2)
    assert watch.moved == [False, True, False, False, False, True]


def test_metrics_of_a_skipped_step_do_not_count(tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []

    class Keep(Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            seen.append(module.finish_epoch())

    fit(module_of(tmp_path, "on_nonfinite=skip", "buffer.minibatches=2"), Spoil(2), Keep())
    assert [row["skipped/steps"] for row in seen] == [0.0, 1.0, 0.0]
    assert all(math.isfinite(row["loss/policy"]) for row in seen)


def test_the_algorithm_does_not_hear_of_a_skipped_step(tmp_path: Path) -> None:
    module = module_of(tmp_path, "on_nonfinite=skip", "buffer.minibatches=1")
    heard: list[int] = []

    def hear(policy: Any) -> None:
        heard.append(module.trainer.global_step)

    module.algorithm.after_step = hear  # type: ignore[method-assign]
    fit(module, Spoil(1))
    assert heard == [0, 2]  # steps made before


def test_a_run_that_never_recovers_stops_where_it_was_last_whole(tmp_path: Path) -> None:
    module = module_of(tmp_path, "on_nonfinite=skip", "buffer.minibatches=1")
    before = {name: weight.clone() for name, weight in module.policy.named_parameters()}
    with pytest.raises(UserError, match="10 optimiser steps in a row"):
        fit(module, Spoil(*range(20)), epochs=20)
    assert module.trainer.global_step < IN_A_ROW
    for name, weight in module.policy.named_parameters():
        assert torch.equal(weight, before[name]), name


def spoiling_reward(module: TuningModule, spoil: Callable[[Tensor], Tensor]) -> None:
    collect = module.collector.collect

    def spoilt(*args: Any) -> Rollout:
        brought = collect(*args)
        exp = brought.experience
        return replace(brought, experience=replace(exp, reward=spoil(exp.reward)))

    module.collector.collect = spoilt  # type: ignore[method-assign]


def test_a_broken_reward_stops_the_run_before_anything_is_learnt(tmp_path: Path) -> None:
    module, watch = module_of(tmp_path), Watch()
    spoiling_reward(module, lambda reward: torch.where(torch.arange(8)[:, None] == 2, -INF, reward))
    with pytest.raises(UserError, match=r"^the reward of row 3 of a rollout of 8 \(prompt 3\) is not finite"):
        fit(module, watch)
    assert watch.moved == []


def test_a_broken_reward_is_left_out_and_the_run_goes_on(tmp_path: Path) -> None:
    module, watch = module_of(tmp_path, "on_nonfinite=skip", "buffer.minibatches=1"), Watch()
    spoiling_reward(module, lambda reward: torch.where(torch.arange(8)[:, None] == 2, -INF, reward))
    fit(module, watch)
    assert watch.moved == [True, True, True]
    assert module.ended_metrics["skipped/rows"] == 1.0
    assert all(weight.isfinite().all() for weight in module.policy.parameters())


def test_what_an_algorithm_prepared_is_looked_at(tmp_path: Path) -> None:
    module = module_of(tmp_path)
    prepare = module.algorithm.prepare

    def spoilt(exp: Experience, policy: Any) -> Any:
        ready, metrics = prepare(exp, policy)
        returns = ready.extra["returns"].masked_fill(torch.arange(8)[:, None] == 4, INF)
        return ready.with_(returns=returns), metrics

    module.algorithm.prepare = spoilt  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"'returns' of row 5 of a rollout of 8 \(prompt 5\) is not finite"):
        fit(module)


def test_a_run_with_a_broken_gradient_names_the_weight_and_saves_nothing_of_it(tmp_path: Path) -> None:
    folder, fault = tmp_path / "run", ["debug=fault", "callbacks.fault.kind=nonfinite"]
    whole = ["collector.rows=25", "task.eval_fraction=0"]  # an epoch is one step
    said = r"training diverged: the gradient of backbone\.\S+ is not finite at optimiser step 2 of epoch 2"
    with pytest.raises(UserError, match=said):
        run(folder, chosen(tmp_path, "sft", *fault, *whole))
    assert not (folder / "export" / "feedtune.json").exists()


def test_columns_of_skipping_stand_in_every_row_and_only_where_it_was_chosen(tmp_path: Path) -> None:
    fault = ["debug=fault", "callbacks.fault.kind=nonfinite", "buffer.passes=1", "buffer.minibatches=1"]
    run(tmp_path / "skip", chosen(tmp_path, "ppo", "on_nonfinite=skip", *fault))
    rows = read_metrics(tmp_path / "skip" / "metrics.csv", 9)
    assert [row["skipped/steps"] for row in rows] == ["0.0", "1.0", "0.0"]
    assert [row["skipped/rows"] for row in rows] == ["0.0", "0.0", "0.0"]
    run(tmp_path / "raise", chosen(tmp_path, "ppo"))
    names = {name for row in read_metrics(tmp_path / "raise" / "metrics.csv", 9) for name in row}
    assert not any(name.startswith("skipped") for name in names)


def test_a_choice_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"on_nonfinite: expected one of raise, skip, got 'skp'\. Did you mean"
    ):
        run(tmp_path, chosen(tmp_path, "sft", "on_nonfinite=skp"))
