"""Small tokenizers with the chat templates that are met in the wild. All are trained here, on three lines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from feedtune.text.codec import Codec

LINES = [
    "You are kind. What is the capital of France? Paris, of course! And of Spain? Madrid.",
    "Hello there, how are you today? I am fine, thank you. User: Assistant: [INST] [/INST]",
    "Answer: yes\n\n\nno\nmaybe <think> well </think> system user assistant",
]

CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# In the manner of Llama 2: bos before each question, no generation prompt of its own, contents trimmed.
INST = (
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + message['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)

# In the manner of reasoning models: what was thought in earlier turns is dropped once a new question comes.
FORGETFUL = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and not loop.last %}{{ message['content'].split('</think>')[-1] }}"
    "{% else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_bpe(specials: list[str], size: int = 400) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return tokenizer


def chatml() -> PreTrainedTokenizerFast:
    """As SmolLM2's: pad is eos, a system prompt of the template's own, a newline after each turn."""
    tokenizer = byte_bpe(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHATML,
    )


def inst() -> PreTrainedTokenizerFast:
    """As Llama 2's: no pad token; a bos before every text, so two where a template is tokenised naively."""
    tokenizer = byte_bpe(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=INST
    )


def metaspace() -> PreTrainedTokenizerFast:
    """As sentencepiece's first form: a space before whatever begins, so pieces cannot stand apart."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator([line for line in LINES for line in line.split()], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=INST
    )


def gpt2() -> PreTrainedTokenizerFast:
    """As GPT-2's: one special token, no template, no pad token."""
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_bpe(["<|endoftext|>"]), bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


def forgetful() -> PreTrainedTokenizerFast:
    """As a reasoning model's."""
    tokenizer = chatml()
    tokenizer.chat_template = FORGETFUL
    return tokenizer


MAKERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    maker.__name__: maker for maker in (chatml, inst, metaspace, gpt2, forgetful)
}


@pytest.fixture(scope="session")
def make() -> Callable[[str], PreTrainedTokenizerFast]:
    """A tokenizer by the name of its maker, new each time."""
    return lambda name: MAKERS[name]()


@pytest.fixture(scope="session")
def codecs() -> dict[str, Codec]:
    """A codec by the name of its tokenizer's maker; not to be changed."""
    return {name: Codec(maker()) for name, maker in MAKERS.items()}
