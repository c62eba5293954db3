"""What feedtune asks of any tokenizer of transformers before it trusts one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from feedtune.errors import UserError, nearest
from feedtune.hub import fetching, not_found


def load_tokenizer(name: str, key: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or of a name on the Hugging Face hub; `key` is named in the error.

    Raises:
        UserError: there is no such tokenizer, or it cannot be read.
    """
    local = Path(name).expanduser()
    if not local.is_dir() and (local.is_absolute() or name.startswith((".", "~"))):
        siblings = [str(path) for path in local.parent.iterdir()] if local.parent.is_dir() else []
        raise UserError(f"{key}: no folder '{name}'.{nearest(str(local), siblings)}")
    where = str(local) if local.is_dir() else name
    try:
        with fetching(where):
            tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
    except Exception as error:  # transformers and tokenizers raise many kinds, Exception itself among them
        reason = not_found(where, error)
        raise UserError(f"{key}: no tokenizer could be loaded from '{name}': {reason}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UserError(f"{key}: '{name}' has no text tokenizer, got {type(tokenizer).__name__}")
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], special: bool = False) -> list[list[int]]:
    """The tokens of each text, in one call; `special`: with what the tokenizer puts around a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, Tokenizer):  # half the time that the wrapper takes
        backend.no_truncation()
        backend.no_padding()
        return [found.ids for found in backend.encode_batch_fast(texts, add_special_tokens=special)]
    out = tokenizer(texts, add_special_tokens=special, return_attention_mask=False, verbose=False)
    return [list(ids) for ids in out["input_ids"]]


def opening_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What the tokenizer puts before a plain text: a bos token, or nothing."""
    bare, dressed = encode(tokenizer, ["a"])[0], encode(tokenizer, ["a"], special=True)[0]
    starts = range(len(dressed) - len(bare) + 1)
    return tuple(dressed[: next((i for i in starts if dressed[i : i + len(bare)] == bare), 0)])


def keeps_apart(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the beginning of a text is spelt as its middle is: no space is put before it."""
    alone, inside = encode(tokenizer, ["y", "\ny"])
    return inside[len(inside) - len(alone) :] == alone


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that stand for no text."""
    added: Mapping[int, Any] = tokenizer.added_tokens_decoder
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}


def generation_ends(name: str) -> list[int]:
    """End-of-text tokens of a model's generation config; of its config, where a folder has no such file."""
    folder = Path(name).expanduser()
    ends: Any
    if folder.is_dir():
        files = (folder / "generation_config.json", folder / "config.json")
        found = (_read_json(file).get("eos_token_id") for file in files if file.is_file())
        ends = next((end for end in found if end is not None), None)
    else:
        try:
            with fetching(name):
                ends = GenerationConfig.from_pretrained(name).eos_token_id
        except OSError:  # many models have none
            ends = None
    several = ends if isinstance(ends, list | tuple) else [ends]
    return [int(end) for end in several if end is not None]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: expected a JSON object ({error})") from error
