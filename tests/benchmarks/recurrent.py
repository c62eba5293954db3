"""Tokens a second that an LSTM and a transformer of the same number of weights sample.

    python recurrent.py [--responses 64] [--prompt-tokens 11] [--max-new 64] [--rounds 5]

Both are feedtune's own backbones with random weights and the same vocabulary; no row ends before --max-new.
They take turns; the last line printed is a JSON object with the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch import nn

from feedtune import Policy, sample
from feedtune_plugins.backbones.recurrent import Recurrent
from feedtune_plugins.backbones.transformer import Transformer

VOCABULARY, LONGEST = 4096, 1024


def size_of(model: nn.Module) -> int:
    """Number of weights."""
    return sum(weight.numel() for weight in model.parameters())


def lstm_of(weights: int) -> Recurrent:
    """The smallest LSTM, in steps of 16, with at least 99 % of so many weights."""
    for hidden in range(16, 4096, 16):
        with torch.device("meta"):
            found = size_of(Recurrent(vocab_size=VOCABULARY, hidden_size=hidden))
        if found >= 0.99 * weights:
            return Recurrent(vocab_size=VOCABULARY, hidden_size=hidden)
    raise ValueError(f"no LSTM of {weights} weights")


def sampling_seconds(policy: Policy, prompts: list[list[int]], group: int, max_new: int) -> float:
    """Seconds for one rollout; there are no ends, so each response has `max_new` tokens."""
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    said = sample(policy, prompts, max_new_tokens=max_new, eos_ids=[], generator=generator, group_size=group)
    seconds = time.perf_counter() - started
    assert all(len(response.tokens) == max_new for response in said)
    return seconds


def main() -> None:
    """Sample by turns and print tokens a second."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--responses", type=int, default=64, help="responses a rollout (default: 64)")
    parser.add_argument("--group", type=int, default=8, help="responses to each prompt (8)")
    parser.add_argument("--prompt-tokens", type=int, default=11, help="tokens of each prompt (11)")
    parser.add_argument("--max-new", type=int, default=64, help="tokens of each response (64)")
    parser.add_argument("--rounds", type=int, default=5, help="rollouts of each, after one to warm up (5)")
    args = parser.parse_args()

    torch.manual_seed(0)
    transformer = Transformer(vocab_size=VOCABULARY, context_length=LONGEST)
    policies = {
        "transformer": Policy(transformer).eval(),
        "lstm": Policy(lstm_of(size_of(transformer))).eval(),
    }
    shape = (args.responses // args.group, args.prompt_tokens)
    prompts = torch.randint(2, VOCABULARY, shape).tolist()
    seconds: dict[str, list[float]] = {name: [] for name in policies}
    for _ in range(args.rounds + 1):
        for name, policy in policies.items():
            seconds[name].append(sampling_seconds(policy, prompts, args.group, args.max_new))
    tokens = args.responses * args.max_new
    rates = {name: tokens / statistics.median(found[1:]) for name, found in seconds.items()}
    found = {f"{name}_tokens_per_second": round(rate) for name, rate in rates.items()}
    weights = {f"{name}_weights": size_of(policy) for name, policy in policies.items()}
    print(json.dumps({**found, **weights, "lstm_over_transformer": rates["lstm"] / rates["transformer"]}))


if __name__ == "__main__":
    main()
