"""Write a benchmark case that any trainer can read: a small Llama, its tokenizer and prompts.

    python make_case.py CASE_DIR [--prompt-tokens 128] [--hidden 256] [--layers 4] [--end-rate 0.03125]
    python make_case.py CASE_DIR --model FOLDER      # prompts for a model that is there already
    python make_case.py CASE_DIR --words 150000      # a word-level tokenizer of this size, and random prompts

CASE_DIR/model is a transformers folder, CASE_DIR/prompts.jsonl holds {"prompt": ...} rows. The text is the
Python standard library's own source. The model is trained for a few seconds so that it ends a row with
probability --end-rate a token (0: the untrained model, whose rows run to the limit), which makes lengths as
ragged as a real policy's.
"""

from __future__ import annotations

import argparse
import json
import random
import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY, PAD, EOS = 4096, 0, 1
HEAD = 64  # width of an attention head

make_tokenizer: Any = partial(
    PreTrainedTokenizerFast, pad_token="<pad>", eos_token="<eos>", padding_side="left"
)


def source_files() -> list[Path]:
    """Sixty files that every Python has."""
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]


def byte_tokenizer(files: list[Path]) -> Any:
    """Byte-level BPE of 4096 tokens, trained on the files."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train([str(file) for file in files], trainer)
    return make_tokenizer(tokenizer_object=bpe)


def word_tokenizer(size: int) -> Any:
    """A tokenizer of so many tokens, each a word of its own."""
    words = {"<pad>": PAD, "<eos>": EOS, **{f"w{i}": i for i in range(2, size)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return make_tokenizer(tokenizer_object=tokenizer)


def build_model(vocabulary: int, hidden: int, layers: int) -> LlamaForCausalLM:
    """An untrained Llama with tied embeddings and a context of 1024 tokens."""
    torch.manual_seed(0)
    heads = max(1, hidden // HEAD)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=1024,
        pad_token_id=PAD,
        bos_token_id=EOS,
        eos_token_id=EOS,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def teach_endings(model: Any, tokens: torch.Tensor, end_rate: float, steps: int = 150) -> None:
    """Train on the text, with ends strewn in."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        starts = torch.randint(0, len(tokens) - 96, (32,)).tolist()
        rows = torch.stack([tokens[i : i + 96] for i in starts])
        rows = torch.where(torch.rand(rows.shape) < end_rate, EOS, rows)
        model(input_ids=rows, labels=rows).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def cut_prompts(tokenizer: Any, tokens: list[int], count: int, length: int) -> Iterator[str]:
    """Pieces of the text, `length` tokens each; it begins anew where it ends."""
    stride = length + 50
    for i in range(count):
        start = i * stride % (len(tokens) - length)
        yield tokenizer.decode(tokens[start : start + length])


def random_prompts(vocabulary: int, count: int, length: int) -> Iterator[str]:
    """Words of `word_tokenizer` at random."""
    chance = random.Random(0)
    for _ in range(count):
        yield " ".join(f"w{chance.randrange(2, vocabulary)}" for _ in range(length))


def write_prompts(case: Path, prompts: Iterator[str]) -> None:
    """prompts.jsonl of a case."""
    with (case / "prompts.jsonl").open("w") as out:
        out.writelines(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)


def make_small(args: argparse.Namespace) -> Iterator[str]:
    """The small Llama and its byte-level tokenizer; returns the prompts."""
    files = source_files()
    tokenizer = byte_tokenizer(files)
    tokens = tokenizer(read(files)).input_ids
    model = build_model(VOCABULARY, args.hidden, args.layers)
    if args.end_rate:
        teach_endings(model, torch.tensor(tokens), args.end_rate)
    model.save_pretrained(args.case / "model")
    tokenizer.save_pretrained(args.case / "model")
    return cut_prompts(tokenizer, tokens, args.prompts, args.prompt_tokens)


def make_words(args: argparse.Namespace) -> Iterator[str]:
    """An untrained Llama over so many words; returns the prompts."""
    build_model(args.words, args.hidden, args.layers).save_pretrained(args.case / "model")
    word_tokenizer(args.words).save_pretrained(args.case / "model")
    return random_prompts(args.words, args.prompts, args.prompt_tokens)


def link_model(args: argparse.Namespace) -> Iterator[str]:
    """A link to a model that is there; returns the prompts, cut by its own tokenizer."""
    (args.case / "model").unlink(missing_ok=True)
    (args.case / "model").symlink_to(args.model.resolve(), target_is_directory=True)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    tokens = tokenizer(read(source_files()), add_special_tokens=False, verbose=False).input_ids
    return cut_prompts(tokenizer, tokens, args.prompts, args.prompt_tokens)


def read(files: list[Path]) -> str:
    """The text of all files, one after another."""
    return "".join(file.read_text(errors="ignore") for file in files)


def main() -> None:
    """Read the command line and write the case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", type=Path, help="folder to write")
    parser.add_argument("--prompt-tokens", type=int, default=128, help="tokens of each prompt (default: 128)")
    parser.add_argument("--prompts", type=int, default=64, help="rows of prompts.jsonl (64)")
    parser.add_argument("--hidden", type=int, default=256, help="size of the residual stream (256)")
    parser.add_argument("--layers", type=int, default=4, help="blocks (4)")
    parser.add_argument("--end-rate", type=float, default=1 / 32, help="chance of an end, a token (1/32)")
    parser.add_argument("--model", type=Path, help="use this transformers folder instead of making one")
    parser.add_argument("--words", type=int, help="tokens of a word-level tokenizer, instead of BPE")
    args = parser.parse_args()
    args.case.mkdir(parents=True, exist_ok=True)
    make = link_model if args.model else make_words if args.words else make_small
    write_prompts(args.case, make(args))


if __name__ == "__main__":
    main()
