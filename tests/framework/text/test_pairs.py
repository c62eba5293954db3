"""Pairs as tokens: the answer alone is learnt, after exactly what a policy would have been asked."""

from __future__ import annotations

from typing import Any

import pytest

from feedtune.errors import UserError
from feedtune.text.codec import Codec, EncodedSequence
from feedtune.text.tokenizers import TrainedTokenizer

TALK = [
    {"role": "user", "content": "ab"},
    {"role": "assistant", "content": "c"},
    {"role": "user", "content": "b"},
]
ROWS: list[dict[str, Any]] = [
    {"prompt": "ab", "chosen": "c", "rejected": "cab"},
    {"prompt": "", "chosen": "a", "rejected": ""},
    {"messages": TALK, "chosen": "ca", "rejected": "b"},
    {"prompt": TALK, "chosen": "ca", "rejected": "b"},
    {
        "chosen": [*TALK, {"role": "assistant", "content": "ca"}],
        "rejected": [*TALK, {"role": "assistant", "content": "b"}],
    },
]


@pytest.fixture(scope="module", params=["char", "word", "bpe"])
def codec(request: pytest.FixtureRequest) -> Codec:
    tokenizer = TrainedTokenizer(kind=request.param, vocab_size=300)
    return tokenizer.build(lambda: ["a", "b", "c", "ab", "cab", "ca"])


def learnt(codec: Codec, sequence: EncodedSequence) -> str:
    tokens = [t for t, action in zip(sequence.tokens, sequence.action, strict=True) if action]
    assert tokens[-1] in codec.eos_ids
    return codec.decode(tokens[:-1]).strip()


@pytest.mark.parametrize("row", ROWS, ids=["plain", "empty", "messages", "prompt of messages", "implicit"])
def test_the_answer_alone_is_learnt_after_what_is_asked(codec: Codec, row: dict[str, Any]) -> None:
    (chosen, rejected) = codec.pairs([row])[0]
    asked = {name: row[name] for name in ("prompt", "messages") if name in row} or {"messages": TALK}
    prompt = codec.prompt(asked).tokens
    for sequence in (chosen, rejected):
        assert sequence.tokens[: len(prompt)] == prompt
        assert sequence.action.index(True) == len(prompt)
    said = (row["chosen"], row["rejected"]) if isinstance(row["chosen"], str) else ("ca", "b")
    assert (learnt(codec, chosen), learnt(codec, rejected)) == said


def test_rows_of_all_forms_at_once(codec: Codec) -> None:
    assert codec.pairs(ROWS) == [codec.pairs([row])[0] for row in ROWS]
    assert codec.pairs([]) == []


def test_errors_count_rows_not_answers(codec: Codec) -> None:
    with pytest.raises(UserError, match=r"^row 3: no column 'rejected', found 'prompt', 'chosen'\."):
        codec.pairs([*ROWS[:2], {"prompt": "a", "chosen": "b"}])
    with pytest.raises(UserError, match=r"^row 2: 'prompt' must be text or a list of messages, got int"):
        codec.pairs([ROWS[0], {"prompt": 3, "chosen": "b", "rejected": "a"}])
