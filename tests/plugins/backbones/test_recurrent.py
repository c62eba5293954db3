"""LSTM and GRU: the arithmetic of one cell by hand, and what the options do."""

from __future__ import annotations

import math

import pytest
import torch

from feedtune.errors import UserError
from feedtune.testing.backbones import padded, random_rows
from feedtune_plugins.backbones.recurrent import Recurrent


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def one_unit(cell: str) -> Recurrent:
    """Everything of size 1 and every weight 1/2, biases 0."""
    tiny = Recurrent(vocab_size=2, cell=cell, embed_size=1, hidden_size=1, layers=1)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, weight in tiny.named_parameters():
            weight.fill_(0.0 if "bias" in name else 0.5)
    return tiny


def test_an_lstm_by_hand() -> None:
    # The embedding is 1/2 and every gate sees x/2 + h/2. First token: i = f = o = s(1/4), g = tanh(1/4),
    # c = i g, h = o tanh(c). Second token: gates at 1/4 + h/2; c' = f c + i g. The projection halves h.
    gate, new = sigmoid(0.25), math.tanh(0.25)
    c = gate * new
    h = gate * math.tanh(c)
    gate2, new2 = sigmoid(0.25 + h / 2), math.tanh(0.25 + h / 2)
    c2 = gate2 * c + gate2 * new2
    h2 = gate2 * math.tanh(c2)
    lstm = one_unit("lstm")
    hidden, state = lstm(torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool))
    assert hidden[0, :, 0].tolist() == pytest.approx([h / 2, h2 / 2], abs=1e-6)
    assert [part.item() for part in state] == pytest.approx([h2, c2], abs=1e-6)
    # tied: the logit of each token is its embedding, 1/2, times the hidden state
    assert lstm.unembed(hidden)[0, 0].tolist() == pytest.approx([h / 4, h / 4], abs=1e-6)


def test_a_gru_by_hand() -> None:
    # r = z = s(x/2 + h/2), n = tanh(x/2 + r h/2), h' = (1 - z) n + z h, with x = 1/2.
    h = (1 - sigmoid(0.25)) * math.tanh(0.25)
    gate = sigmoid(0.25 + h / 2)
    h2 = (1 - gate) * math.tanh(0.25 + gate * h / 2) + gate * h
    hidden, state = one_unit("gru")(torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool))
    assert hidden[0, :, 0].tolist() == pytest.approx([h / 2, h2 / 2], abs=1e-6)
    assert [part.item() for part in state] == pytest.approx([h2], abs=1e-6)


def test_a_row_that_waits_keeps_its_memory_to_the_bit() -> None:
    lstm = Recurrent(vocab_size=9, embed_size=4, hidden_size=6)
    tokens = torch.stack(random_rows(lstm, [3, 3]))
    _, before = lstm(tokens, torch.ones_like(tokens, dtype=torch.bool))
    more, mask = padded(lstm, [torch.tensor([1, 2]), torch.tensor([], dtype=torch.int64)], left=[0, 0])
    _, after = lstm(more, mask, before)
    kept = lstm.select(after, torch.tensor([1]))
    assert all(torch.equal(new[:, 0], old[:, 1]) for new, old in zip(kept, before, strict=True))


def test_memory_of_a_padded_batch_costs_nothing_until_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lstm = Recurrent(vocab_size=9, embed_size=4, hidden_size=6)
    asked: list[int] = []
    work_out = Recurrent._memory_of

    def counted(*args: object) -> object:
        asked.append(1)
        return work_out(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(Recurrent, "_memory_of", counted)
    tokens, mask = padded(lstm, random_rows(lstm, [3, 2]), left=[0, 0])
    _, state = lstm(tokens, mask)
    assert asked == []
    lstm.select(state, torch.tensor([0]))
    assert asked == [1]


def test_tied_weights_are_one_and_untied_are_two() -> None:
    tied = Recurrent(vocab_size=9, embed_size=4, hidden_size=6, tied=True)
    untied = Recurrent(vocab_size=9, embed_size=4, hidden_size=6, tied=False)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (tied, untied)]
    assert sizes[1] - sizes[0] == 9 * 4
    hidden = torch.ones(1, 4)
    with torch.no_grad():
        before = tied.unembed(hidden), untied.unembed(hidden)
        tied.embedding.weight[3] += 1.0
        untied.embedding.weight[3] += 1.0
    # the sum of the four numbers that the embedding of token 3 grew by
    assert (tied.unembed(hidden) - before[0])[0].tolist() == pytest.approx(
        [0, 0, 0, 4, 0, 0, 0, 0, 0], abs=1e-5
    )
    assert torch.equal(untied.unembed(hidden), before[1])


def test_dropout_is_on_in_training_and_off_in_eval() -> None:
    lstm = Recurrent(vocab_size=9, embed_size=64, hidden_size=6, dropout=0.5)
    tokens = torch.tensor([[1, 2, 3]])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    assert not torch.equal(lstm(tokens, mask)[0], lstm(tokens, mask)[0])
    dropped = (lstm(tokens, mask)[0] == 0).float().mean().item()
    assert 0.35 < dropped < 0.65  # of 192 numbers; four deviations of a fair coin
    lstm.eval()
    assert torch.equal(lstm(tokens, mask)[0], lstm(tokens, mask)[0])


def test_an_unknown_cell_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        UserError, match=r"backbone\.cell: expected lstm or gru, got 'lstn'\. Did you mean 'lstm'\?"
    ):
        Recurrent(vocab_size=9, cell="lstn")  # type: ignore[arg-type]


@pytest.mark.parametrize(("cell", "count"), [("lstm", 4_862_208), ("gru", 3_942_656)])
def test_the_size_that_the_yaml_names(cell: str, count: int) -> None:
    # lstm: 4096 * 256 embedding, 4 * 512 * (256 + 512 + 2) and 4 * 512 * (512 + 512 + 2) cells,
    # 512 * 256 + 256 projection, 4096 bias; gru: 3 in place of 4.
    model = Recurrent(vocab_size=4096, cell=cell)  # type: ignore[arg-type]
    gates = 4 if cell == "lstm" else 3
    cells = gates * 512 * (256 + 512 + 2) + gates * 512 * (512 + 512 + 2)
    assert count == 4096 * 256 + cells + 512 * 256 + 256 + 4096
    assert sum(p.numel() for p in model.parameters()) == count
