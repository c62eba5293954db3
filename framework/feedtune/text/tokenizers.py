"""Tokenizers: trained on a task's text for models from scratch, or a pretrained model's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from feedtune.contracts import Row
from feedtune.errors import UserError, nearest, one_line
from feedtune.text.chat_template import ROLE_TOKENS, own_template
from feedtune.text.codec import Codec
from feedtune.text.conversation import TEXT_COLUMNS, texts_in
from feedtune.text.tokenizer_facts import load_tokenizer

Kind = Literal["bpe", "word", "char"]
_Normalizer: TypeAlias = normalizers.Normalizer | None

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
# A word keeps its apostrophes; punctuation in a row is one token, so that "..." and ":)" are.
_WORD = Regex(r"\w+(?:['\u2019]\w+)*|[^\w\s]+")
_SPACE_BEFORE_CLOSING = Regex(r" (?=[.,!?%)\]}\u2026\u201d\u00bb]|[;:](?:\s|$))")
_SPACE_AFTER_OPENING = Regex(r"(?<=[(\[{$#@\u00bf\u00a1\u201c\u00ab]) ")


class TrainedTokenizer:
    """A tokenizer for a model from scratch: trained on the task's text, with feedtune's chat template.

    Args:
        kind: "bpe" (byte-level byte-pair encoding: spells any text), "word" (words and punctuation, others
            are `<unk>`) or "char" (characters, others are `<unk>`).
        vocab_size: most tokens, special ones included.
        lowercase: read every text in lower case.
        min_frequency: how often a pair, word or character must occur to become a token.
        max_texts: how many texts to train on, from the first; None: all.
        system_prompt: opens every chat row that has no system message of its own.
        stop: strings that end a response.

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        kind: Kind = "bpe",
        vocab_size: int = 2048,
        lowercase: bool = False,
        min_frequency: int = 1,
        max_texts: int | None = None,
        system_prompt: str | None = None,
        stop: Sequence[str] = (),
    ) -> None:
        if kind not in get_args(Kind):
            raise UserError(
                f"tokenizer.kind: expected bpe, word or char, got '{kind}'.{nearest(kind, get_args(Kind))}"
            )
        least = len(_specials(kind)) + (len(pre_tokenizers.ByteLevel.alphabet()) if kind == "bpe" else 1)
        if vocab_size < least:
            raise UserError(f"tokenizer.vocab_size: kind '{kind}' needs {least} or more, got {vocab_size}")
        if max_texts is not None and max_texts < 1:
            raise UserError(f"tokenizer.max_texts: expected null or a number from 1, got {max_texts}")
        self.kind, self.vocab_size, self.lowercase = kind, vocab_size, lowercase
        self.min_frequency, self.max_texts = min_frequency, max_texts
        self.system_prompt, self.stop = system_prompt, stop

    def build(self, texts: Callable[[], Iterable[str]]) -> Codec:
        """Train on `texts()` and make a codec of the result."""
        tokenizer = train_tokenizer(
            self.kind,
            islice(texts(), self.max_texts),
            self.vocab_size,
            lowercase=self.lowercase,
            min_frequency=self.min_frequency,
        )
        return Codec(tokenizer, system_prompt=self.system_prompt, stop=self.stop)


class PretrainedTokenizer:
    """The tokenizer of a pretrained model, with its own chat template.

    Args:
        name: a folder, or a name on the Hugging Face hub.
        system_prompt: opens every chat row that has no system message of its own.
        stop: strings that end a response, beside the model's end-of-text tokens.
        eos_tokens: the tokens that end a response, as text. Empty: those of the tokenizer, of its chat
            template's turns and of the model's generation config.
        chat_template: a Jinja template, or a file that holds one, in place of the tokenizer's own.

    Raises:
        UserError: no such tokenizer, template file or token.
    """

    def __init__(
        self,
        *,
        name: str,
        system_prompt: str | None = None,
        stop: Sequence[str] = (),
        eos_tokens: Sequence[str] = (),
        chat_template: str | None = None,
    ) -> None:
        self.name = name
        self.system_prompt, self.stop, self.eos_tokens = system_prompt, stop, eos_tokens
        self.chat_template = chat_template

    def build(self, texts: Callable[[], Iterable[str]] | None = None) -> Codec:
        """Load the tokenizer; `texts` are not read."""
        tokenizer = load_tokenizer(self.name, "tokenizer.name")
        if self.chat_template is not None:
            tokenizer.chat_template = _template(self.chat_template)
        if not self.eos_tokens:
            return Codec.from_pretrained(
                tokenizer, self.name, system_prompt=self.system_prompt, stop=self.stop
            )
        vocab = tokenizer.get_vocab()
        for token in self.eos_tokens:
            if token not in vocab:
                raise UserError(
                    f"tokenizer.eos_tokens: '{token}' is no token of '{self.name}'.{nearest(token, vocab)}"
                )
        ends = [vocab[token] for token in self.eos_tokens]
        return Codec(tokenizer, system_prompt=self.system_prompt, stop=self.stop, eos_ids=ends)


