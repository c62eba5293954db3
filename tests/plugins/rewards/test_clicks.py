"""What clicks say of rankings: by hand, and right on average whatever the old order was, by enumeration."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from click_logs import Shown, clicks, store
from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune_plugins.rewards.clicks import Clicks

SECOND, THIRD = 1 / math.log2(3), 0.5  # discounts
SHOWN = [
    Shown("Songs?", "food music work", None, clicks(2)),
    Shown("Songs?", "food work music", None, clicks(1, 3)),
    Shown("Lunch?", "food music", None, []),
]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    return store(tmp_path_factory.mktemp("log") / "feedback.sqlite", SHOWN)


def scores(source: Clicks, *rankings: str) -> list[float]:
    return source([Sample("Songs?", one) for one in rankings]).tolist()


def test_by_hand(log: str) -> None:
    # worth: music (2 at place 2 + 3 at place 3) / 2 = 2.5, food (0 + 1) / 2 = .5, work 0
    source = Clicks(path=log)
    found = scores(source, "music food work", "food music work", "work music", "music", "")
    expected = [2.5 + 0.5 * SECOND, 0.5 + 2.5 * SECOND, 2.5 * SECOND, 2.5, 0.0]
    assert found == pytest.approx(expected)


def test_clicks_as_they_are(log: str) -> None:
    # music 2 of 2, food 1 of 2
    assert scores(Clicks(path=log, examination=0.0), "music food") == pytest.approx([1 + 0.5 * SECOND])


def test_a_list_of_probabilities_and_a_bound(log: str) -> None:
    # 1 / .5 and 1 / .1 over 2 = 6; with a bound of 4: (2 + 4) / 2 = 3
    listed = [1.0, 0.5, 0.1]
    assert scores(Clicks(path=log, examination=listed), "music") == pytest.approx([6.0])
    assert scores(Clicks(path=log, examination=listed, clip=4.0), "music") == pytest.approx([3.0])
    with pytest.raises(UserError, match=r"reward\.examination: .*for 2 places; place 3 was shown"):
        scores(Clicks(path=log, examination=[1.0, 0.5]), "music")


def test_strange_entries_and_repetitions_take_their_place(log: str) -> None:
    found = scores(Clicks(path=log), "dogs music", "music music food")
    assert found == pytest.approx([2.5 * SECOND, 2.5 + 0.5 * THIRD])


def test_prompts_that_were_not_shown_have_no_score(log: str) -> None:
    asked = [Sample("Lunch?", "food music"), Sample("Trip?", "food music")]
    assert Clicks(path=log)(asked).tolist() == pytest.approx([0.0, math.nan], nan_ok=True)


ATTRACTION = {"music": 0.9, "food": 0.4, "work": 0.1}  # probability of a click when looked at
LOOKED = [1.0, 1 / 2, 1 / 3]
OLD = {  # a policy that likes food first and shows music last
    ("food", "work", "music"): 0.85,
    ("work", "food", "music"): 0.05,
    ("music", "food", "work"): 0.1,
}


def worlds() -> list[tuple[float, Shown]]:
    """Every ranking that the old policy shows, with every pattern of clicks, and the probability of both."""
    found = []
    for ranking, likely in OLD.items():
        for pattern in itertools.product([False, True], repeat=3):
            chances = [LOOKED[place] * ATTRACTION[entry] for place, entry in enumerate(ranking)]
            happens = math.prod(p if click else 1 - p for p, click in zip(chances, pattern, strict=True))
            places = [place for place, click in enumerate(pattern, 1) if click]
            found.append((likely * happens, Shown("Songs?", " ".join(ranking), likely, clicks(*places))))
    return found


def test_scores_are_unbiased_for_the_discounted_attraction(tmp_path: Path) -> None:
    rankings = [" ".join(order) for order in itertools.permutations(ATTRACTION)]
    mean, naive = [0.0] * 6, [0.0] * 6
    for number, (chance, shown) in enumerate(worlds()):
        path = store(tmp_path / f"{number}.sqlite", [shown])
        for total, examination in ((mean, 1.0), (naive, 0.0)):
            for place, score in enumerate(scores(Clicks(path=path, examination=examination), *rankings)):
                total[place] += chance * score
    truth = [
        sum(ATTRACTION[entry] / math.log2(2 + place) for place, entry in enumerate(ranking.split()))
        for ranking in rankings
    ]
    assert mean == pytest.approx(truth, rel=1e-5)
    best = [max(zip(found, rankings, strict=True))[1] for found in (mean, naive)]
    # as they are, music is clicked with .9 (.9/3 + .1) = .36, food with .4 (.85 + .05/2 + .1/2) = .37 and
    # work with .1 (.85/2 + .05 + .1/3) = .05083: what stood at the top stays there
    assert best == ["music food work", "food music work"]
    assert max(naive) == pytest.approx(0.37 + 0.36 * SECOND + 0.05083 * THIRD, rel=1e-3)


def test_events_without_the_place_of_an_entry_are_refused(tmp_path: Path) -> None:
    nowhere = [Shown("Songs?", "food music", None, [("click", 1.0, None, 5.0)])]
    with pytest.raises(
        UserError, match=r"event 'event 0\.0' \(click\) needs the position .* 1 to 2 .*got None"
    ):
        scores(Clicks(path=store(tmp_path / "a.sqlite", nowhere)), "food")
    beyond = [Shown("Songs?", "food music", None, clicks(3))]
    with pytest.raises(UserError, match=r"from 1 to 2 in the ranking that was shown, got 3"):
        scores(Clicks(path=store(tmp_path / "b.sqlite", beyond)), "food")
    other = [Shown("Songs?", "food music", None, [("purchase", 9.0, None, 5.0), *clicks(1)])]
    assert scores(Clicks(path=store(tmp_path / "c.sqlite", other)), "food") == [1.0]


def test_entries_between_line_breaks(tmp_path: Path) -> None:
    shown = [Shown("Songs?", "rock music\ngood food", None, clicks(1))]
    path = store(tmp_path / "a.sqlite", shown)
    assert scores(Clicks(path=path, separator="\n"), "good food\nrock music") == pytest.approx([SECOND])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"examination": -1.0}, r"reward\.examination: expected an exponent from 0"),
        ({"examination": [0.5, 0.0]}, r"reward\.examination: .*above 0 and at most 1"),
        ({"clip": 0.0}, r"reward\.clip: expected a number above 0"),
        ({"weights": {"shown": 1.0}}, r"reward\.weights\.shown: being shown earns nothing"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], problem: str, log: str) -> None:
    with pytest.raises(UserError, match=problem):
        Clicks(path=log, **options)  # type: ignore[arg-type]
