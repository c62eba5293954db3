"""What policies say to the same prompts, as items to ask about."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feedtune.contracts import Row
from feedtune.errors import UserError
from feedtune.feedback.ids import item_of, response_of
from feedtune.feedback.records import Item, Response
from feedtune.randomness import generator_for
from feedtune.runs.export import Loaded
from feedtune.sampling import Decoding, sample
from feedtune.text.codec import EncodedPrompt

ROWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """A policy that is to be judged."""

    loaded: Loaded
    run: str  # its name
    checkpoint: str  # sha256 of its weights


def gather(
    speakers: Sequence[Speaker],
    rows: Sequence[Row],
    *,
    prompts: int,
    responses: int,
    max_new_tokens: int,
    decoding: Decoding | None = None,
    seed: int = 0,
) -> list[Item]:
    """Let each policy answer the same prompts; an item for each prompt, with what all of them said.

    The same arguments give the same items. Prompts that leave some policy no room are passed over.

    Args:
        speakers: the policies.
        rows: of a task.
        prompts: how many different ones are drawn.
        responses: of each policy to each prompt; those that are the same count once.
        max_new_tokens: longest response in tokens.
        decoding: how tokens are chosen; by default from the policy's own distribution.
        seed: of prompts and responses.

    Raises:
        UserError: a row asks nothing, or no prompt leaves room for a response.
    """
    chosen = _drawn([row for row in rows if _fits(speakers, row, max_new_tokens)], prompts, seed)
    if not chosen:
        raise UserError(f"no prompt of {len(rows)} leaves room for {max_new_tokens} tokens of a response")
    first = speakers[0].loaded.codec.prompts(chosen)
    said: list[dict[str, Response]] = [{} for _ in chosen]
    for number, speaker in enumerate(speakers):
        texts = _texts(speaker, chosen, responses, max_new_tokens, decoding, seed + number)
        for prompt, texts_of_prompt, found in zip(first, texts, said, strict=True):
            for text in texts_of_prompt:
                one = response_of(prompt.text, text, run=speaker.run, checkpoint=speaker.checkpoint)
                found[one.id] = one
    return [_item(prompt, list(found.values())) for prompt, found in zip(first, said, strict=True)]


def _fits(speakers: Sequence[Speaker], row: Row, new: int) -> bool:
    limits = [(one.loaded.policy.backbone.context_length, one.loaded.codec) for one in speakers]
    return all(limit is None or len(codec.prompt(row).tokens) + new <= limit for limit, codec in limits)


def _drawn(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Some rows of different prompts, in their order."""
    different = list({json.dumps(_asked(row), default=str): row for row in rows}.values())
    picked = random.Random(seed).sample(range(len(different)), min(count, len(different)))
    return [different[number] for number in sorted(picked)]


def _asked(row: Row) -> Any:
    return row["messages"] if row.get("messages") is not None else row.get("prompt")


def _texts(
    speaker: Speaker, rows: Sequence[Row], count: int, new: int, decoding: Decoding | None, seed: int
) -> list[list[str]]:
    """What a policy says to each row."""
    codec, generator = speaker.loaded.codec, generator_for(seed, 0)
    found: list[str] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        said = sample(
            speaker.loaded.policy,
            [prompt.tokens for prompt in codec.prompts(rows[start : start + ROWS_AT_ONCE])],
            max_new_tokens=new,
            eos_ids=codec.eos_ids,
            generator=generator,
            group_size=count,
            decoding=decoding,
            stopped=codec.stopped if codec.stop else None,
        )
        found += [codec.response(one.tokens) for one in said]
    return [found[start : start + count] for start in range(0, len(found), count)]


def _item(prompt: EncodedPrompt, responses: Sequence[Response]) -> Item:
    messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in prompt.messages]
    columns = {name: value for name, value in prompt.row.items() if _is_json(value)}
    return item_of(prompt.text, responses, messages=messages, columns=columns)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
