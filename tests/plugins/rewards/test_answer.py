"""The answer reward against a table of responses judged by hand."""

from __future__ import annotations

import pytest
import torch

from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune_plugins.rewards.answer import Answer


def score(response: str, reference: object, column: str = "reference") -> float:
    found = Answer(column=column)([Sample("?", response, columns={column: reference})])
    return float(found[0])


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("19", "19"),
        ("19.", "19"),
        ("= 19", "19"),
        ("12 + 7 = 19", "19"),
        ("12+7=19.", "19"),
        ("The answer is **19**.", "19"),
        ("19 apples", "19"),
        ("$19", "19"),
        ("I say 18. No: 19!", "19"),
        ("1,234", "1234"),
        ("1234", "1,234"),
        ("12,345,678", "12345678"),
        ("5 - 10 = -5", "-5"),
        ("\N{MINUS SIGN}5", "-5"),
        ("22-5", "5"),  # a minus between two numbers is no sign
        ("(3)-5", "5"),
        ("2.50", "2.5"),
        ("019", "19"),
        ("-0", "0"),
        ("Paris", "Paris"),
        (" paris. ", "Paris"),
        ("STRASSE", "Straße"),
        ("yes", ["no", "Yes"]),
        ("7", ["6", "7"]),
    ],
)
def test_right_answers(response: str, reference: object) -> None:
    assert score(response, reference) == 1


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("", "19"),
        ("nineteen", "19"),
        ("18", "19"),
        ("19 or 18", "19"),  # only the last number answers
        ("190", "19"),
        ("119", "19"),
        ("19.5", "19"),
        ("1,9", "19"),  # two numbers
        ("1,2345", "12345"),
        ("-5", "5"),
        ("5", "-5"),
        ("1 234", "1234"),
        ("Paris or Rome", "Paris"),
        ("Paris", "Rome"),
        ("", "Paris"),
        ("7", ["6", "8"]),
        ("19", "19 apples"),  # no number, so it is compared as text
    ],
)
def test_wrong_answers(response: str, reference: object) -> None:
    assert score(response, reference) == 0


@pytest.mark.parametrize("reference", [None, " ", [], float("nan")])
def test_a_row_without_reference_has_no_opinion(reference: object) -> None:
    assert torch.isnan(torch.tensor(score("19", reference)))


def test_another_column() -> None:
    assert score("19", "19", column="solution") == 1


def test_a_missing_column_is_named() -> None:
    message = r"row 0 \(prompt '\?'\) has no column 'reference'; its columns are: references\. Did you mean"
    with pytest.raises(UserError, match=message):
        Answer()([Sample("?", "19", columns={"references": "19"})])
