"""What responses earned: by hand, and unbiased by enumeration of every log that could have been."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch

from click_logs import Shown, store
from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.functional import importance_weights, inverse_propensity
from feedtune_plugins.rewards.logged import Logged


def bought(price: float) -> list[tuple[str, float, int | None, float]]:
    return [("click", 1.0, None, 5.0), ("purchase", price, None, 600.0)]


SHOWN = [
    Shown("Tea?", "Yes!", 0.5, bought(3.0)),
    Shown("Tea?", "Yes!", 0.5),
    Shown("Tea?", "No.", 0.25, [("click", 1.0, None, 9.0)]),
    Shown("Tea?", "No.", 0.25),
    Shown("Cake?", "Yes!", 1.0, [("click", 1.0, None, 9.0)]),
]
ASKED = [
    Sample("Tea?", "Yes!"),
    Sample("Tea?", "No."),
    Sample("Tea?", "Never."),
    Sample("Cake?", "Yes!"),
    Sample("Pie?", "Yes!"),
]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    return store(tmp_path_factory.mktemp("log") / "feedback.sqlite", SHOWN)


def test_means_by_hand(log: str) -> None:
    # 1 click in 2 showings, 1 in 2, never shown, 1 in 1, unknown prompt
    assert Logged(path=log)(ASKED).tolist() == pytest.approx([0.5, 0.5, math.nan, 1.0, math.nan], nan_ok=True)
    # 3 x 10 over 2 showings, nothing was bought elsewhere
    source = Logged(path=log, weights={"purchase": 10.0})
    assert source(ASKED).tolist() == pytest.approx([15.0, 0.0, math.nan, 0.0, math.nan], nan_ok=True)


def test_inverse_propensity_by_hand(log: str) -> None:
    # 4 showings of "Tea?": 1 / .5 / 4 = .5 and 1 / .25 / 4 = 1; what was not shown there has 0
    source = Logged(path=log, estimate="ips")
    assert source(ASKED).tolist() == pytest.approx([0.5, 1.0, 0.0, 1.0, math.nan], nan_ok=True)
    source = Logged(path=log, estimate="ips", clip=3.0)  # the second has 3 / 4
    assert source(ASKED).tolist() == pytest.approx([0.5, 0.75, 0.0, 1.0, math.nan], nan_ok=True)


def test_late_events_do_not_count(log: str) -> None:
    source = Logged(path=log, weights={"purchase": 10.0}, window=599.0)
    # the log's newest event, 9 s after the last showing, leaves that out: "Cake?" is not known yet
    assert source(ASKED).tolist() == pytest.approx([0.0, 0.0, math.nan, math.nan, math.nan], nan_ok=True)


def test_whitespace_around_a_response_is_nothing(log: str) -> None:
    assert Logged(path=log)([Sample("Tea?", "  Yes!\n")]).tolist() == [0.5]


WORTH = {"Yes!": 2.0, "No.": 1.0, "Never.": 0.5}
SAID = {"Yes!": 0.5, "No.": 0.375, "Never.": 0.125}  # by the policy that was logged
TUNED = {"Yes!": 0.25, "No.": 0.25, "Never.": 0.5}


def worlds() -> list[tuple[float, list[Shown]]]:
    """Every log of two showings, with its probability; each response earns its worth."""
    found = []
    for texts in itertools.product(WORTH, repeat=2):
        then = {text: [("click", WORTH[text], None, 5.0)] for text in texts}
        shown = [Shown("Tea?", text, SAID[text], then[text]) for text in texts]
        found.append((math.prod(SAID[text] for text in texts), shown))
    return found


def test_inverse_propensity_is_unbiased_for_every_response(tmp_path: Path) -> None:
    asked = [Sample("Tea?", text) for text in WORTH]
    mean = torch.zeros(3)
    for number, (chance, shown) in enumerate(worlds()):
        scores = Logged(path=store(tmp_path / f"{number}.sqlite", shown), estimate="ips")(asked)
        mean += chance * scores
        # and what a policy scores on average is the inverse-propensity estimate of its value
        logp = torch.tensor([TUNED[one.text] for one in shown]).log()
        weight = importance_weights(logp, torch.tensor([SAID[one.text] for one in shown]))
        value = inverse_propensity(torch.tensor([WORTH[one.text] for one in shown]), weight).value
        tuned = torch.tensor(list(TUNED.values()))
        assert float((tuned * scores).sum()) == pytest.approx(value, rel=1e-5)
    assert mean.tolist() == pytest.approx(list(WORTH.values()), rel=1e-5)


def test_inverse_propensity_needs_propensities(tmp_path: Path) -> None:
    path = store(tmp_path / "feedback.sqlite", [Shown("Tea?", "Yes!", None, bought(1.0))])
    assert Logged(path=path)(ASKED[:1]).tolist() == [1.0]
    with pytest.raises(UserError, match=r"reward\.estimate: ips needs .* 'Yes!' was shown without one"):
        Logged(path=path, estimate="ips")(ASKED)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"estimate": "isp"}, r"reward\.estimate: expected one of mean, ips, got 'isp'.* 'ips'"),
        ({"clip": 2.0}, r"reward\.clip: only reward\.estimate=ips has a use for it"),
        ({"estimate": "ips", "clip": 0.0}, r"reward\.clip: expected a number above 0, got 0"),
        ({"window": -1.0}, r"reward\.window: expected a number above 0, got -1"),
        ({"weights": {"click": 0.0}}, r"reward\.weights: expected kinds of events"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], problem: str, log: str) -> None:
    with pytest.raises(UserError, match=problem):
        Logged(path=log, **options)  # type: ignore[arg-type]


def test_a_store_that_is_not_there_is_refused(log: str) -> None:
    near = Path(log).with_name("feedbak.sqlite")
    with pytest.raises(UserError, match=r"reward\.path: .*feedbak\.sqlite.*Did you mean .*feedback\.sqlite"):
        Logged(path=str(near))
    assert not near.exists()


def test_a_log_without_showings_is_refused(tmp_path: Path, log: str) -> None:
    path = store(tmp_path / "feedback.sqlite", [])
    with pytest.raises(UserError, match=r"reward\.path: .*says of no response that it was shown: it needs"):
        Logged(path=path)(ASKED)
    with pytest.raises(UserError, match=r"shown, but 5 younger than reward\.window=1e\+06 s"):
        Logged(path=log, window=1e6)(ASKED)
