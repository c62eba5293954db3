"""A small task that can be learnt in seconds: answer each letter with the two that follow it in the alphabet.

Four prompts, a vocabulary of ten tokens; a random answer is worth about 0.08, the right one 1. Beside the
prompts there are answers that somebody has already given, for the algorithms that learn from logs and pairs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations, product

from feedtune.contracts import Row, Sample

LETTERS = "abcd"
PROMPTS: list[Row] = [{"prompt": letter} for letter in LETTERS]


def answer(letter: str) -> str:
    """The next two letters, in a circle.

    >>> answer("a"), answer("d")
    ('bc', 'ab')
    """
    start = LETTERS.index(letter)
    return "".join(LETTERS[(start + step) % len(LETTERS)] for step in (1, 2))


def score(prompt: str, response: str) -> float:
    """Half a point for each letter in its place, less a tenth for each letter too many.

    >>> score("a", "bc"), score("a", "bx"), score("a", "bcc")
    (1.0, 0.5, 0.9)
    """
    right = sum(said == wanted for said, wanted in zip(response, answer(prompt), strict=False))
    return right / 2 - 0.1 * max(0, len(response) - 2)


def reward(samples: Sequence[Sample]) -> list[float]:
    """The runs' reward source."""
    return [score(one.prompt, one.response) for one in samples]


def right_answers() -> list[Row]:
    """What a teacher says, ready to be imitated."""
    return [{"prompt": letter, "reference": answer(letter)} for letter in LETTERS] * 8


def logged(count: int = 512, seed: int = 0) -> list[Row]:
    """Answers of somebody who likes the letter before the prompt's, with what they were worth.

    Each letter is that one with probability 0.55 and the right one with 0.35, so the answers are worth 0.35
    in the mean, and who imitates them greedily gets 0: what is better has been learnt from the rewards.
    """
    draw = random.Random(seed)
    rows: list[Row] = []
    for number in range(count):
        prompt = LETTERS[number % len(LETTERS)]
        said = "".join(_habit(prompt, wanted, draw) for wanted in answer(prompt))
        rows.append({"prompt": prompt, "reference": said, "reward": score(prompt, said)})
    return rows


def _habit(prompt: str, wanted: str, draw: random.Random) -> str:
    liked = LETTERS[LETTERS.index(prompt) - 1]
    (said,) = draw.choices([liked, wanted, draw.choice(LETTERS)], [0.5, 0.3, 0.2])
    return said


def preferred(count: int = 1024) -> list[Row]:
    """Two answers to one prompt each, the better one chosen; equally good ones are left out.

    Both are the habit's, but half of the second ones are any letters, none to three: what no pair shows,
    such as ending at once, no pair forbids, and a network's probability drifts there.
    """
    draw = random.Random(3)
    first, second = logged(count, seed=1), logged(count, seed=2)
    said = [_any(draw) if draw.random() < 0.5 else row["reference"] for row in second]
    return [
        _pair(row["prompt"], row["reference"], other)
        for row, other in zip(first, said, strict=True)
        if row["reward"] != score(row["prompt"], other)
    ]


def _any(draw: random.Random) -> str:
    return "".join(draw.choices(LETTERS, k=draw.randrange(4)))


def split_pairs() -> tuple[list[Row], list[Row]]:
    """All pairs of two-letter answers that are not worth the same: 3/4 to learn, the rest held out."""
    words = ["".join(letters) for letters in product(LETTERS, repeat=2)]
    pairs = [
        _pair(prompt, one, other)
        for prompt in LETTERS
        for one, other in combinations(words, 2)
        if score(prompt, one) != score(prompt, other)
    ]
    random.Random(0).shuffle(pairs)
    held_out = len(pairs) // 4
    return pairs[held_out:], pairs[:held_out]


def _pair(prompt: str, one: str, other: str) -> Row:
    better, worse = sorted((one, other), key=lambda said: -score(prompt, said))
    return {"prompt": prompt, "chosen": better, "rejected": worse}
