"""Opening models of transformers without its progress bars, which would stand between our own lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers.utils import logging


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' bars for weights, which are over in no time; downloads keep theirs."""
    bars: Any = logging
    shown, downloads = bars.is_progress_bar_enabled(), not are_progress_bars_disabled()
    bars.disable_progress_bar()
    if downloads:
        enable_progress_bars()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
        if not downloads:
            disable_progress_bars()
