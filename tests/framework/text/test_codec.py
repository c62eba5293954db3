"""Plain rows, decoding, and the codec on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, PreTrainedTokenizerFast

from feedtune.errors import UserError
from feedtune.text.codec import Codec
from feedtune.text.tokenizers import train_tokenizer

Make = Callable[[str], PreTrainedTokenizerFast]

# Characters by frequency, ties by code point: <pad> 0, <eos> 1, <unk> 2, the roles 3 4 5, then b 6, a 7, c 8.
A, B, C, EOS = 7, 6, 8, 1


@pytest.fixture(scope="module")
def letters() -> Codec:
    return Codec(train_tokenizer("char", ["bbb", "aa", "c"], 99))


def test_the_alphabet_is_as_stated(letters: Codec) -> None:
    assert letters.vocab_size == 9
    assert letters.tokenizer.convert_ids_to_tokens([EOS, B, A, C]) == ["<eos>", "b", "a", "c"]
    assert (letters.pad_id, letters.eos_ids) == (0, (EOS,))


# -- plain rows -----------------------------------------------------------------------------------------


def test_reference_follows_the_prompt_and_is_closed(letters: Codec) -> None:
    sequence = letters.sequence({"prompt": "ab", "reference": "cb"})
    assert sequence.tokens == (A, B, C, B, EOS)
    assert sequence.action == (False, False, True, True, True)
    assert (sequence.prompt, sequence.response) == ("ab", "cb")
    assert letters.sequence({"prompt": "ab", "reference": "cb"}, "all").action == (
        False,
        True,
        True,
        True,
        True,
    )
    assert letters.sequence({"prompt": "ab", "reference": ""}).tokens == (A, B, EOS)


@pytest.mark.parametrize("loss_on", ["assistant", "all"])
def test_text_is_learnt_whole_but_for_its_first_token(letters: Codec, loss_on: str) -> None:
    sequence = letters.sequence({"text": "abc"}, loss_on)
    assert sequence.tokens == (A, B, C, EOS)
    assert sequence.action == (False, True, True, True)
    assert (sequence.prompt, sequence.response) == ("", "abc")
    assert letters.sequence({"text": "abc<eos>"}, loss_on).tokens == (A, B, C, EOS)  # closed already


def test_prompt_without_tokens_begins_as_a_new_text_does(letters: Codec) -> None:
    assert letters.prompt({"prompt": ""}).tokens == (EOS,)
    sequence = letters.sequence({"prompt": "", "reference": "a"})
    assert sequence.tokens == (EOS, A, EOS)
    assert sequence.action == (False, True, True)


def test_chat_in_our_template_token_by_token(letters: Codec) -> None:
    talk = [
        {"role": role, "content": said}
        for role, said in [
            ("system", "c"),
            ("user", "ab"),
            ("assistant", "b"),
            ("user", ""),
            ("assistant", "a"),
        ]
    ]
    sequence = letters.sequence({"messages": talk})
    # <|system|> c <eos> <|user|> a b <eos> <|assistant|> b <eos> <|user|> <eos> <|assistant|> a <eos>
    assert sequence.tokens == (3, C, EOS, 4, A, B, EOS, 5, B, EOS, 4, EOS, 5, A, EOS)
    assert [i for i, action in enumerate(sequence.action) if action] == [8, 9, 13, 14]
    assert letters.prompt({"messages": talk[:2]}).tokens == (3, C, EOS, 4, A, B, EOS, 5)


@pytest.mark.parametrize("name", ["inst", "metaspace"])
def test_bos_of_the_tokenizer_opens_plain_rows_once(codecs: dict[str, Codec], name: str) -> None:
    codec = codecs[name]
    for row in ({"prompt": "Hello there"}, {"prompt": "<s>Hello there"}):
        tokens = codec.prompt(row).tokens
        assert tokens[0] == codec.tokenizer.bos_token_id
        assert tokens.count(codec.tokenizer.bos_token_id) == 1
    text = codec.sequence({"text": "Hello"})
    assert text.tokens[0] == codec.tokenizer.bos_token_id
    assert text.action == (False, *[True] * (len(text.tokens) - 1))


@pytest.mark.parametrize("name", ["chatml", "inst", "metaspace", "gpt2"])
@given(prompt=st.text("ab \n", max_size=6), reference=st.text("ab \n", max_size=6))
def test_plain_prompt_is_the_beginning_of_its_sequence(
    codecs: dict[str, Codec], name: str, prompt: str, reference: str
) -> None:
    codec = codecs[name]
    row = {"prompt": prompt, "reference": reference}
    asked, sequence = codec.prompt(row), codec.sequence(row)
    count = len(asked.tokens)
    assert sequence.tokens[:count] == asked.tokens
    assert sequence.action == (*[False] * count, *[True] * (len(sequence.tokens) - count))
    assert sequence.tokens[-1] == codec.tokenizer.eos_token_id


def test_batches_are_the_rows_one_by_one(codecs: dict[str, Codec]) -> None:
    rows = [
        {"prompt": "Hello", "reference": " there"},
        {"text": "How are you?"},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    ]
    for codec in codecs.values():
        assert codec.sequences(rows) == [codec.sequence(row) for row in rows]
        asked = [rows[0], rows[2]]
        assert codec.prompts(asked) == [codec.prompt(row) for row in asked]
    assert codec.prompts([]) == codec.sequences([]) == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            {"promt": "a"},
            r"expected a column 'prompt', 'messages' or 'text', found 'promt'\. Did you mean 'prompt'",
        ),
        ({}, "expected a column .* found none"),
        ({"prompt": None, "id": 3}, "expected a column .* found 'prompt', 'id'"),
        ({"prompt": 5, "reference": "a"}, "'prompt' must be text or a list of messages, got int"),
        ({"prompt": "a"}, "a plain prompt needs a 'reference' to imitate"),
        ({"prompt": "a", "reference": 4}, "'reference' must be text, got int"),
        ({"prompt": "a", "reference": "\ud83d"}, "'reference' holds half a surrogate pair at character 1"),
        ({"text": ["a"]}, "'text' must be text, got list"),
        ({"text": ""}, "'text' is empty"),
    ],
)
def test_bad_rows_are_refused_by_number(letters: Codec, row: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=f"^row 3: {problem}"):
        letters.sequences([{"text": "a"}, {"text": "b"}, row])


def test_text_asks_nothing(letters: Codec) -> None:
    with pytest.raises(UserError, match=r"^row 2: a 'text' asks nothing"):
        letters.prompts([{"prompt": "a"}, {"text": "b"}])


def test_unknown_loss_is_refused(letters: Codec) -> None:
    with pytest.raises(
        UserError, match=r"loss_on: expected 'assistant' or 'all', got 'asistant'\. Did you mean"
    ):
        letters.sequence({"text": "a"}, "asistant")


# -- decoding -------------------------------------------------------------------------------------------


def test_response_ends_at_the_end_of_text_and_is_stripped(codecs: dict[str, Codec]) -> None:
    codec = codecs["chatml"]
    tokens = codec.tokenizer("  Paris, \u00e9t\u00e9!\n<|im_start|> yes <|im_end|>never read")["input_ids"]
    assert codec.response(tokens) == "Paris, \u00e9t\u00e9!\n yes"
    assert codec.decode(tokens) == "  Paris, \u00e9t\u00e9!\n yes never read"


def test_response_is_cut_at_the_first_stop_string_wherever_tokens_lie(make: Make) -> None:
    codec = Codec(make("gpt2"), stop=["User:", "\n\n"])
    tokens = codec.tokenizer("Paris.User: no\n\nyes")["input_ids"]
    assert codec.response(tokens) == "Paris."
    assert codec.response(codec.tokenizer("Paris.\n\nUser: no")["input_ids"]) == "Paris."
    assert codec.response(codec.tokenizer("\n\nParis.")["input_ids"]) == ""


@given(before=st.text(max_size=30), stop=st.text(min_size=1, max_size=5), spoken=st.booleans())
def test_stopped_is_true_just_when_a_stop_string_is_complete(
    codecs: dict[str, Codec], before: str, stop: str, spoken: bool
) -> None:
    codec = Codec(codecs["gpt2"].tokenizer, stop=[stop])
    tokens = codec.tokenizer(before + stop * spoken)["input_ids"]
    asked = [codec.stopped(tokens[: n + 1]) for n in range(len(tokens))]
    assert any(asked) == (stop in codec.decode(tokens))
    complete = [stop in codec.decode(tokens[: n + 1]) for n in range(len(tokens))]
    assert asked.index(True) == complete.index(True) if any(asked) else not any(complete)


def test_stop_string_that_is_a_special_token_ends_by_its_id(make: Make) -> None:
    codec = Codec(make("chatml"), stop=["<|endoftext|>"])
    assert codec.eos_ids == (2, 0)
    assert codec.response(codec.tokenizer("yes<|endoftext|>no")["input_ids"]) == "yes"


@pytest.mark.parametrize("stop", ["###", ["", "###"]])
def test_stop_must_be_a_list_of_strings_that_are_not_empty(make: Make, stop: list[str]) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.stop: expected a list"):
        Codec(make("gpt2"), stop=stop)


# -- end-of-text and pad tokens, on disk ----------------------------------------------------------------


def test_tokenizer_without_pad_token_is_padded_by_its_end(codecs: dict[str, Codec]) -> None:
    assert codecs["gpt2"].tokenizer.pad_token is None
    assert codecs["gpt2"].pad_id == codecs["gpt2"].tokenizer.eos_token_id
    assert codecs["chatml"].pad_id == codecs["chatml"].eos_ids[0] == 2  # pad is eos there


def test_tokenizer_without_any_end_is_refused_with_what_to_do(make: Make) -> None:
    tokenizer = make("gpt2")
    tokenizer.eos_token = None
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    with pytest.raises(UserError, match=r"no end-of-text token.*tokenizer\.eos_tokens"):
        Codec(tokenizer)
    assert Codec(tokenizer, eos_ids=[0]).eos_ids == (0,)
    with pytest.raises(UserError, match="end-of-text token 5000 is not in the vocabulary"):
        Codec(tokenizer, eos_ids=[5000])


def test_vocabulary_counts_added_tokens(make: Make) -> None:
    tokenizer = make("gpt2")
    before = Codec(tokenizer).vocab_size
    tokenizer.add_tokens(["<extra>"])
    assert Codec(tokenizer).vocab_size == before + 1 == tokenizer.convert_tokens_to_ids("<extra>") + 1


@pytest.mark.parametrize("name", ["chatml", "inst", "metaspace", "gpt2"])
def test_codec_comes_back_from_disk(make: Make, tmp_path: Path, name: str) -> None:
    codec = Codec(make(name), system_prompt="Be brief.", stop=["###", "\n\n"], eos_ids=[2, 1])
    if name in ("inst", "metaspace"):
        codec = Codec(make(name), stop=["###"])
    codec.save(tmp_path)
    LlamaConfig().save_pretrained(tmp_path)  # a model's config beside it must not change the tokenizer
    found = Codec.load(tmp_path)
    assert (found.system_prompt, found.stop, found.eos_ids) == (
        codec.system_prompt,
        codec.stop,
        codec.eos_ids,
    )
    assert (found.vocab_size, found.pad_id) == (codec.vocab_size, codec.pad_id)
    rows = [
        {
            "messages": [
                {"role": "user", "content": "Hi  there"},
                {"role": "assistant", "content": "\n\u00e9 <s>"},
            ]
        },
        {"prompt": " a", "reference": "b "},
        {"text": "\u4f60\u597d "},
    ]
    assert found.sequences(rows) == codec.sequences(rows)
    assert found.response(codec.sequence(rows[0]).tokens) == codec.response(codec.sequence(rows[0]).tokens)


@pytest.mark.parametrize("ends", [1, [1, 2]])
def test_plain_folder_brings_the_ends_of_its_generation_config(
    make: Make, tmp_path: Path, ends: int | list[int]
) -> None:
    tokenizer = make("chatml")
    tokenizer.save_pretrained(tmp_path)
    assert Codec.load(tmp_path).eos_ids == (2,)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": 0}))
    assert Codec.load(tmp_path).eos_ids == (2, 0)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    assert Codec.load(tmp_path).eos_ids == (2, 1)


def test_ends_of_the_generation_config_serve_a_tokenizer_without_any(make: Make, tmp_path: Path) -> None:
    tokenizer = make("gpt2")
    tokenizer.eos_token = None
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    assert Codec.load(tmp_path).eos_ids == (0,)


def test_broken_files_are_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        Codec.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no tokenizer could be loaded"):
        Codec.load(tmp_path)
    make("gpt2").save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(UserError, match=r"generation_config\.json: expected a JSON object"):
        Codec.load(tmp_path)
    (tmp_path / "codec.json").write_text('{"stop": []}')
    with pytest.raises(UserError, match=r"codec\.json: not a codec that feedtune wrote"):
        Codec.load(tmp_path)
