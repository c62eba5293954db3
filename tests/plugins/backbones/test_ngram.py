"""The table: which row a context has, what counts make of it, and that lookups learn exactly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from feedtune.errors import UserError
from feedtune.testing.backbones import padded
from feedtune_plugins.backbones.ngram import NGram, hash_symbols


def whole(tokens: list[list[int]]) -> tuple[Tensor, Tensor]:
    rows = torch.tensor(tokens)
    return rows, torch.ones_like(rows, dtype=torch.bool)


def test_rows_of_an_exact_table() -> None:
    # 3 tokens are symbols 1, 2, 3 and "nothing" is 0: numbers in base 4, the older symbol first. After 0:
    # (nothing, 1) = 0 + 4 * 1 = 4. After 0 2: (1, 3) = 1 + 4 * 3 = 13. After 2 1: (3, 2) = 3 + 4 * 2 = 11.
    trigrams = NGram(vocab_size=3, n=3, buckets=16)
    hidden, state = trigrams(*whole([[0, 2, 1]]))
    assert trigrams.exact
    assert hidden[0, :, 0].tolist() == [4, 13, 11]
    assert state.tolist() == [[3, 2]]
    assert trigrams.table.weight.shape == (16, 3)


def test_every_context_of_an_exact_table_has_its_own_row() -> None:
    trigrams = NGram(vocab_size=5, n=3, buckets=100)  # 6 * 6 = 36 contexts fit
    pairs = [[a, b] for a in range(5) for b in range(5)]
    hidden, _ = trigrams(*whole(pairs))
    used = hidden[:, 0, 0].tolist() + hidden[:, 1, 0].tolist()
    assert len(set(used)) == 5 + 25
    assert trigrams.rows == 36


def test_a_table_too_small_for_all_contexts_is_hashed() -> None:
    trigrams = NGram(vocab_size=5, n=3, buckets=35)
    assert not trigrams.exact
    assert trigrams.rows == 35


def test_unigrams_have_one_row() -> None:
    unigrams = NGram(vocab_size=5, n=1, buckets=1)
    hidden, state = unigrams(*whole([[4, 2]]))
    assert unigrams.exact
    assert hidden.tolist() == [[[0], [0]]]
    assert state.shape == (1, 0)


def test_hash_of_one_zero_is_the_first_number_of_splitmix64() -> None:
    # Seeded with 0, SplitMix64 gives 0xE220A8397B1DCDAF first (the reference vector of its authors); the
    # hash of the symbol 0 is that number without its highest bit.
    assert hash_symbols(torch.tensor([0])).item() == 0x6220A8397B1DCDAF


def by_big_integers(symbols: list[int]) -> int:
    """The same definition in Python's integers, cut to 64 bits by hand."""
    bits, z = (1 << 64) - 1, 0
    for symbol in symbols:
        z = (z + symbol + 0x9E3779B97F4A7C15) & bits
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & bits
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & bits
        z ^= z >> 31
    return z & (bits >> 1)


@pytest.mark.parametrize("symbols", [[1, 2], [2, 1], [0, 0, 0], [49152, 7, 1], [2**40, 3]])
def test_hash_wraps_around_as_64_bit_integers_do(symbols: list[int]) -> None:
    assert hash_symbols(torch.tensor(symbols)).item() == by_big_integers(symbols)


def test_hashed_contexts_spread_over_the_buckets() -> None:
    # 90,000 contexts over 1,000 buckets: 90 each, deviation sqrt(90) = 9.5; six deviations are never left.
    symbols = torch.cartesian_prod(torch.arange(300), torch.arange(300))
    counts = torch.bincount(hash_symbols(symbols).remainder(1000), minlength=1000)
    assert counts.min() > 90 - 6 * 9.5
    assert counts.max() < 90 + 6 * 9.5


def test_a_fresh_table_knows_nothing() -> None:
    bigrams = NGram(vocab_size=4, n=2)
    hidden, _ = bigrams(*whole([[1, 2]]))
    assert torch.count_nonzero(bigrams.unembed(hidden)) == 0


def test_counts_become_log_probabilities() -> None:
    # Pairs in "0 1 1" and "0 1": 0 -> 1 twice, 1 -> 1 once. With 1 added to each count:
    # after 0: (0 + 1, 2 + 1) / 4; after 1: (0 + 1, 1 + 1) / 3; after nothing: 1/2 each.
    bigrams = NGram(vocab_size=2, n=2)
    bigrams.fill_from_counts([[0, 1, 1], [0, 1], [1], []], smoothing=1.0)
    expected = torch.tensor([[1 / 2, 1 / 2], [1 / 4, 3 / 4], [1 / 3, 2 / 3]])
    torch.testing.assert_close(bigrams.table.weight.exp(), expected)


def test_little_smoothing_is_the_data() -> None:
    # "0 1 0 1 0 0": after 0 come 1, 1, 0; after 1 come 0, 0.
    bigrams = NGram(vocab_size=2, n=2).double()
    bigrams.fill_from_counts([[0, 1, 0, 1, 0, 0]], smoothing=1e-9)
    logp = bigrams.unembed(torch.tensor([[1], [2]])).detach()
    assert logp[0].tolist() == pytest.approx([math.log(1 / 3), math.log(2 / 3)], abs=1e-8)
    assert logp[1, 0].item() == pytest.approx(0.0, abs=1e-8)


def test_smoothing_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        NGram(vocab_size=2, n=2).fill_from_counts([[0, 1]], smoothing=0.0)


def test_a_step_changes_the_read_row_alone_and_exactly() -> None:
    # Q <- Q + lr (target - Q), the gradient of half the squared error: 0 + 0.5 * (1 - 0) in float64.
    table = NGram(vocab_size=3, n=2).double()
    q = table.head(3)
    hidden, _ = table(*whole([[1]]))
    loss = 0.5 * (1.0 - q(hidden)[0, 0, 2]) ** 2
    loss.backward()
    with torch.no_grad():
        q.weight -= 0.5 * q.weight.grad
    expected = torch.zeros(4, 3, dtype=torch.float64)
    expected[2, 2] = 0.5  # token 1 is row 2: the row of "nothing" comes first
    assert torch.equal(q.weight.data, expected)


def test_the_state_is_the_last_real_tokens() -> None:
    # Row 0: 1 2 3 with two pads before; row 1: 4 alone, so one "nothing" stays.
    table = NGram(vocab_size=9, n=3)
    tokens, mask = padded(table, [torch.tensor([1, 2, 3]), torch.tensor([4])], left=[2, 1])
    _, state = table(tokens, mask)
    assert state.tolist() == [[3, 4], [0, 5]]


@pytest.mark.parametrize(("key", "value"), [("n", 0), ("buckets", 0)])
def test_sizes_below_one_are_refused(key: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"backbone\.{key}: expected at least 1, got 0"):
        NGram(vocab_size=3, **{key: value})
