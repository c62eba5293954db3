"""A reward of somebody else's code that draws from every global generator."""

from __future__ import annotations

import random

import numpy as np
import torch


def score(responses: list[str]) -> list[float]:
    """Noise around the length."""
    return [
        len(said) + random.random() + float(np.random.rand()) + float(torch.rand(())) for said in responses
    ]
