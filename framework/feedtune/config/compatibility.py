"""Which versions of feedtune a plugin asks for, as its distribution says, and whether one is among them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version

_ON_FEEDTUNE = re.compile(r"feedtune\s*(?![\w.\s-])", re.IGNORECASE)
"""How a line of Requires-Dist begins that asks for feedtune, and not for feedtune-something."""

_FROM = (">", ">=", "~=", "==", "===")
"""Operators that a newer feedtune may satisfy where this one is too old."""


@cache
def installed() -> str:
    """The version of feedtune that runs."""
    return version("feedtune")


def asked_of_feedtune(lines: Iterable[str]) -> str:
    """The versions of feedtune that these lines of Requires-Dist allow; "" where they do not say.

    >>> asked_of_feedtune(["torch>=2", "feedtune[lora]<0.3,>=0.1", "feedtune-x==9"])
    '<0.3,>=0.1'
    >>> asked_of_feedtune(["feedtune", "feedtune<0.1; extra == 'test'"])
    ''
    """
    concerned = [line for line in lines if _ON_FEEDTUNE.match(line)]
    if not concerned:
        return ""
    from packaging.requirements import InvalidRequirement, Requirement

    found = set[str]()
    for line in concerned:
        try:
            asked = Requirement(line)
        except InvalidRequirement:
            continue  # pip would not have installed it: written by hand
        if asked.marker is None or asked.marker.evaluate({"extra": ""}):
            found |= {str(one) for one in asked.specifier}
    return ",".join(sorted(found))


def misfit(distribution: str, asks: str, running: str) -> tuple[str, str] | None:
    """Why a plugin that asks for these versions of feedtune cannot be used, and what to do; None: it can.

    >>> misfit("acme", "<0.3", "0.2.1")
    >>> misfit("acme", "<0.3", "0.3.0")[1], misfit("acme", "==0.4.*", "0.3.0")[1]
    ('pip install --upgrade acme', 'pip install --upgrade feedtune')
    """
    if not asks:
        return None
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    failing = [one for one in SpecifierSet(asks) if not one.contains(running, prereleases=True)]
    if not failing:
        return None
    wants_newer = any(
        one.operator in _FROM and Version(one.version.removesuffix(".*")) >= Version(running)
        for one in failing
    )
    which, name = ("this feedtune", "feedtune") if wants_newer else ("the plugin", distribution)
    what = f"it asks for feedtune {asks}, but {running} is installed: {which} is too old"
    return what, f"pip install --upgrade {name}"
