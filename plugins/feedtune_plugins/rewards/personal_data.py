"""Whether a response gives away data of a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from feedtune.contracts import Sample, Scores
from feedtune.errors import UserError
from feedtune_plugins.rewards.checks import one_of
from feedtune_plugins.rewards.disguises import undisguised
from feedtune_plugins.rewards.identifiers import KINDS, find_identifiers


@dataclass(kw_only=True)
class PersonalData:
    """Minus the number of addresses and numbers in a response that belong to somebody; 0 is clean.

    They are told by their form, and where they have check digits by those: addresses of mail, phone numbers,
    payment cards, bank accounts (IBAN), public addresses of machines (IP). Each kind's number is a part.

    Args:
        kinds: what is looked for, some of email, phone, card, iban, ip.
        scale: times what; a penalty of 5 makes one address cost 5.

    Raises:
        UserError: no kind is named, or one that there is not.

    >>> said = [Sample("Hi", "Write to anna@example.org or ben@example.org."), Sample("Hi", "Hello.")]
    >>> PersonalData(kinds=["email", "phone"])(said)
    Scores(total=tensor([-2.,  0.]), parts={'email': tensor([2., 0.]), 'phone': tensor([0., 0.])})
    """

    kinds: Sequence[str] = KINDS
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.kinds or isinstance(self.kinds, str):
            raise UserError(f"reward.kinds: expected a list of {', '.join(KINDS)}; got {self.kinds!r}")
        for kind in self.kinds:
            one_of("reward.kinds", kind, KINDS)

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        """Scores of n samples, at most 0, and of each kind the number that was found."""
        found = [Counter(kind for kind, _ in find_identifiers(undisguised(s.response))) for s in samples]
        parts = {
            kind: torch.tensor([one[kind] for one in found], dtype=torch.float32)
            for kind in dict.fromkeys(self.kinds)
        }
        total = [-sum(one[kind] for kind in parts) for one in found]
        return Scores(self.scale * torch.tensor(total, dtype=torch.float32), parts)
