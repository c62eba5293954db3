"""Chat rows: what is read, what is learnt, and that the two agree with each other and with transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from feedtune.errors import UserError
from feedtune.text.chat_template import PLAIN, TAGGED, ChatTemplate
from feedtune.text.codec import Codec, EncodedSequence
from feedtune.text.tokenizers import train_tokenizer

Make = Callable[[str], PreTrainedTokenizerFast]

TALK = [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris, of course!"},
    {"role": "user", "content": "And of Spain?"},
    {"role": "assistant", "content": "Madrid."},
]
ALL = ["chatml", "inst", "metaspace", "gpt2"]


def templated(codec: Codec, messages: list[dict[str, str]], **options: Any) -> tuple[int, ...]:
    """What transformers makes of a conversation."""
    return tuple(codec.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options))


def learnt(codec: Codec, sequence: EncodedSequence) -> list[str]:
    """The learnt stretches as text, special tokens spelt out."""
    stretches: list[list[int]] = []
    before = False
    for token, action in zip(sequence.tokens, sequence.action, strict=True):
        if action and not before:
            stretches.append([])
        if action:
            stretches[-1].append(token)
        before = action
    return [str(codec.tokenizer.decode(stretch)) for stretch in stretches]


@pytest.mark.parametrize("name", ALL)
def test_tokens_are_those_of_templating_the_whole(make: Make, name: str) -> None:
    codec = Codec(make(name))
    assert codec.sequence({"messages": TALK}).tokens == templated(codec, TALK)
    asked = templated(codec, TALK[:3], add_generation_prompt=True)
    assert codec.prompt({"messages": TALK[:3]}).tokens == asked


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatml", ["Paris, of course!<|im_end|>", "Madrid.<|im_end|>"]),  # and not the newline after it
        ("inst", [" Paris, of course! </s>", " Madrid. </s>"]),
        ("metaspace", ["Paris, of course! </s>", "Madrid. </s>"]),  # its decoder drops the first space
        ("gpt2", [" Paris, of course!<|endoftext|>", " Madrid.<|endoftext|>"]),
    ],
)
def test_loss_is_on_every_assistant_turn_with_its_end(make: Make, name: str, expected: list[str]) -> None:
    codec = Codec(make(name))
    assert learnt(codec, codec.sequence({"messages": TALK})) == expected


def test_loss_on_all_leaves_out_the_first_token_only(make: Make) -> None:
    sequence = Codec(make("chatml")).sequence({"messages": TALK}, loss_on="all")
    assert sequence.action == (False, *[True] * (len(sequence.tokens) - 1))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("turn", [1, 3])
def test_prompt_is_the_beginning_of_the_sequence_at_every_turn(make: Make, name: str, turn: int) -> None:
    codec = Codec(make(name))
    prompt, sequence = codec.prompt({"messages": TALK[:turn]}), codec.sequence({"messages": TALK})
    assert sequence.tokens[: len(prompt.tokens)] == prompt.tokens
    assert not sequence.action[len(prompt.tokens) - 1]
    assert sequence.action[len(prompt.tokens)]  # learning begins with the first token that is generated


said = st.text(
    alphabet=st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t "), max_size=12
)


@pytest.mark.parametrize("name", ["chatml", "gpt2", "metaspace"])
@settings(max_examples=50, deadline=None)
@given(first=said, answer=said, second=said)
def test_prompt_is_the_beginning_whatever_is_said(
    codecs: dict[str, Codec], name: str, first: str, answer: str, second: str
) -> None:
    codec = codecs[name]
    contents = [("user", first), ("assistant", answer), ("user", second), ("assistant", answer)]
    talk = [{"role": role, "content": content} for role, content in contents]
    sequence = codec.sequence({"messages": talk})
    for turn in (1, 3):
        prompt = codec.prompt({"messages": talk[:turn]}).tokens
        assert sequence.tokens[: len(prompt)] == prompt
        assert sequence.action[len(prompt)]
    ends = [
        token in codec.eos_ids
        for token, action in zip(sequence.tokens, sequence.action, strict=True)
        if action
    ]
    assert ends.count(True) == 2
    assert ends[-1]


def test_where_tokens_would_merge_across_the_boundary_the_prompt_wins(make: Make) -> None:
    # The header ends in a newline. With "\n\nno" the whole has three, which byte BPE splits into "\n\n"
    # (a token of this vocabulary) and "\n"; the prompt ends in "\n", so the answer brings two single ones.
    codec = Codec(make("chatml"))
    newline, two = codec.tokenizer.convert_tokens_to_ids(["Ċ", "ĊĊ"])
    assert two is not None
    talk = [TALK[0], {"role": "assistant", "content": "\n\nno"}]
    prompt, sequence = codec.prompt({"messages": talk[:1]}), codec.sequence({"messages": talk})
    assert two in templated(codec, talk)
    assert prompt.tokens[-1] == newline
    assert sequence.tokens[: len(prompt.tokens) + 2] == (*prompt.tokens, newline, newline)
    assert learnt(codec, sequence) == ["\n\nno<|im_end|>"]


@pytest.mark.parametrize("name", ["inst", "metaspace"])
def test_bos_comes_once_though_template_and_tokenizer_both_give_it(make: Make, name: str) -> None:
    codec = Codec(make(name))
    bos = codec.tokenizer.bos_token_id
    tokens = codec.prompt({"messages": TALK[:1]}).tokens
    assert tokens.count(bos) == 1
    assert tokens[0] == bos


def test_our_template_opens_with_bos_where_the_tokenizer_does(make: Make) -> None:
    tokenizer = make("inst")
    tokenizer.chat_template = None
    codec = Codec(tokenizer)
    assert codec.tokenizer.decode(codec.prompt({"messages": TALK[:1]}).tokens) == (
        "<s>User: What is the capital of France?\nAssistant:"
    )


def test_end_of_turn_ends_a_response_though_it_is_not_the_eos_token(make: Make) -> None:
    tokenizer = make("chatml")
    tokenizer.eos_token = "<|endoftext|>"  # as base models have it that share a chat model's template
    codec = Codec(tokenizer)
    assert codec.eos_ids == (0, 2)  # <|endoftext|>, and <|im_end|> which closes the template's turns
    assert Codec(make("chatml"), eos_ids=[0]).eos_ids == (0,)  # said explicitly: nothing is added


# -- what rows may look like ----------------------------------------------------------------------------


def test_final_assistant_message_is_the_reference(make: Make) -> None:
    codec = Codec(make("chatml"))
    prompt = codec.prompt({"messages": TALK[:2], "id": 7})
    assert prompt.row["reference"] == "Paris, of course!"
    assert prompt.row["id"] == 7
    assert prompt.tokens == codec.prompt({"messages": TALK[:1]}).tokens
    assert codec.prompt({"messages": TALK[:2], "reference": "Lyon"}).row["reference"] == "Lyon"


def test_reference_answers_a_conversation_that_ends_in_a_question(make: Make) -> None:
    codec = Codec(make("chatml"))
    row = {"messages": TALK[:1], "reference": "Paris, of course!"}
    assert codec.sequence(row) == codec.sequence({"messages": TALK[:2]})


def test_prompt_may_be_a_conversation_and_content_a_list_of_parts(make: Make) -> None:
    codec = Codec(make("chatml"))
    parts = [{"type": "text", "text": "What is the capital "}, {"type": "text", "text": "of France?"}]
    prompt = codec.prompt({"prompt": [{"role": "user", "content": parts}]})
    assert prompt.tokens == codec.prompt({"messages": TALK[:1]}).tokens
    assert prompt.messages == (TALK[0],)


def test_system_prompt_opens_rows_that_have_none(make: Make) -> None:
    codec = Codec(make("chatml"), system_prompt="Be brief.")
    system = {"role": "system", "content": "Be brief."}
    prompt = codec.prompt({"messages": TALK[:1]})
    assert prompt.messages == (system, TALK[0])
    assert prompt.tokens == templated(codec, [system, TALK[0]], add_generation_prompt=True)
    own = [{"role": "system", "content": "Be long."}, TALK[0]]
    assert codec.prompt({"messages": own}).messages == tuple(own)


def test_text_for_people(make: Make) -> None:
    codec = Codec(make("chatml"), system_prompt="Be brief.")
    assert codec.prompt({"messages": TALK[:1]}).text == "What is the capital of France?"
    sequence = codec.sequence({"messages": TALK})
    assert sequence.prompt == (
        "user: What is the capital of France?\nassistant: Paris, of course!\nuser: And of Spain?"
    )
    assert sequence.response == "Madrid."


def test_an_opening_word_of_the_assistant_is_read_but_not_learnt(make: Make) -> None:
    codec = Codec(make("chatml"))
    greeting = {"role": "assistant", "content": "Hello there"}
    assert learnt(codec, codec.sequence({"messages": [greeting, *TALK[:2]]})) == [
        "Paris, of course!<|im_end|>"
    ]
    with pytest.raises(UserError, match="row 1: its only message is the assistant's"):
        codec.prompt({"messages": [greeting]})
    with pytest.raises(UserError, match="row 1: no assistant message answers another"):
        codec.sequence({"messages": [greeting]})


# -- templates that rewrite, and marks ------------------------------------------------------------------


def test_template_that_rewrites_earlier_turns_is_refused_for_learning(make: Make) -> None:
    codec = Codec(make("forgetful"))
    talk = [TALK[0], {"role": "assistant", "content": "<think> well </think>Paris"}, *TALK[2:]]
    with pytest.raises(UserError, match=r"row 2: .*rewrites earlier turns: message 2"):
        codec.sequences([{"messages": TALK[:2]}, {"messages": talk}])
    assert learnt(codec, codec.sequence({"messages": talk[:2]})) == ["<think> well </think>Paris<|im_end|>"]
    # To be answered it is fine: the prompt is what transformers makes of it.
    assert codec.prompt({"messages": talk[:3]}).tokens == templated(
        codec, talk[:3], add_generation_prompt=True
    )


HEADER_INSIDE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{%- generation -%} {{ '<|im_start|>assistant\n' + "
    "(message['content'] if loop.last else message['content'].split('</think>')[-1]) + '<|im_end|>\n' }} "
    "{%- endgeneration -%}{% else %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_marks_help_where_a_template_rewrites_and_a_header_inside_them_is_not_learnt(make: Make) -> None:
    tokenizer = make("chatml")
    tokenizer.chat_template = HEADER_INSIDE
    codec = Codec(tokenizer)
    talk = [TALK[0], {"role": "assistant", "content": "<think> well </think>Paris"}, *TALK[2:]]
    sequence = codec.sequence({"messages": talk})
    assert sequence.tokens == templated(codec, talk)
    assert learnt(codec, sequence) == ["Paris<|im_end|>", "Madrid.<|im_end|>"]
    prompt = codec.prompt({"messages": talk[:3]}).tokens
    assert sequence.tokens[: len(prompt)] == prompt
    assert sequence.action[len(prompt)]


def test_marks_that_begin_elsewhere_than_the_generation_prompt_ends_are_refused(make: Make) -> None:
    tokenizer = make("chatml")
    tokenizer.chat_template = HEADER_INSIDE.removesuffix("' }}{% endif %}") + "Well: ' }}{% endif %}"
    with pytest.raises(UserError, match=r"row 1: .*marks do not begin where its generation prompt ends"):
        Codec(tokenizer).sequence({"messages": TALK})


@pytest.mark.parametrize("template", [TAGGED, PLAIN])
def test_our_marks_lie_where_rendering_prefix_by_prefix_finds_the_turns(template: str) -> None:
    tokenizer = train_tokenizer("char", [message["content"] for message in TALK], 99)
    tokenizer.chat_template = template
    by_marks = ChatTemplate(tokenizer)
    assert by_marks.own
    tokenizer.chat_template = template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    by_prefixes = ChatTemplate(tokenizer)
    assert not by_prefixes.marked
    said = [
        "".join(p.text for p in pieces if p.assistant)
        for pieces in (by_marks.pieces(TALK, False, ""), by_prefixes.pieces(TALK, False, ""))
    ]
    assert said[0].split() == said[1].split()  # prefixes take in the newline after a turn, marks do not
    whole = ["".join(p.text for p in t.pieces(TALK, True, "")) for t in (by_marks, by_prefixes)]
    assert (
        whole[0]
        == whole[1]
        == tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    )


def test_our_marks_give_the_mask_of_transformers() -> None:
    codec = Codec(train_tokenizer("bpe", [message["content"] for message in TALK], 300))
    found = codec.tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    sequence = codec.sequence({"messages": TALK})
    assert list(sequence.tokens) == found["input_ids"]
    assert [int(action) for action in sequence.action] == found["assistant_masks"]


def test_named_templates_without_a_default_are_refused(make: Make) -> None:
    tokenizer = make("chatml")
    tokenizer.chat_template = {"rag": tokenizer.chat_template, "tools": tokenizer.chat_template}
    with pytest.raises(UserError, match=r"tokenizer\.chat_template: .*multiple chat templates"):
        Codec(tokenizer)


# -- bad rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "'messages' is empty"),
        ("Hello", "'messages' must be a list of messages, got str"),
        ([{"role": "usr", "content": "Hi"}], "message 1: unknown role 'usr'.* Did you mean 'user'"),
        ([{"role": "human", "content": "Hi"}], "message 1: unknown role 'human'.* Did you mean 'user'"),
        ([TALK[0], {"role": "assistant", "content": 4}], "message 2: 'content' must be text, got int"),
        ([{"role": "user", "content": None}], "message 1: 'content' must be text, got nothing"),
        (
            [{"from": "human", "value": "Hi"}],
            "message 1: expected an object with 'role'.* got 'from', 'value'",
        ),
        (["Hi"], "message 1: expected an object with 'role' and 'content', got str"),
        ([{"role": "user", "content": [{"type": "image"}]}], "message 1: a part of its content is 'image'"),
        ([{"role": "user", "content": "\ud83d"}], "message 1: 'content' holds half a surrogate pair"),
    ],
)
@pytest.mark.parametrize("method", ["prompts", "sequences"])
def test_bad_messages_are_refused_by_row_and_message(
    make: Make, messages: Any, problem: str, method: str
) -> None:
    codec = Codec(make("gpt2"))
    with pytest.raises(UserError, match=f"^row 2: {problem}"):
        getattr(codec, method)([{"messages": TALK}, {"messages": messages}])


def test_what_the_template_refuses_is_told_with_its_reason(make: Make) -> None:
    codec = Codec(make("inst"))
    with pytest.raises(UserError, match=r"row 1: .*refuses this conversation: roles must alternate"):
        codec.prompt({"messages": [TALK[0], TALK[0]]})
    ours = Codec(make("gpt2"))
    with pytest.raises(UserError, match=r"row 1: .*this template knows no role tool"):
        ours.prompt({"messages": [{"role": "tool", "content": "4"}]})
