"""How a policy over action values explores."""

from __future__ import annotations

from dataclasses import dataclass

from feedtune.checks import check_not_negative, check_positive, check_unit


@dataclass(frozen=True, kw_only=True)
class LinearEpsilon:
    """Epsilon on a straight line, then constant.

    Args:
        start: epsilon before the first optimiser step, in [0, 1].
        end: epsilon from step `steps` on, in [0, 1].
        steps: optimiser steps from start to end, above 0.
    """

    start: float = 1.0
    end: float = 0.05
    steps: int = 1000

    def __post_init__(self) -> None:
        check_unit("algorithm.acting.epsilon.start", self.start)
        check_unit("algorithm.acting.epsilon.end", self.end)
        check_positive("algorithm.acting.epsilon.steps", self.steps)

    def at(self, step: int) -> float:
        """Epsilon after so many optimiser steps.

        >>> [LinearEpsilon(start=1.0, end=0.5, steps=2).at(step) for step in (0, 1, 2, 3)]
        [1.0, 0.75, 0.5, 0.5]
        """
        return self.start + (self.end - self.start) * min(1.0, step / self.steps)


@dataclass(frozen=True, kw_only=True)
class Acting:
    """(1 - epsilon) softmax(Q / temperature) + epsilon uniform.

    Args:
        temperature: at least 0; lower is greedier. 0 takes the largest Q, so the rule is epsilon-greedy.
        epsilon: share of tokens drawn uniformly, in [0, 1], or a schedule of it. Higher explores more; 0 is
            Boltzmann's distribution.
    """

    temperature: float = 0.02
    epsilon: float | LinearEpsilon = 0.1

    def __post_init__(self) -> None:
        check_not_negative("algorithm.acting.temperature", self.temperature)
        if not isinstance(self.epsilon, LinearEpsilon):
            check_unit("algorithm.acting.epsilon", self.epsilon)

    def epsilon_at(self, step: int) -> float:
        """Epsilon after so many optimiser steps."""
        return self.epsilon.at(step) if isinstance(self.epsilon, LinearEpsilon) else self.epsilon
