"""What a causal language model has to hold before it is tuned; whatever fails is refused by name, at load.

The checks run on a few tokens in the model's own precision, draw no random numbers and take a handful of
short passes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from feedtune.contracts import State
from feedtune.errors import UserError
from feedtune_plugins.backbones.causal_lm import CausalLM

WIDTH = 8  # columns of the rows that are read
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3}  # of a difference's norm, relative; rotary is fp32
COARSE = 5e-2  # in bfloat16 and float16: cached and full passes add up in different order


def check_causal_lm(backbone: CausalLM, name: str) -> None:
    """Raise UserError with the first law that this model breaks; leaves it in training mode.

    The laws: trunk and unembedding give the model's own logits; a pad leaves no trace; prefix and state are
    the whole; rows of the state can be repeated and dropped.
    """
    kind = backbone.causal.config.model_type

    def refuse(reason: str) -> UserError:
        return UserError(f"backbone.name: '{name}' ({kind}) cannot be tuned: {reason}")

    if "past_key_values" not in inspect.signature(backbone.causal.base_model.forward).parameters:
        raise refuse("its state is no key-value cache, so rows of it cannot be repeated or dropped")
    if backbone.causal.get_output_embeddings() is None:
        raise refuse("it has no output embeddings (lm_head)")
    backbone.eval()
    for check in (_check_logits, _check_prefix, _check_pads, _check_select):
        _run(check, backbone, refuse)
    backbone.train()


def _run(
    check: Callable[[CausalLM], str | None], backbone: CausalLM, refuse: Callable[[str], UserError]
) -> None:
    try:
        with torch.no_grad():
            reason = check(backbone)
    except Exception as error:  # foreign code: whatever it raises means that the law does not hold
        message = str(error).strip().splitlines() or [type(error).__name__]
        raise refuse(f"reading a few tokens failed ({message[0]})") from error
    if reason:
        raise refuse(reason)


def _check_logits(backbone: CausalLM) -> str | None:
    """What lm_head reads is the trunk's output, and what it says are the logits.

    The second is asked with a ramp from -100 to 100 in lm_head's place: a cap or a scale that would hide
    behind the small logits of some weights cannot hide from it.
    """
    model, (tokens, mask) = backbone.causal, _probe(backbone)
    hidden, _ = backbone(tokens, mask)
    unembedding = model.get_output_embeddings()
    read: list[Tensor] = []
    ramp = torch.linspace(-100, 100, unembedding.weight.shape[0], dtype=hidden.dtype, device=hidden.device)

    def replace(_: object, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        read.append(args[0])
        return ramp.expand_as(out)

    handle = unembedding.register_forward_hook(replace)
    try:
        logits = model(input_ids=tokens).logits
    finally:
        handle.remove()
    if not read or _differ(read[0], hidden):
        return "its lm_head does not read the last hidden state as it is"
    if _differ(logits, ramp.expand_as(logits)):
        return "it scales or caps its logits outside lm_head"
    return None


def _check_prefix(backbone: CausalLM) -> str | None:
    tokens, mask = _probe(backbone)
    whole, _ = backbone(tokens, mask)
    first, state = backbone(tokens[:, :5], mask[:, :5])
    rest, _ = backbone(tokens[:, 5:], mask[:, 5:], state)
    if _differ(torch.cat([first, rest], 1), whole):
        return "a prefix and its cached state are not the whole (it sees what comes after, or forgets)"
    return None


def _check_pads(backbone: CausalLM) -> str | None:
    tokens, mask = _probe(backbone)
    alone, state = backbone(tokens[:, :5], mask[:, :5])
    ends = torch.cat([tokens.flip(1)[:, :3], tokens[:, :5], tokens.flip(1)[:, :3]], 1)
    holes = torch.tensor([[False] * 3 + [True] * 5 + [False] * 3], device=mask.device).expand(2, -1)
    padded, padded_state = backbone(ends, holes)
    after, _ = backbone(tokens[:, 5:], mask[:, 5:], state)
    padded_after, _ = backbone(tokens[:, 5:], mask[:, 5:], padded_state)
    if _differ(padded[:, 3:8], alone) or _differ(padded_after, after):
        return "pads change what real tokens see"
    return None


def _check_select(backbone: CausalLM) -> str | None:
    tokens, mask = _probe(backbone)
    rows = torch.tensor([1, 0, 1], device=mask.device)

    def start() -> State:
        return backbone(tokens[:, :5], mask[:, :5])[1]

    expected, _ = backbone(tokens[rows, 5:], mask[rows, 5:], backbone(tokens[rows, :5], mask[rows, :5])[1])
    found, _ = backbone(tokens[rows, 5:], mask[rows, 5:], backbone.select(start(), rows))
    if _differ(found, expected):
        return "rows of its cached state cannot be repeated or dropped"
    return None


def _probe(backbone: CausalLM) -> tuple[Tensor, Tensor]:
    """Two rows of tokens from all over the vocabulary and their mask, `[2, WIDTH]`."""
    device = backbone.causal.get_output_embeddings().weight.device
    tokens = torch.linspace(0, backbone.vocab_size - 1, 2 * WIDTH, device=device).long().view(2, WIDTH)
    return tokens, torch.ones_like(tokens, dtype=torch.bool)


def _differ(found: Tensor, expected: Tensor) -> bool:
    """Whether the difference is more than rounding; NaN differs from everything."""
    if found.shape != expected.shape:
        return True
    error = (found.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-12)
    return not bool(error <= TOLERANCE.get(expected.dtype, COARSE))
