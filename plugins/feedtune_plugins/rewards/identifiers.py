"""Personal data that can be told by its form: addresses of mail and machines, and numbers that pay or ring.

Each pattern is tried at the beginning of a word alone and takes each character in one way only, so that the
time it takes grows with the text and no faster, whatever the text is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address

IBAN_LENGTHS: Mapping[str, int] = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
"""Letters and digits of an account number by country (SWIFT's IBAN registry, release 101)."""


def passes_luhn(digits: str) -> bool:
    """Whether the last digit checks the others: every second one from the right doubled, all sums end in 0.

    >>> passes_luhn("4111111111111111"), passes_luhn("4111111111111112")
    (True, False)
    """
    doubled = "".join(str(2 * int(digit)) for digit in digits[-2::-2])  # 14 counts as 1 + 4
    return sum(map(int, digits[-1::-2] + doubled)) % 10 == 0


def passes_mod_97(account: str) -> bool:
    """Whether an IBAN's two check digits are right (ISO 7064): with its head last, A as 10, it is 97 n + 1.

    >>> passes_mod_97("GB82WEST12345698765432"), passes_mod_97("GB28WEST12345698765432")
    (True, False)
    """
    return int("".join(str(int(sign, 36)) for sign in account[4:] + account[:4])) % 97 == 1


def _account(found: str) -> str:
    """What of a candidate is an IBAN; words that follow it may look as if it went on."""
    length = IBAN_LENGTHS.get(found[:2].upper(), 0)
    places = [place for place, sign in enumerate(found) if sign.isalnum()]
    if not length or len(places) < length:
        return ""
    end = places[length - 1] + 1
    whole = not found[end : end + 1].isalnum()
    return found[:end] if whole and passes_mod_97(re.sub("[ -]", "", found[:end])) else ""


def _card(found: str) -> str:
    return found if passes_luhn(re.sub("[ -]", "", found)) else ""


def _public_address(found: str) -> str:
    """An address that a machine elsewhere may have: not of a private network, nor kept for examples."""
    try:
        address = ip_address(found)
    except ValueError:
        return ""
    return found if address.is_global and not (address.is_reserved or address.is_multicast) else ""


def _all(found: str) -> str:
    return found


TAKEN = "\0"  # stands where something was found: no part of anything else

_NO_DATE = r"(?!\d{1,2}([./-])\d{1,2}\1\d{2,4}\b)"
_CARD = r"[2-6]\d{3}(?:\d{9,15}|([ -])\d{4}\1\d{4}\1\d{1,7}|([ -])\d{6}\2\d{4,5})"
_IPV4 = r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)"
_IPV6 = r"(?<![\w:.])[\dA-Fa-f]{0,4}(?::[\dA-Fa-f]{0,4}){2,7}(?![\w:])"
_PHONES = (
    r"(?:\+|00)[1-9](?:[ ./()-]{0,2}\d){7,14}",  # international: +49 (30) 901-820
    r"0[1-9](?:[ /-]{0,2}\d){7,10}",  # national, with its 0 in front: 030 901820
    r"\(0[1-9]\d{0,4}\)(?:[ /-]{0,2}\d){5,8}",  # (030) 901820
    r"(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}",  # North America's 3-3-4
)
_PATTERNS: Mapping[str, tuple[re.Pattern[str], Callable[[str], str]]] = {
    "email": (re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[\w-]+\.)+[^\W\d_]{2,}"), _all),
    "iban": (re.compile(r"(?<!\w)[A-Za-z]{2}\d\d(?:[ -]?[A-Za-z\d]){11,30}", re.ASCII), _account),
    "card": (re.compile(rf"(?<![\w.])(?<!\d[ -]){_CARD}(?!\w|[ -]\d)", re.ASCII), _card),
    "ip": (re.compile(rf"{_IPV4}|{_IPV6}", re.ASCII), _public_address),
    "phone": (
        re.compile(rf"(?<![\w.,/+-]){_NO_DATE}(?:{'|'.join(_PHONES)})(?!\w|[ /-]\d)", re.ASCII),
        _all,
    ),
}
"""By kind, in the order in which they are looked for: how it is written, and what of that it is."""

KINDS = tuple(_PATTERNS)


def find_identifiers(text: str) -> list[tuple[str, str]]:
    """Kind and text of all that is found, kind by kind; no character is of two.

    Args:
        text: as `undisguised` leaves it.

    >>> find_identifiers("Call 030/901820 or +1 (415) 555-0132; pay with 4111-1111-1111-1111.")
    [('card', '4111-1111-1111-1111'), ('phone', '030/901820'), ('phone', '+1 (415) 555-0132')]
    """
    found = []
    for kind, (pattern, part) in _PATTERNS.items():
        those, text = _taken_out(pattern, part, text)
        found += [(kind, one) for one in those]
    return found


def _taken_out(pattern: re.Pattern[str], part: Callable[[str], str], text: str) -> tuple[list[str], str]:
    """What is found, and the text without it."""
    found, kept, place, start = list[str](), list[str](), 0, 0
    while match := pattern.search(text, place):
        taken = part(match[0])
        place = match.start() + (len(taken) or 1)
        if taken:
            found.append(taken)
            kept.append(text[start : match.start()])
            start = place
    return found, TAKEN.join([*kept, text[start:]])
