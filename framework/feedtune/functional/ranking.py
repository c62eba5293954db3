"""How good a ranking is, when it is known what its entries are worth.

Shapes: K entries, best place first.
"""

from __future__ import annotations

import torch
from torch import Tensor


def discounts(count: int) -> Tensor:
    """What each of so many places counts, `[count]` float64: 1 / log2(1 + place), from place 1.

    >>> discounts(3)
    tensor([1.0000, 0.6309, 0.5000], dtype=torch.float64)
    """
    return 1 / torch.arange(2, count + 2, dtype=torch.float64).log2()


def dcg(worth: Tensor) -> Tensor:
    """Discounted cumulative gain of entries in the order shown, `[..., K] -> [...]`.

    Jarvelin and Kekalainen 2002, with the discount of Burges et al. 2005.

    >>> dcg(torch.tensor([3.0, 0.0, 1.0]))
    tensor(3.5000, dtype=torch.float64)
    """
    return (worth.double() * discounts(worth.shape[-1])).sum(-1)


def ndcg(worth: Tensor, all_worths: Tensor) -> Tensor:
    """DCG over that of the best order of all there is: 1 is perfect, `[..., K], [..., D] -> [...]`.

    Args:
        worth: of the entries in the order shown; 0 for those that are worth nothing.
        all_worths: of every document there is, in any order. A shorter ranking is compared with the best
            one of all of them.

    Returns:
        NaN where no document is worth anything: no order is better than another.

    >>> ndcg(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    tensor(0.6309, dtype=torch.float64)
    """
    return dcg(worth) / dcg(all_worths.sort(descending=True).values)
