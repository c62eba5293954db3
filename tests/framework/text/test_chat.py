"""Chat rows: what is read, what is learnt, and that the two agree with each other and with transformers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedtune.chat_template import PLAIN, TAGGED, ChatTemplate
from feedtune.errors import UserError
from feedtune.text import Codec
from feedtune.tokenizers import train_tokenizer

TALK = [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris, of course!"},
    {"role": "user", "content": "And of Spain?"},
    {"role": "assistant", "content": "Madrid."},
]
ALL = ["chatml", "inst", "metaspace", "gpt2"]


def templated(tokenizer, messages, **options):
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)


def learnt(codec, sequence):
    """The learnt stretches as text, special tokens spelt out."""
    stretches, before = [], False
    for token, action in zip(sequence.tokens, sequence.action, strict=True):
        if action:
            stretches = stretches if before else [*stretches, []]
            stretches[-1].append(token)
        before = action
    return [codec.tokenizer.decode(stretch) for stretch in stretches]


@pytest.mark.parametrize("name", ALL)
def test_tokens_are_those_of_templating_the_whole(make, name):
    codec = Codec(make(name))
    assert list(codec.sequence({"messages": TALK}).tokens) == templated(codec.tokenizer, TALK)
    prompt = codec.prompt({"messages": TALK[:3]})
    assert list(prompt.tokens) == templated(codec.tokenizer, TALK[:3], add_generation_prompt=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatml", ["Paris, of course!<|im_end|>", "Madrid.<|im_end|>"]),  # and not the newline behind
        ("inst", [" Paris, of course! </s>", " Madrid. </s>"]),
        ("metaspace", ["Paris, of course! </s>", "Madrid. </s>"]),
        ("gpt2", [" Paris, of course!<|endoftext|>", " Madrid.<|endoftext|>"]),
    ],
)
def test_loss_is_on_every_assistant_turn_and_its_end(make, name, expected):
    codec = Codec(make(name))
    assert learnt(codec, codec.sequence({"messages": TALK})) == expected


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("turn", [1, 3])
def test_prompt_is_the_beginning_of_the_sequence_at_every_turn(make, name, turn):
    codec = Codec(make(name))
    prompt, sequence = codec.prompt({"messages": TALK[:turn]}), codec.sequence({"messages": TALK})
    assert sequence.tokens[: len(prompt.tokens)] == prompt.tokens
    assert sequence.action[len(prompt.tokens)], "the first token after the prompt is what is learnt"
    assert not sequence.action[len(prompt.tokens) - 1]


texts = st.text(max_size=12).filter(lambda text: "\x02" not in text and "\x03" not in text)


@pytest.mark.parametrize("name", ["chatml", "gpt2", "metaspace"])
@settings(max_examples=60, deadline=None)
@given(asked=texts, said=texts, more=texts)
def test_prompt_is_the_beginning_whatever_is_said(name, asked, said, more):
    from feedtune.text import Codec

    codec = CODECS.setdefault(name, Codec(_maker(name)()))
    talk = [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": said},
        {"role": "user", "content": more},
        {"role": "assistant", "content": said},
    ]
    sequence = codec.sequence({"messages": talk})
    for turn in (1, 3):
        prompt = codec.prompt({"messages": talk[:turn]}).tokens
        assert sequence.tokens[: len(prompt)] == prompt
        assert sequence.action[len(prompt)]
    assert learnt(codec, sequence)[0].endswith(codec.tokenizer.eos_token)
