"""Changes that no test can see, each with the reason.

By file, function and change as `python tests/mutation.py` prints them.
"""

from __future__ import annotations

EQUIVALENTS: dict[str, dict[tuple[str, str], str]] = {}
