"""Out of memory, in words: what to lower, and how far the run had come."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from omegaconf import DictConfig, OmegaConf

from feedtune.durable import size
from feedtune.errors import UserError, one_line

SAID = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "alloc_failed",
    "bad_alloc",
)
"""What allocators say, in lower case, in errors that are none of their own."""

LOWER = tuple(
    f"collector.{name}" for name in ("responses", "max_new_tokens", "rows", "block_size", "pairs", "episodes")
)
"""Keys that a run may have, whose number is memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that led to it, says that there is no memory left.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."))
    True
    >>> is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, RuntimeError | OSError) and any(words in str(error).lower() for words in SAID):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


@contextmanager
def memory_in_words(config: DictConfig, place: Callable[[], str]) -> Iterator[None]:
    """Inside of the block, running out of memory is a `UserError` that says what to lower.

    Args:
        config: of the run: only keys that it has are named.
        place: says how far it has come.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        said = _shortened(_with_sizes(one_line(error)))
        text = f"out of memory {place()} ({said}). {'; '.join(_remedies(config))}"
        raise UserError("\n".join([text, *getattr(error, "__notes__", [])])) from error


def _remedies(config: DictConfig) -> list[str]:
    lower = [f"{key} (now {OmegaConf.select(config, key)})" for key in LOWER if _has(config, key)]
    found = [f"Lower {', '.join(lower)}"] if lower else []
    if _has(config, "buffer.minibatches"):
        window = OmegaConf.select(config, "trainer.accumulate_grad_batches") or 1
        found.append(
            f"raise buffer.minibatches (now {config.buffer.minibatches}) and "
            f"trainer.accumulate_grad_batches (now {window}) together: the same steps in smaller parts"
        )

    if "lora" in (config.get("backbone") or {}) and config.backbone.lora is None:
        found.append("train an adapter only: 'backbone.lora={rank: 16}'")
    if str(OmegaConf.select(config, "trainer.precision")).startswith("32"):
        found.append("trainer.precision=bf16-mixed")
    return found or ["Take a smaller model or shorter rows"]


def _has(config: DictConfig, key: str) -> bool:
    return OmegaConf.select(config, key) is not None


def _with_sizes(text: str) -> str:
    """What an allocator says, its numbers of bytes for people.

    >>> _with_sizes("you tried to allocate 25600000000 bytes.")
    'you tried to allocate 25.6 GB.'
    """
    return re.sub(r"\b(\d+) bytes\b", lambda found: size(int(found[1])), text)


def _shortened(text: str, length: int = 120) -> str:
    return text if len(text) <= length else f"{text[:length]}..."
