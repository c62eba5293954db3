"""What policies say to the same prompts: all of them asked the same, again the same, within their context."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from feedtune.errors import UserError
from feedtune.feedback.asking.gathering import Speaker, gather
from feedtune.policy import Policy
from feedtune.runs.export import Loaded
from feedtune.text.tokenizers import TrainedTokenizer
from feedtune_plugins.backbones.ngram import NGram
from feedtune_plugins.backbones.transformer import Transformer

ROWS = [
    {"prompt": f"{a}+{b}=", "reference": str(a + b), "tensor": object()} for a in range(5) for b in range(5)
]
OPTIONS: dict[str, Any] = {"prompts": 6, "responses": 3, "max_new_tokens": 4, "seed": 1}
CODEC = TrainedTokenizer(kind="char").build(lambda: ["0123456789+="])


def speaker(run: str, context: int | None = None, seed: int = 0) -> Speaker:
    torch.manual_seed(seed)
    if context is None:
        backbone: Any = NGram(vocab_size=CODEC.vocab_size, n=2, buckets=64)
    else:
        backbone = Transformer(
            vocab_size=CODEC.vocab_size,
            hidden_size=16,
            layers=1,
            heads=2,
            kv_heads=1,
            intermediate_size=24,
            context_length=context,
        )
    policy = Policy(backbone, heads={}, temperature=1.0).eval()
    return Speaker(loaded=Loaded(policy, CODEC, chat=False), run=run, checkpoint=f"hash of {run}")


def test_every_policy_answers_the_same_prompts() -> None:
    items = gather([speaker("one"), speaker("two", seed=1)], ROWS, **OPTIONS)
    assert len(items) == len({item.prompt for item in items}) == 6
    for item in items:
        assert {response.run for response in item.responses} == {"one", "two"}
        assert {response.checkpoint for response in item.responses} == {"hash of one", "hash of two"}
        for run in ("one", "two"):
            said = [response.text for response in item.responses if response.run == run]
            assert 1 <= len(said) == len(set(said)) <= 3
        assert item.columns == {"prompt": item.prompt, "reference": str(eval(item.prompt[:-1]))}
    assert items == gather([speaker("one"), speaker("two", seed=1)], ROWS, **OPTIONS)
    assert items != gather([speaker("one"), speaker("two", seed=1)], ROWS, **{**OPTIONS, "seed": 2})


def test_a_prompt_that_comes_twice_is_asked_once_and_no_more_than_there_are() -> None:
    items = gather([speaker("one")], ROWS[:4] + ROWS[:4], **OPTIONS)
    assert [item.prompt for item in items] == [str(row["prompt"]) for row in ROWS[:4]]


def test_prompts_that_leave_a_policy_no_room_are_passed_over() -> None:
    long: list[dict[str, Any]] = [{"prompt": "1+" * 8 + "1="}]
    narrow = speaker("narrow", context=12)
    items = gather([speaker("wide"), narrow], ROWS[:3] + long, **OPTIONS)
    assert [item.prompt for item in items] == [str(row["prompt"]) for row in ROWS[:3]]
    with pytest.raises(UserError, match="no prompt of 1 leaves room for 4 tokens of a response"):
        gather([narrow], long, **OPTIONS)
