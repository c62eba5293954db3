"""Changes that no test can see, each with the reason.

By file, function and change as `python tests/mutation.py` prints them.
"""

from __future__ import annotations

EQUIVALENTS: dict[str, dict[tuple[str, str], str]] = {
    "framework/feedtune/functional/bellman.py": {
        ("expectile_loss", "error < 0 -> error <= 0"): "an error of 0 costs 0 with either weight",
    },
    "framework/feedtune/functional/masked.py": {
        ("whiten", "count.clamp(min=1) -> count.clamp(min=0)"): "nothing marked: the mean 0/0 is masked out",
        ("whiten", "count.clamp(min=1) -> count"): "nothing marked: the mean 0/0 is masked out",
    },
    "framework/feedtune/functional/returns.py": {
        (
            "generalized_advantages",
            "torch.where(action, reward + gamma * next_values(values, action, bootstrap) - values, 0)"
            " -> torch.where(action, reward + gamma * next_values(values, action, bootstrap) - values, 1)",
        ): "returns_to_go reads no token that is no action",
        (
            "generalized_advantages",
            "torch.where(action, reward + gamma * next_values(values, action, bootstrap) - values, 0)"
            " -> reward + gamma * next_values(values, action, bootstrap) - values",
        ): "returns_to_go reads no token that is no action",
    },
    "framework/feedtune/functional/surrogates.py": {
        ("clipped_surrogate", "advantage < 0 -> advantage <= 0"): "an advantage of 0 costs 0, bounded or not",
    },
}
