"""Text of models and data for people: what would act instead of being read is spelled out.

A terminal obeys escape sequences (colours, a new title, the cursor elsewhere), and so do texts that change
their own direction. Whoever prints what a model, a file or an error says prints `plain` of it.
"""

from __future__ import annotations

import re

# Characters that change the order of text or cannot be seen: controls, bidirectional marks, lone halves
# of surrogate pairs, tags. Joiners stay: scripts and emoji need them.
UNSEEN = re.compile(
    "([\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f])"
)


def plain(text: str) -> str:
    """Text with its unseen characters spelled out, for places that hold no markup.

    >>> plain("left\u202eright"), plain("\x1b[31mred")
    ('leftU+202Eright', 'U+001B[31mred')
    """
    return UNSEEN.sub(lambda found: f"U+{ord(found[0]):04X}", text)
