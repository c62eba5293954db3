"""Calls in threads that nobody has to wait for: what hangs in a daemon never holds up the exit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from queue import Empty, SimpleQueue
from typing import TypeVar

import torch

T = TypeVar("T")
Item = TypeVar("Item")


class LateError(Exception):
    """A call took longer than it may. Its thread goes on for itself, for a thread cannot be stopped."""

    def __init__(self, thread: threading.Thread) -> None:
        super().__init__(f"{thread.name} is late")
        self.thread = thread


def within(seconds: float | None, call: Callable[[], T]) -> T:
    """What `call` returns or raises. With a limit it runs in a thread of its own, under this thread's torch.

    Args:
        seconds: most that it may take; null: no limit, and it is called here.
        call: needs no argument.

    Raises:
        LateError: it takes longer.

    >>> within(5.0, lambda: 1 + 1)
    2
    """
    if seconds is None:
        return call()
    outcome: SimpleQueue[tuple[list[T], BaseException | None]] = SimpleQueue()
    torch_here = ThreadState()

    def work() -> None:
        try:
            with torch_here.restored():
                result = call()
        except BaseException as error:  # Ctrl-C and exits too: they are the calling thread's to raise
            outcome.put(([], error))
        else:
            outcome.put(([result], None))

    thread = threading.Thread(target=work, name="reward", daemon=True)
    thread.start()
    try:
        results, error = outcome.get(timeout=min(seconds, threading.TIMEOUT_MAX))
    except Empty:
        raise LateError(thread) from None
    if error is not None:
        raise error
    return results[0]


def in_threads(function: Callable[[Item], T], items: Sequence[Item], threads: int) -> list[T]:
    """`function` of each item, in order, by so many threads at once; the first item's error is raised.

    After an error no further item is begun; those that have been are waited for.

    >>> in_threads(lambda x: x * x, [1, 2, 3], threads=2)
    [1, 4, 9]
    """
    if threads == 1 or len(items) < 2:
        return [function(item) for item in items]
    waiting: SimpleQueue[int] = SimpleQueue()
    for number in range(len(items)):
        waiting.put(number)
    results: dict[int, T] = {}
    errors: dict[int, BaseException] = {}
    finished: SimpleQueue[None] = SimpleQueue()

    def work() -> None:
        while not errors:
            try:
                number = waiting.get_nowait()
            except Empty:
                break
            try:
                results[number] = function(items[number])
            except BaseException as error:  # raised below
                errors[number] = error
        finished.put(None)

    workers = min(threads, len(items))
    for number in range(workers):
        threading.Thread(target=work, name=f"reward {number}", daemon=True).start()
    for _ in range(workers):
        finished.get()
    if errors:
        raise errors[min(errors)]
    return [results[number] for number in range(len(items))]


class ThreadState:
    """What torch keeps for each thread by itself: gradients, inference mode, autocast, the current GPU.

    >>> with torch.no_grad():
    ...     within(5.0, torch.is_grad_enabled)
    False
    """

    def __init__(self) -> None:
        self.gradients, self.inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        accelerator = torch.accelerator.current_accelerator()
        kinds = ["cpu", *([accelerator.type] if accelerator else [])]
        self.autocast = {k: torch.get_autocast_dtype(k) for k in kinds if torch.is_autocast_enabled(k)}
        self.cache = torch.is_autocast_cache_enabled()
        initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        self.gpu = torch.cuda.current_device() if initialized else None

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Inside of the block, this thread is as the other was."""
        with ExitStack() as stack:
            if self.gpu is not None:
                torch.cuda.set_device(self.gpu)
            stack.enter_context(torch.inference_mode(self.inference))
            stack.enter_context(torch.set_grad_enabled(self.gradients))
            for kind, dtype in self.autocast.items():
                stack.enter_context(torch.autocast(kind, dtype=dtype, cache_enabled=self.cache))
            yield
