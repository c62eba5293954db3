"""Whether what is installed is what was tested: `python tests/installed.py` after a pip install.

Every dependency of feedtune, those of its extras and theirs in turn, has to be pinned in constraints.txt and
installed in that version; and nothing else may be there but what any environment begins with.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
OURS = "feedtune"
BEGINNING = {"feedtune", "pip", "wheel"}
"""What an environment holds before anything is installed, and what is tested."""


def pinned() -> dict[str, str]:
    """Versions by canonical name; a line that pins nothing is an error."""
    lines = [line.partition("#")[0].strip() for line in CONSTRAINTS.read_text().splitlines()]
    found = [re.fullmatch(r"([\w.-]+)==([\w.+!-]+)", line) for line in lines if line]
    assert all(found), [line for line, one in zip(filter(None, lines), found, strict=True) if one is None]
    return {canonicalize_name(one[1]): one[2] for one in found if one}


def needed() -> dict[str, bool]:
    """Every distribution that feedtune needs here with all its extras, directly or not.

    The value says whether whoever needs it names the one version itself, as torch does for a GPU.
    """
    seen: set[tuple[str, str]] = set()
    exact: dict[str, bool] = {}
    left = [(OURS, extra) for extra in ("", *extras_of(OURS))]
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        for asked in _brought(*one):
            name = canonicalize_name(asked.name)
            exact[name] = exact.get(name, False) or (
                str(asked.specifier).startswith("==") and "*" not in str(asked.specifier)
            )
            left += [(name, inner) for inner in ("", *asked.extras)]
    return {name: fixed for name, fixed in exact.items() if name != OURS}


def extras_of(name: str) -> list[str]:
    """The extras that a distribution offers."""
    return distribution(name).metadata.get_all("Provides-Extra") or []


def _brought(name: str, extra: str) -> Iterator[Requirement]:
    """What a distribution with an extra asks for on this machine."""
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return  # `problems` says so
    for asked in map(Requirement, lines):
        if asked.marker is None or asked.marker.evaluate({"extra": extra}):
            yield asked


def installed() -> dict[str, str]:
    """Versions by canonical name; the local part, as in 2.13.0+cpu, names a build of the same version."""
    found = {canonicalize_name(one.metadata["Name"]): one.version for one in distributions()}
    return {name: version.partition("+")[0] for name, version in found.items()}


def problems(strict: bool = True) -> list[str]:
    """Every way in which this environment is not the tested one; `strict`: also what nobody asked for."""
    pins, have, asked = pinned(), installed(), needed()
    fixed = {name for name, exact in asked.items() if exact}
    unpinned = asked.keys() - pins.keys() - fixed
    said = [f"{name}: needed, but not pinned in constraints.txt" for name in unpinned]
    said += [f"{name}: needed, but not installed" for name in asked.keys() - have.keys()]
    said += [
        f"{name}: {have[name]} is installed, constraints.txt has {pins[name]}"
        for name in pins.keys() & have.keys()
        if have[name] != pins[name]
    ]
    if strict:
        strangers = have.keys() - pins.keys() - fixed - BEGINNING
        said += [f"{name}: {have[name]} is installed, but not pinned" for name in strangers]
    return sorted(said)


if __name__ == "__main__":
    found = problems()
    print("\n".join(found) or f"{len(installed())} distributions, each as in constraints.txt")
    sys.exit(bool(found))
