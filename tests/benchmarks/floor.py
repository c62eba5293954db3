"""The least that a GRPO step costs: its floating-point operations, and this machine's rate for them.

    python floor.py CASE_DIR [--max-new 64] [--responses 64] [--group 8]     # prints a JSON object

Formula. One pass reads each prompt once, reads each response but its last token, and unembeds the prompt's
last position (once: the group shares it) and every response position but the last:

    read(first, n) = 2 n layers weights + 4 layers heads head_dim (keys seen: first + 1, ..., first + n)
    pass           = prompts (read(0, P) + 2 hidden V) + responses (read(P, N - 1) + (N - 1) 2 hidden V)
    step           = 5 pass: sampling 1, reference 1, policy forward 1, its backward 2

`weights` are those of a block's linear layers; a multiply and an add count as two operations; attention takes
as much for scores as for values, over the keys that causality allows; the backward takes a product for the
inputs and one for the weights of each product of the forward. Norms, softmax, sampling and the optimiser
count nothing. That is for training all weights: LoRA's backward needs about half.

Rate. Products of a step's own matrices, each linear layer of each block and the unembedding, with all of the
step's response tokens as rows: the best shape that a step could bring them in. `decode` is the same with the
responses as rows, which is what sampling has to do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

PASSES = 5  # of the forward's cost: sampling, reference, policy forward, backward (twice the forward)


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @classmethod
    def read(cls, model: Path) -> Shape:
        """From a transformers folder."""
        config = json.loads((model / "config.json").read_text())
        heads = config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads", heads),
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
        )

    @property
    def block(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a block's linear layers: q, k, v, o, gate, up, down."""
        own, shared = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = [(self.hidden, own), (self.hidden, shared), (self.hidden, shared), (own, self.hidden)]
        wide = (self.hidden, self.intermediate)
        return [*attention, wide, wide, (self.intermediate, self.hidden)]


@dataclass(frozen=True)
class Work:
    """A step's rows: prompts of P tokens, `group` responses of N tokens to each."""

    prompts: int
    group: int
    prompt_tokens: int
    new_tokens: int


def read_flops(shape: Shape, first: int, count: int) -> int:
    """Operations for reading `count` tokens after `first` others in one row.

    >>> tiny = Shape(hidden=2, intermediate=3, layers=1, heads=1, kv_heads=1, head_dim=2, vocabulary=5)
    >>> read_flops(tiny, 0, 1)  # 2 (4 + 4 + 4 + 4 + 6 + 6 + 6) + 4 x 2 x 1 key
    76
    """
    weights = sum(inputs * outputs for inputs, outputs in shape.block)
    keys = sum(range(first + 1, first + count + 1))
    return shape.layers * (2 * count * weights + 4 * shape.heads * shape.head_dim * keys)


def unembed_flops(shape: Shape) -> int:
    """Operations for one position's logits."""
    return 2 * shape.hidden * shape.vocabulary


def pass_flops(shape: Shape, work: Work) -> int:
    """Operations of one forward pass over all rows, prompts read once a group."""
    later = work.new_tokens - 1
    prompt = read_flops(shape, 0, work.prompt_tokens) + unembed_flops(shape)
    response = read_flops(shape, work.prompt_tokens, later) + later * unembed_flops(shape)
    return work.prompts * (prompt + work.group * response)


def step_flops(shape: Shape, work: Work) -> int:
    """Operations that a GRPO step cannot do without."""
    return PASSES * pass_flops(shape, work)


def gemm_rate(shape: Shape, rows: int, dtype: torch.dtype, repeats: int = 7) -> float:
    """Operations a second of a block's products and the unembedding, with so many rows; median of repeats."""
    sizes = [*(layer for layer in shape.block for _ in range(shape.layers)), (shape.hidden, shape.vocabulary)]
    weights = {size: torch.randn(size, dtype=dtype) for size in set(sizes)}
    inputs = {width: torch.randn(rows, width, dtype=dtype) for width, _ in set(sizes)}
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        for size in sizes:
            inputs[size[0]] @ weights[size]
        seconds.append(time.perf_counter() - started)
    return 2 * rows * sum(a * b for a, b in sizes) / statistics.median(seconds[1:])


def prompt_length(case: Path) -> int:
    """Mean tokens of the case's prompts."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(case / "model")
    rows = [json.loads(line)["prompt"] for line in (case / "prompts.jsonl").open()]
    return round(statistics.mean(len(tokenizer(row).input_ids) for row in rows))


def main() -> None:
    """Print operations of a step and the machine's rates."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", type=Path, help="a folder that make_case.py made")
    parser.add_argument("--max-new", type=int, default=64, help="tokens of each response (default: 64)")
    parser.add_argument("--responses", type=int, default=64, help="responses a step (64)")
    parser.add_argument("--group", type=int, default=8, help="responses to each prompt (8)")
    args = parser.parse_args()
    shape = Shape.read(args.case / "model")
    work = Work(args.responses // args.group, args.group, prompt_length(args.case), args.max_new)
    found: dict[str, float] = {"step_flops": step_flops(shape, work)}
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        found[f"{name}_gemm_rate"] = gemm_rate(shape, args.responses * (args.max_new - 1), dtype)
        found[f"{name}_decode_rate"] = gemm_rate(shape, args.responses, dtype, repeats=50)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
