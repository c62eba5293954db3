"""What the suites of all kinds share: the option they are made from, and laws that every plugin obeys."""

from __future__ import annotations

import inspect
import random
import re
from abc import ABC
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, get_type_hints

import numpy as np
import torch
from torch import Tensor

from feedtune.config.build import build
from feedtune.testing.sameness import alike
from feedtune.testing.turning import idle_keys

SHAPE = re.compile(r"\[(\w+|\.\.\.)(, ?(\w+|\.\.\.))*\]")
"""How a docstring says a shape: [B, T], [..., V], [n]."""


class Suite(ABC):
    """Laws over one plugin. Each kind has its own subclass, and that one an abstract `make`."""

    group: ClassVar[str]
    """The config group of this kind, such as "reward"."""

    config: Mapping[str, Any] | None = None
    """The composed YAML of the option, where the suite speaks of one: laws about its keys need it."""

    unseen: frozenset[str] = frozenset()
    """Keys of the YAML that rightly change nothing that `probe` looks at, such as a time limit.

    In the YAML itself a comment that ends with `[unseen]` says the same of its key.
    """

    not_applicable: str | None = None
    """Why the law that ran last says nothing about this plugin; None: it does."""

    @classmethod
    def laws(cls) -> list[str]:
        """Names of the methods that are laws, in the order in which they are written.

        >>> from feedtune.testing import RewardSuite
        >>> "test_silence_is_scored_too" in RewardSuite.laws()
        True
        """
        names = [name for kind in reversed(cls.__mro__) for name in vars(kind) if name.startswith("test_")]
        return [name for name in dict.fromkeys(names) if getattr(cls, name, None) is not None]

    @classmethod
    def fitted(cls) -> tuple[type[Suite], str]:
        """The suite with attributes that fit its plugin, as far as can be found out, and words for them."""
        return cls, ""

    def built_from(self, config: Mapping[str, Any]) -> Any:
        """The plugin as this composed YAML describes it."""
        return build(dict(config), self.group, **self.given())

    def _seeded_from(self, config: Mapping[str, Any]) -> Any:
        with seeded(0):
            return self.built_from(config)

    def given(self) -> dict[str, Any]:
        """Constructor arguments that only exist at run time."""
        return {}

    def probe(self, made: Any) -> Any:
        """All that can be seen of what a plugin does, as plain values or tensors; the same if made again."""
        raise NotImplementedError

    def fresh(self) -> Any:
        """The plugin, made once more."""
        return self.make()  # type: ignore[attr-defined]

    def subject(self) -> type[Any]:
        """The class that the laws speak of."""
        return type(self.fresh())

    def inapplicable(self, why: str) -> None:
        """Say that a law has nothing to say, and why."""
        self.not_applicable = why

    # -- laws of every kind ---------------------------------------------------------------------------------

    def test_its_docstring_says_what_it_is(self) -> None:
        """A class docstring; where tensors come in or go out, their shapes in brackets, such as [B, T]."""
        kind = self.subject()
        text = own_docstring(kind)
        require(len(text.split()) >= 4, f"{kind.__name__} needs a docstring that says what it is")
        silent = [name for name in tensor_methods(kind) if not SHAPE.search(docstring(kind, name))]
        require(
            not silent,
            f"{kind.__name__}: the docstring of {', '.join(silent)} names no shape, such as [B, T], though "
            "tensors come in or go out",
        )

    def test_no_parameter_is_without_effect(self) -> None:
        """Every key of the YAML, turned alone, changes what the plugin does, or is refused by name."""
        if self.config is None:
            return self.inapplicable("the suite knows no YAML: set `config` to the option's composed node")
        found = idle_keys(self.config, self._seeded_from, self.probe, self.unseen)
        require(
            not found,
            f"turned, these keys change nothing: {', '.join(found)}. If that is right, let the comment of "
            "the key say why and end with [unseen]",
        )
        return None


def own_docstring(kind: type[Any]) -> str:
    """The docstring of a class itself or, of a dataclass without one, nothing."""
    text = kind.__doc__ or ""
    return "" if text.startswith(f"{kind.__name__}(") else text


def docstring(kind: type[Any], name: str) -> str:
    """The docstrings of a method and of those that it overrides: a contract's words need no repeating."""
    texts = (getattr(owner.__dict__.get(name), "__doc__", None) for owner in kind.__mro__)
    return "\n".join(text for text in texts if text)


def tensor_methods(kind: type[Any]) -> Iterator[str]:
    """Public methods that a plugin's own classes write, and that take or give tensors."""
    owners = [owner for owner in kind.__mro__ if not is_foundation(owner)]
    for name in dict.fromkeys(name for owner in owners for name in vars(owner)):
        method = inspect.unwrap(getattr(kind, name)) if hasattr(kind, name) else None
        if (name.startswith("_") and name != "__call__") or not inspect.isfunction(method):
            continue
        if any(hint is Tensor for hint in _hints(method).values()):
            yield name


def is_foundation(kind: type[Any]) -> bool:
    """Whether a class is one that plugins stand on, and no author of a plugin has written.

    >>> is_foundation(torch.nn.Module), is_foundation(type("Mine", (), {"__module__": "acme"}))
    (True, False)
    """
    return kind.__module__.split(".")[0] in {"builtins", "abc", "typing", "torch", "lightning", "feedtune"}


def _hints(method: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(method)
    except (NameError, TypeError, AttributeError):  # names that only type checkers import
        texts = getattr(method, "__annotations__", {})
        return {name: Tensor if str(hint) == "Tensor" else hint for name, hint in texts.items()}


def require(holds: bool, message: str) -> None:
    """An assertion that reads the same with and without pytest.

    >>> require(1 > 2, "one is not more than two")
    Traceback (most recent call last):
    AssertionError: one is not more than two
    """
    if not holds:
        raise AssertionError(message)


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Inside, nobody may draw from the global generators of torch, NumPy and Python.

    >>> with untouched_randomness():
    ...     _ = torch.rand(1)
    Traceback (most recent call last):
    AssertionError: it draws from the global generator of torch; whatever draws has to have its own
    """
    before = _global_states()
    yield
    after = _global_states()
    touched = [name for name, state in before.items() if not alike(state, after[name])]
    require(
        not touched,
        f"it draws from the global generator of {' and '.join(touched)}; whatever draws has to have its own",
    )


def _global_states() -> dict[str, Any]:
    numpy = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "NumPy": [str(numpy["bit_generator"]), numpy["state"]["pos"], numpy["state"]["key"].tolist()],
        "Python": random.getstate(),
    }


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the global generators are seeded; afterwards they are as they were."""
    numpy, python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy)
            random.setstate(python)