def train_tokenizer(
    kind: Kind,
    texts: Iterable[str],
    vocab_size: int,
    *,
    lowercase: bool = False,
    min_frequency: int = 1,
) -> PreTrainedTokenizerFast:
    """Train a tokenizer; the same texts give the same one.

    Special tokens come first: `<pad>`, `<eos>` (which closes every turn and text), `<unk>` where there can
    be unknown text, and a token for each role. Bytes and characters give a text back exactly; words come
    back joined by spaces, with none before a full stop or inside brackets.

    Raises:
        UserError: there is no text to train on.

    >>> tokenizer = train_tokenizer("word", ["Hello there, how are you?"], 50)
    >>> tokenizer.decode(tokenizer("Hello,   you there?")["input_ids"])
    'Hello, you there?'
    """
    seen = _Count(texts)
    normalizer = normalizers.Lowercase() if lowercase else None
    train = {"bpe": _bytes, "word": _words, "char": _characters}[kind]
    model = train(seen, vocab_size, min_frequency, normalizer)
    if not seen.letters:
        raise UserError("tokenizer: the task has no text to train it on")
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=model,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=None if kind == "bpe" else UNK,
        additional_special_tokens=list(ROLE_TOKENS),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = own_template(tokenizer, begins=False)
    return tokenizer


def texts_of(rows: Iterable[Row]) -> Iterator[str]:
    """Every text that a task's rows hold, in order: what a tokenizer is to be trained on.

    >>> list(texts_of([{"prompt": "Hi", "reference": "Hello", "label": 3}, {"text": "Bye"}]))
    ['Hi', 'Hello', 'Bye']
    """
    for row in rows:
        for column in TEXT_COLUMNS:
            yield from texts_in(row.get(column))


class _Count:
    """Passes texts on and counts their letters: the trainer itself is content with nothing."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = texts
        self.letters = 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.letters += len(text)
            yield text


def _specials(kind: Kind) -> list[str]:
    return [PAD, EOS, *([] if kind == "bpe" else [UNK]), *ROLE_TOKENS]


def _bytes(texts: Iterable[str], size: int, min_frequency: int, normalizer: _Normalizer) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        special_tokens=_specials("bpe"),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _words(texts: Iterable[str], size: int, min_frequency: int, normalizer: _Normalizer) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(vocab={UNK: 0}, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_WORD, behavior="removed", invert=True)
    tokenizer.decoder = _word_decoder()
    tokenizer.normalizer = normalizer
    trainer = trainers.WordLevelTrainer(
        vocab_size=size, min_frequency=min_frequency, special_tokens=_specials("word"), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _characters(texts: Iterable[str], size: int, min_frequency: int, normalizer: _Normalizer) -> Tokenizer:
    """The most frequent characters, counted here; byte-pair encoding without pairs is what splits fastest."""
    counts = Counter[str]()
    for text in texts:
        counts.update(normalizer.normalize_str(text) if normalizer else text)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    specials = _specials("char")
    frequent = [character for character, count in ranked if count >= min_frequency]
    kept = [*specials, *frequent[: size - len(specials)]]
    vocab = {token: number for number, token in enumerate(kept)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token=UNK))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens(specials)
    return tokenizer


def _word_decoder() -> decoders.Decoder:
    """A space before every token, all in one, then no space where punctuation wants none."""
    return decoders.Sequence(
        [
            decoders.Replace(Regex("^"), " "),
            decoders.Fuse(),
            decoders.Replace(_SPACE_BEFORE_CLOSING, ""),
            decoders.Replace(_SPACE_AFTER_OPENING, ""),
            decoders.Strip(" ", 1, 0),
        ]
    )


def _template(source: str) -> str:
    """A template given as text, or as the file that holds it."""
    if "{" in source:
        return source
    file = Path(source).expanduser()
    if not file.is_file():
        siblings = [str(path) for path in file.parent.iterdir()] if file.parent.is_dir() else []
        raise UserError(f"tokenizer.chat_template: no file '{source}'.{nearest(str(file), siblings)}")
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"tokenizer.chat_template: {file} cannot be read: {one_line(error)}") from error
