"""What people see: the page that asks, the page of results, and the login."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jinja2
from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from feedtune.feedback.results.leaderboard import Place
from feedtune.feedback.results.summary import results_of
from feedtune.feedback.web.visitors import door_of
from feedtune.text.visible import plain

router = APIRouter()

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"

KINDS = {"comparison": "Compare", "rating": "Rate", "edit": "Edit"}
RATERS = {"person": "By people", "judge": "By judges", "simulated": "By simulated raters"}


@dataclass(frozen=True)
class Action:
    """A button under a question, and the keys that press it."""

    name: str
    value: str
    keys: tuple[str, ...] = ()  # as browsers name them
    shown: str = ""  # the first of them, for people
    look: str = ""  # classes of its style


ACTIONS = {
    "comparison": (
        Action("A is better", "a", ("a", "arrowleft"), "A", "main half"),
        Action("B is better", "b", ("b", "arrowright"), "B", "main half"),
        Action("Tie", "tie", ("t",), "T"),
        Action("Both bad", "both_bad", ("x",), "X"),
        Action("Skip", "skip", ("s",), "S"),
    ),
    "rating": (
        *(Action(str(n), str(n), (str(n),), look="main fifth") for n in range(1, 6)),
        Action("Skip", "pass", ("s",), "S"),
    ),
    "edit": (
        Action("Save", "edit", ("ctrl+enter",), "Ctrl+Enter", "main third"),
        Action("Skip", "pass", ("s",), "S"),
    ),
}
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@router.get("/login")
def login_page() -> Response:
    """Where a token is asked for."""
    return _page("login.html")


@router.get("/")
def asking_page(request: Request, kind: str = "comparison") -> Response:
    """Where questions are answered."""
    visitor = door_of(request).visitor(request)
    if visitor is None:
        return RedirectResponse("/login", 303)
    if visitor.account.role == "logger":
        return _page("refused.html", 403, message="This account sends events; it answers no questions.")
    here = kind if kind in KINDS else "comparison"
    return _page("ask.html", visitor=visitor, here=here)


@router.get("/results")
def results_page(request: Request) -> Response:
    """What all answers amount to; for admins, since it would sway raters."""
    door = door_of(request)
    visitor = door.visitor(request)
    if visitor is None:
        return RedirectResponse("/login", 303)
    if visitor.account.role != "admin":
        return _page("refused.html", 403, message="Results are for admins: they would sway raters.")
    return _page("results.html", visitor=visitor, here="results", results=results_of(door.store))


def _page(name: str, status: int = 200, **values: Any) -> HTMLResponse:
    text = TEMPLATES.get_template(name).render(**values).lstrip()
    return HTMLResponse(text.encode("utf-8", "replace"), status)


def number(value: float, digits: int = 2) -> str:
    """For people: a dash where there is none.

    >>> number(0.5), number(float("nan")) == DASH, number(-1.25, 1) == f"{MINUS}1.2"
    ('0.50', True, True)
    """
    if math.isnan(value):
        return DASH
    return f"{value:.{digits}f}".replace("-", MINUS)


def chance_of_winning(strength: float) -> float:
    """Against a run of average strength, in percent.

    >>> chance_of_winning(0.0)
    50.0
    """
    return 100 / (1 + math.exp(-strength))


def bar(place: Place) -> dict[str, float]:
    """An interval and its middle as a picture of 0 to 100 has them."""
    low, middle, high = map(chance_of_winning, (place.low, place.strength, place.high))
    return {"low": round(low, 2), "middle": round(middle, 2), "width": round(high - low, 2)}


TEMPLATES.filters |= {"number": number, "plain": plain, "winning": chance_of_winning, "bar": bar}
TEMPLATES.globals |= cast(
    dict[str, Any],
    {"actions": ACTIONS, "dash": DASH, "isnan": math.isnan, "kinds": KINDS, "raters_named": RATERS},
)
