"""Out of memory: what to lower, and how far the run had come."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from feedtune.config.compose import compose_config
from feedtune.errors import UserError
from feedtune.runs.shortage import is_out_of_memory, memory_in_words
from small_runs import overrides, run, write_rows

TOO_MUCH = 10**14  # more floats than the address space of a process has bytes


def test_a_real_allocation_that_fails_is_known() -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.empty(TOO_MUCH * 8)
    assert is_out_of_memory(failed.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:66] not enough memory: you tried to allocate 8 bytes"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_the_ways_in_which_it_is_said(error: BaseException) -> None:
    assert is_out_of_memory(error)
    outer = UserError("reward 'mine' failed")
    outer.__cause__ = error
    assert is_out_of_memory(outer)


def test_bytes_are_told_as_sizes_and_not_cut() -> None:
    """Of what torch says, which was cut within its number; 25.6 GB is 25 600 000 000 bytes."""
    said = (
        "[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 25600000000 bytes. Error code 12 (Cannot allocate memory)"
    )
    with pytest.raises(UserError) as stop, memory_in_words(OmegaConf.create({}), lambda: "here"):
        raise RuntimeError(said)
    assert "you tried to allocate 25.6 GB" in str(stop.value)


@pytest.mark.parametrize(
    "error",
    [ValueError("out of memory of names"), RuntimeError("shapes do not match"), OSError(28, "No space left")],
)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, memory_in_words(OmegaConf.create({}), lambda: "here"):
        raise error
    assert raised.value is error


def test_a_run_that_asks_for_too_much_says_what_to_lower(tmp_path: Path) -> None:
    """The uniforms of a rollout are drawn at once: eight responses of so many tokens."""
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo", f"collector.max_new_tokens={TOO_MUCH}")
    with pytest.raises(UserError) as stop:
        run(tmp_path / "run", chosen)
    message = str(stop.value).splitlines()[0]
    assert message.startswith("out of memory at optimiser step 1 of epoch 1 (")
    for words in (
        f"Lower collector.responses (now 8), collector.max_new_tokens (now {TOO_MUCH})",
        "raise buffer.minibatches (now 2) and trainer.accumulate_grad_batches (now 1) together",
        "trainer.precision=bf16-mixed",
    ):
        assert words in message
    assert "lora" not in message  # an LSTM has none


def test_a_model_that_does_not_fit_is_said_of_the_model(tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "lstm", "sft", f"backbone.hidden_size={10**8}")
    said = r"^out of memory while the model was built \(.*Lower collector\.rows \(now 8\)"
    with pytest.raises(UserError, match=said):
        run(tmp_path / "run", chosen)


def test_only_what_a_run_has_is_named(tmp_path: Path) -> None:
    config = compose_config(
        ["algorithm=grpo", "backbone=hf", "backbone.name=x", "trainer.precision=bf16-mixed"]
    )
    with pytest.raises(UserError) as stop, memory_in_words(config, lambda: "there"):
        raise MemoryError
    assert "backbone.lora={rank: 16}" in str(stop.value)
    assert "precision" not in str(stop.value)
    said = r"^out of memory there \(MemoryError\)\. Take a smaller model"
    with pytest.raises(UserError, match=said), memory_in_words(OmegaConf.create({}), lambda: "there"):
        raise MemoryError


def test_notes_of_the_error_are_kept() -> None:
    error = MemoryError()
    error.add_note("the state at that moment is in run/checkpoints/postmortem")
    said = r"(?s)^out of memory there .*\nthe state at that moment is in run"
    with pytest.raises(UserError, match=said), memory_in_words(OmegaConf.create({}), lambda: "there"):
        raise error


def test_the_command_prints_it_without_a_traceback(rows: Path, feedtune: Any) -> None:
    chosen = overrides(
        rows, "lstm", "ppo", f"collector.max_new_tokens={TOO_MUCH}", "report=false", "hydra.run.dir=run"
    )
    said = feedtune("train", *chosen)
    assert said.code == 2
    assert "feedtune: out of memory at optimiser step 1 of epoch 1" in said.err
    assert "Traceback" not in said.err


def test_a_process_that_may_not_grow(tmp_path: Path) -> None:
    """A limit on the address space, as batch systems set it: 32 MiB more than now, and 128 are asked for."""
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo", "collector.responses=65536")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**25, before[1]))
    try:
        with pytest.raises(UserError) as stop:
            run(tmp_path / "run", [*chosen, "collector.max_new_tokens=512"])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert str(stop.value).startswith("out of memory at optimiser step 1 of epoch 1 (")
    assert "Lower collector.responses (now 65536), collector.max_new_tokens (now 512)" in str(stop.value)
