"""Packed linear layers say what plain ones say, while they are open and only then."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from feedtune.contracts import Backbone
from feedtune_plugins.backbones.packing import Cast, packed_linears


class Net(nn.Module):
    """Layers with and without a bias, one of them within another module, and one of another class."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(8, 12), nn.Tanh())
        self.second = nn.Linear(12, 5, bias=False)
        self.other = nn.Bilinear(5, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.second(self.first(x))
        found: Tensor = self.other(hidden, hidden)
        return found


@pytest.mark.parametrize("shape", [(8,), (1, 8), (70, 8), (3, 1, 8)])
def test_the_same_numbers(shape: tuple[int, ...]) -> None:
    net, x = Net(), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = net(x)
        with packed_linears(net):
            packed = net(x)
    torch.testing.assert_close(packed, plain, atol=1e-6, rtol=1e-5)
    assert packed.shape == plain.shape


def test_only_while_it_is_open() -> None:
    net, x = Net(), torch.randn(4, 8)
    with torch.no_grad(), packed_linears(net):
        before = net(x)
        net.second.weight.mul_(2)
        assert torch.equal(net(x), before)  # the copy is what counts
    assert not torch.allclose(net(x), before)
    net(x).sum().backward()
    assert net.second.weight.grad is not None


def test_closed_by_an_error_too() -> None:
    net = Net()
    with pytest.raises(ZeroDivisionError), packed_linears(net):
        raise ZeroDivisionError
    assert "forward" not in vars(net.second)


def test_in_the_type_of_autocast() -> None:
    net, x = Net(), torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = net.second(net.first(x))
        with packed_linears(net):
            packed = net.second(net.first(x))
    assert packed.dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(packed, plain, atol=0.02, rtol=0.02)


def test_what_cannot_be_packed_runs_as_it_is() -> None:
    net, x = Net().double(), torch.randn(4, 8, dtype=torch.float64)
    with torch.no_grad():
        plain = net(x)
        with packed_linears(net):
            assert torch.equal(net(x), plain)
    other = nn.Linear(2, 2, device="meta")
    with packed_linears(other):
        assert "forward" not in vars(other)


def test_backbones_say_the_same_while_steady(backbone: Backbone) -> None:
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    with torch.no_grad():
        plain = backbone.unembed(backbone(tokens, mask)[0])
        with backbone.steady():
            steady = backbone.unembed(backbone(tokens, mask)[0])
    torch.testing.assert_close(steady, plain, atol=1e-5, rtol=1e-5)


def test_what_several_layers_read_is_cast_once() -> None:
    cast, x = Cast(torch.bfloat16), torch.randn(3, 4)
    with torch.no_grad():
        once = cast(x)
        assert cast(x) is once
        torch.testing.assert_close(once, x.bfloat16())
        x.add_(1)  # the same tensor, other numbers
        torch.testing.assert_close(cast(x), x.bfloat16())
        assert cast(once) is once  # in the type already
    with torch.inference_mode():
        unseen = torch.zeros(2)
        assert cast(unseen).tolist() == [0, 0]
        unseen.add_(1)
        assert cast(unseen).tolist() == [1, 1]
