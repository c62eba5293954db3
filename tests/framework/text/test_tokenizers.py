"""Tokenizers: trained ones give text back and are the same each time; pretrained ones are found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from feedtune.errors import UserError
from feedtune.text.tokenizers import Kind, PretrainedTokenizer, TrainedTokenizer, texts_of, train_tokenizer

Make = Callable[[str], PreTrainedTokenizerFast]

TEXTS = ["Hello there, how are you?", "I'm fine (really)... thank you!", "hello hello you you you"]
KINDS = get_args(Kind)
ALPHABET = "".join(sorted(set("".join(TEXTS))))


@pytest.fixture(scope="module")
def trained() -> dict[str, PreTrainedTokenizerFast]:
    return {kind: train_tokenizer(kind, TEXTS, 400) for kind in KINDS}


def spelt(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    """The text after a trip through tokens."""
    return str(tokenizer.decode(tokenizer(text)["input_ids"]))


@given(text=st.text())
def test_bytes_give_any_text_back(trained: dict[str, PreTrainedTokenizerFast], text: str) -> None:
    assert spelt(trained["bpe"], text) == text


@given(text=st.text(ALPHABET + "\n\t"))
def test_characters_give_texts_of_their_alphabet_back(text: str) -> None:
    assert spelt(CHARACTERS, text) == text


CHARACTERS = train_tokenizer("char", [*TEXTS, "\n\t"], 400)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there,   how are you?", "Hello there, how are you?"),
        ("I'm fine (really)... thank you!", "I'm fine (really)... thank you!"),
        ("you:hello you : hello", "you: hello you: hello"),
        ("hello :) you", "hello :) you"),  # a smile keeps its space
        ("$5 is 10%, [see] #1; \u00bfno?", "$5 is 10%, [see] #1; \u00bfno?"),
        ("it\u2019s \u201cyou\u201d \u2026", "it\u2019s \u201cyou\u201d\u2026"),
    ],
)
def test_words_are_joined_as_people_write(text: str, expected: str) -> None:
    tokenizer = train_tokenizer(
        "word", [*TEXTS, "$5 is 10%, [see] #1; \u00bfno? :) : hello it\u2019s \u201cyou\u201d \u2026"], 400
    )
    assert spelt(tokenizer, text) == expected


def test_unknown_words_and_characters_are_one_token_each(trained: dict[str, PreTrainedTokenizerFast]) -> None:
    assert spelt(trained["word"], "hello zebra you") == "hello <unk> you"
    assert spelt(trained["char"], "h\u03b1\u03b2o") == "h<unk><unk>o"
    assert trained["bpe"].unk_token is None


@pytest.mark.parametrize("kind", KINDS)
def test_lower_case(kind: Kind) -> None:
    tokenizer = train_tokenizer(kind, TEXTS, 400, lowercase=True)
    assert spelt(tokenizer, "HELLO There") == "hello there"
    assert not [token for token in tokenizer.get_vocab() if "H" in token and len(token) > 1]


@pytest.mark.parametrize("kind", KINDS)
def test_specials_come_first_and_are_never_cut(
    trained: dict[str, PreTrainedTokenizerFast], kind: Kind
) -> None:
    tokenizer = trained[kind]
    unknown = [] if kind == "bpe" else ["<unk>"]
    specials = ["<pad>", "<eos>", *unknown, "<|system|>", "<|user|>", "<|assistant|>"]
    assert tokenizer.convert_ids_to_tokens(list(range(len(specials)))) == specials
    assert tokenizer("".join(specials))["input_ids"] == list(range(len(specials)))
    assert tokenizer.decode(list(range(len(specials))), skip_special_tokens=True) == ""
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, None)


@pytest.mark.parametrize("kind", KINDS)
def test_same_texts_same_tokenizer(trained: dict[str, PreTrainedTokenizerFast], kind: Kind) -> None:
    again = train_tokenizer(kind, iter(TEXTS), 400)
    assert again.backend_tokenizer.to_str() == trained[kind].backend_tokenizer.to_str()


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_alone_loads_it(
    trained: dict[str, PreTrainedTokenizerFast], kind: Kind, tmp_path: Path
) -> None:
    trained[kind].save_pretrained(tmp_path)
    found = AutoTokenizer.from_pretrained(tmp_path)
    talk = [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": "I'm fine!"}]
    for options in ({"tokenize": False}, {"return_dict": False}):
        assert found.apply_chat_template(talk, **options) == trained[kind].apply_chat_template(
            talk, **options
        )
    assert found.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) == (
        "<|user|>Hello there<eos><|assistant|>I'm fine!<eos><|assistant|>"
    )


def test_vocabulary_has_the_most_frequent() -> None:
    # Four tokens beside the specials: you 4, hello 2 and, once each, what comes first: "!" and "(".
    words = train_tokenizer("word", TEXTS, 6 + 4)
    assert words.convert_ids_to_tokens([6, 7]) == ["you", "hello"]
    assert len(words) == 10
    frequent = train_tokenizer("word", TEXTS, 400, min_frequency=2)
    assert set(frequent.get_vocab()) - set(words.all_special_tokens) == {"you", "hello"}
    characters = train_tokenizer("char", ["bbb", "aa", "cc", "d"], 6 + 3)
    assert characters.convert_ids_to_tokens([6, 7, 8]) == ["b", "a", "c"]
    assert len(train_tokenizer("char", ["bbb", "d"], 400, min_frequency=2)) == 7


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_nothing_to_train_on_is_refused(kind: Kind, texts: list[str]) -> None:
    with pytest.raises(UserError, match="the task has no text to train it on"):
        train_tokenizer(kind, texts, 400)


# -- the options ----------------------------------------------------------------------------------------


def test_trained_option_builds_a_codec_of_the_first_texts() -> None:
    option = TrainedTokenizer(kind="word", vocab_size=50, max_texts=1, system_prompt="Be kind.", stop=["\n"])
    codec = option.build(lambda: iter(["hello you", "never read"]))
    assert set(codec.tokenizer.get_vocab()) - set(codec.tokenizer.all_special_tokens) == {"hello", "you"}
    assert (codec.system_prompt, codec.stop, codec.eos_ids, codec.pad_id) == ("Be kind.", ("\n",), (1,), 0)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"kind": "bep"}, r"tokenizer\.kind: expected bpe, word or char, got 'bep'\. Did you mean 'bpe'"),
        ({"kind": "bpe", "vocab_size": 260}, r"tokenizer\.vocab_size: kind 'bpe' needs 261 or more, got 260"),
        ({"kind": "char", "vocab_size": 6}, r"tokenizer\.vocab_size: kind 'char' needs 7 or more, got 6"),
        ({"max_texts": 0}, r"tokenizer\.max_texts: expected null or a number from 1, got 0"),
    ],
)
def test_trained_option_refuses(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        TrainedTokenizer(**options)


def test_smallest_vocabularies_work() -> None:
    assert TrainedTokenizer(kind="bpe", vocab_size=261).build(lambda: TEXTS).vocab_size == 261
    assert TrainedTokenizer(kind="char", vocab_size=7).build(lambda: TEXTS).vocab_size == 7


def test_pretrained_option_loads_a_folder(make: Make, tmp_path: Path) -> None:
    make("chatml").save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    codec = PretrainedTokenizer(name=str(tmp_path), system_prompt="Be kind.", stop=["###"]).build()
    assert (codec.eos_ids, codec.system_prompt, codec.stop) == ((2, 0), "Be kind.", ("###",))
    exact = PretrainedTokenizer(name=str(tmp_path), eos_tokens=["<|endoftext|>"]).build(list)
    assert exact.eos_ids == (0,)
    with pytest.raises(UserError, match=r"tokenizer\.eos_tokens: '<\|im_ends\|>' is no token.*Did you mean"):
        PretrainedTokenizer(name=str(tmp_path), eos_tokens=["<|im_ends|>"]).build()


def test_pretrained_option_takes_a_template_as_text_or_file(make: Make, tmp_path: Path) -> None:
    make("chatml").save_pretrained(tmp_path)
    template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
    file = tmp_path / "mine.jinja"
    file.write_text(template)
    for source in (template, str(file)):
        codec = PretrainedTokenizer(name=str(tmp_path), chat_template=source).build()
        row = {"messages": [{"role": "user", "content": "Hi"}]}
        assert codec.tokenizer.decode(codec.prompt(row).tokens) == "user: Hi<|im_end|>"
    with pytest.raises(
        UserError, match=r"tokenizer\.chat_template: no file '.*min\.jinja'\. Did you mean '.*mine"
    ):
        PretrainedTokenizer(name=str(tmp_path), chat_template=str(tmp_path / "min.jinja")).build()


def test_pretrained_option_refuses_what_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match=r"tokenizer\.name: no folder '.*modle'\. Did you mean '.*model'"):
        PretrainedTokenizer(name=str(tmp_path / "modle")).build()
    with pytest.raises(UserError, match=r"tokenizer\.name: no tokenizer could be loaded from '.*model'"):
        PretrainedTokenizer(name=str(tmp_path / "model")).build()


def test_tokenizer_with_leftover_padding_and_truncation_is_not_cut(tmp_path: Path) -> None:
    backend = Tokenizer(models.BPE(vocab={"<eos>": 0, "a": 1, "b": 2}, merges=[]))
    backend.add_special_tokens(["<eos>"])
    backend.enable_truncation(2)
    backend.enable_padding(length=6, pad_id=0)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(tmp_path)
    codec = PretrainedTokenizer(name=str(tmp_path)).build()
    assert codec.prompts([{"prompt": "abab"}, {"prompt": "a"}])[0].tokens == (1, 2, 1, 2)
    assert codec.prompt({"prompt": "a"}).tokens == (1,)


# -- texts of a task ------------------------------------------------------------------------------------


def test_texts_of_every_column_that_holds_text() -> None:
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "id": 3},
        {"prompt": "c", "reference": "d", "source": "web"},
        {
            "prompt": [{"role": "user", "content": [{"type": "text", "text": "e"}]}],
            "chosen": "f",
            "rejected": "g",
        },
        {"text": "h", "reference": None},
    ]
    assert list(texts_of(rows)) == list("abcdefgh")
