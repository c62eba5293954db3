"""Names on the Hugging Face hub: said before they are fetched, without the libraries' lines on each retry."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feedtune.text.visible import plain

LIBRARIES = ("datasets", "fsspec", "httpx", "httpx2", "huggingface_hub", "transformers", "urllib3")
"""Whose loggers keep quiet: what went wrong at last is in the error that they raise."""

_said: set[str] = set()


@contextmanager
def fetching(name: str) -> Iterator[None]:
    """Load what `name` means; where that is no folder, one line says that the hub is asked.

    >>> with fetching("."):
    ...     logging.getLogger("huggingface_hub.utils").warning("Retrying in 1s [Retry 1/5].")
    """
    if not Path(name).expanduser().is_dir() and name not in _said:
        _said.add(name)  # a model's tokenizer and weights are fetched apart
        print(
            plain(f"fetching '{name}' from the Hugging Face hub, as there is no such folder"), file=sys.stderr
        )
    loggers = [logging.getLogger(library) for library in LIBRARIES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def not_found(name: str, error: Exception) -> str:
    """Why `name` could not be loaded, in a line; of a name on the hub, that no such folder is here either.

    >>> not_found("nobody/nothing", OSError("We couldn't connect to the hub. See the installation guide."))
    "no folder 'nobody/nothing' here, and the hub: We couldn't connect to the hub"
    """
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if Path(name).expanduser().is_dir():
        return reason
    return f"no folder '{name}' here, and the hub: {reason.split('. ')[0]}"
