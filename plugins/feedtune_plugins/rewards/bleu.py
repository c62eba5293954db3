"""BLEU of each response against its row's references."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from feedtune_plugins.rewards.checks import at_least, one_of
from feedtune_plugins.rewards.references import ReferenceReward
from feedtune_plugins.rewards.text import UNITS, Unit, units


@dataclass(kw_only=True)
class Bleu(ReferenceReward):
    """BLEU (Papineni et al. 2002) in [0, 1] of one response: 1 repeats a reference, 0 shares no word.

    Without `smooth` this is torchmetrics' `bleu_score`: 0 as soon as one order of n-grams has no match, which
    is the fate of most single sentences. With it, 1 is added to the matches and to the counts of the orders
    from 2 up (Lin and Och 2004), so that every shared word pays. torchmetrics' own `smooth` does the same
    where each order has a match, and still gives 0 elsewhere.

    Args:
        n_gram: longest n-gram that counts, 4 in the paper.
        smooth: add 1 to orders from 2 up.
        unit: what an n-gram is made of: words between whitespace, or characters.

    >>> from feedtune.contracts import Sample
    >>> Bleu()([Sample("?", "the cat", columns={"reference": "the cat"})])
    tensor([1.])
    """

    n_gram: int = 4
    smooth: bool = True
    unit: Unit = "words"

    def __post_init__(self) -> None:
        at_least("reward.n_gram", self.n_gram, 1)
        one_of("reward.unit", self.unit, UNITS)

    def score(self, response: str, references: Sequence[str]) -> float:
        """BLEU of one response; an empty one scores 0."""
        said = units(response, self.unit)
        targets = sorted((units(reference, self.unit) for reference in references), key=len)
        if self.smooth:
            return smoothed_bleu(said, targets, self.n_gram)
        from torchmetrics.functional.text import bleu_score

        # Both sides are joined again since torchmetrics cuts at whitespace; sorted, since of two references
        # that are equally close in length it takes the first, and the paper the shorter.
        return float(
            bleu_score([" ".join(said)], [[" ".join(target) for target in targets]], n_gram=self.n_gram)
        )


def smoothed_bleu(said: Sequence[str], targets: Sequence[Sequence[str]], n_gram: int) -> float:
    """BLEU with 1 added to the matches and the counts of orders from 2 up; 0 where no single unit matches.

    >>> smoothed_bleu(["a", "b"], [["a", "c"]], 2)  # sqrt(1/2 x (0 + 1)/(1 + 1))
    0.5
    """
    log_precision = 0.0
    for order in range(1, n_gram + 1):
        counts = ngram_counts(said, order)
        most: Counter[tuple[str, ...]] = Counter()
        for target in targets:
            most |= ngram_counts(
                target, order
            )  # an n-gram counts as often as the reference richest in it has it
        added = int(order > 1)
        matches = (counts & most).total() + added
        if not matches:
            return 0.0
        log_precision += math.log(matches / (counts.total() + added)) / n_gram
    closest = min((len(target) for target in targets), key=lambda size: (abs(size - len(said)), size))
    log_brevity = min(0.0, 1 - closest / len(said))
    return math.exp(log_brevity + log_precision)


def ngram_counts(said: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    """How often each run of `order` units occurs.

    >>> ngram_counts(["a", "b", "a", "b"], 2)
    Counter({('a', 'b'): 2, ('b', 'a'): 1})
    """
    return Counter(tuple(said[start : start + order]) for start in range(len(said) - order + 1))
