"""A policy in service and its value from another one's log: exact where every response is enumerated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from feedtune.contracts import Row
from feedtune.errors import UserError
from feedtune.feedback.events.clicking import serve
from feedtune.feedback.events.clicks import ClickOptions
from feedtune.feedback.events.estimates import EstimateOptions, estimates, logp_of
from feedtune.feedback.events.showings import Showing, join
from feedtune.feedback.storage.store import FeedbackStore
from feedtune.policy import Policy
from feedtune.text.codec import Codec
from feedtune.text.tokenizers import TrainedTokenizer
from feedtune_plugins.backbones.ngram import NGram

WORDS = ("a", "b", "c")
GRADES = {"a": 0, "b": 2}
ROWS: list[Row] = [
    {"messages": [{"role": "user", "content": text}], "relevance": GRADES} for text in ("a b", "c")
]
WORTH = {"a": 1.0, "b": 3.0, "c": -1.0}


@pytest.fixture(scope="module")
def codec() -> Codec:
    return TrainedTokenizer(kind="word", vocab_size=40, min_frequency=1).build(
        lambda: iter(["a b c", "c b a"])
    )


def policy(codec: Codec, seed: int, words: Sequence[str] = WORDS) -> Policy:
    """Random, and says only these words and the end."""
    made = Policy(NGram(vocab_size=codec.vocab_size, n=2))
    generator = torch.Generator().manual_seed(seed)
    allowed = [codec.tokenizer.convert_tokens_to_ids(word) for word in words] + list(codec.eos_ids)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
        table = next(one for one in made.parameters() if one.shape[-1] == codec.vocab_size)
        barred = torch.ones(codec.vocab_size, dtype=torch.bool)
        barred[allowed] = False
        table[..., barred] = -40.0
        table[..., list(codec.eos_ids)] += 2.0  # short responses
    return made.eval()


def showing(row: Row, text: str, propensity: float | None, value: float = 1.0) -> Showing:
    """One that earned `value`."""
    event = SimpleNamespace(kind="click", value=value)
    return Showing(
        prompt="?",
        text=text,
        messages=tuple(row["messages"]),
        time=0.0,
        propensity=propensity,
        events=(event,),  # type: ignore[arg-type]
    )


def texts(length: int) -> list[str]:
    return [" ".join(words) for n in range(length + 1) for words in itertools.product(WORDS, repeat=n)]


def test_log_probabilities_are_those_of_all_responses(codec: Codec) -> None:
    """Over every response up to some length they add up to nearly 1, and never to more."""
    made = policy(codec, 0)
    logp = logp_of(made, codec, [showing(ROWS[0], text, 1.0) for text in texts(5)])
    assert 0.97 < float(logp.exp().sum()) < 1 + 1e-5


def test_what_was_said_before_is_not_valued(codec: Codec) -> None:
    talk: Row = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "a b"},
        ]
    }
    made = policy(codec, 0)  # which sees one token before: the same at the end of both prompts
    long, short = logp_of(made, codec, [showing(talk, "c a", 1.0), showing(ROWS[0], "c a", 1.0)]).tolist()
    assert long == pytest.approx(short, abs=1e-5)


def test_the_propensity_in_the_log_is_the_probability_of_the_text(codec: Codec) -> None:
    made = policy(codec, 0)
    log = serve(made, codec, ROWS, ClickOptions(showings=60), max_new_tokens=2)
    showings = join(log.items, log.events).showings
    assert len(showings) == log.shown
    assert log.shown + log.unended == 60
    assert log.unended > 0
    propensity = torch.tensor([one.propensity for one in showings], dtype=torch.float64)
    assert logp_of(made, codec, showings).exp().tolist() == pytest.approx(propensity.tolist(), rel=1e-4)
    found = estimates(made, codec, showings, EstimateOptions())  # of the policy itself: all weights are 1
    for one in found.values():
        assert one.value == pytest.approx(found["logged"].value, rel=1e-4)
        assert one.effective == pytest.approx(log.shown, rel=1e-4)


def test_expected_over_the_log_it_is_the_other_policys_value(codec: Codec) -> None:
    """By enumeration: sum p(y) IPS of the log {y} = sum pi(y) worth(y), over responses that both say."""
    old, new = policy(codec, 0), policy(codec, 1)
    said = [showing(ROWS[0], text, 1.0) for text in texts(3)]
    p, pi = (logp_of(one, codec, said).exp() for one in (old, new))
    worth = [sum(WORTH[word] for word in one.text.split()) for one in said]
    expected = float((pi * torch.tensor(worth)).sum())
    found = 0.0
    for one, chance, value in zip(said, p.tolist(), worth, strict=True):
        logged = [showing(ROWS[0], one.text, chance, value)]
        found += chance * estimates(new, codec, logged, EstimateOptions())["ips"].value
    assert abs(expected) > 0.1
    assert found == pytest.approx(expected, rel=1e-4)


def test_bounded_weights_and_worths_are_used(codec: Codec) -> None:
    old = policy(codec, 0)
    [logp] = logp_of(old, codec, [showing(ROWS[0], "a", 1.0)]).tolist()
    logged = [showing(ROWS[0], "a", math.exp(logp) / 4, 2.0)] * 2  # weight 4
    found = estimates(old, codec, logged, EstimateOptions(weights={"click": 0.5}, clip=3.0))
    values = {name: one.value for name, one in found.items()}
    assert values == pytest.approx(
        {"logged": 1.0, "ips": 4.0, "clipped": 3.0, "self-normalized": 1.0}, rel=1e-4
    )


def test_the_same_service_is_logged_once(codec: Codec, tmp_path: Path) -> None:
    made, store = policy(codec, 0), FeedbackStore(tmp_path / "feedback.sqlite")
    logs = [serve(made, codec, ROWS, ClickOptions(), max_new_tokens=9, seed=seed) for seed in (0, 0, 1)]
    new = []
    for log in logs:
        store.add(log.items)
        new.append(store.log(log.events))
    assert new[0] == len(logs[0].events)
    assert new[1] == 0
    assert new[2] > 0


def test_clicks_are_those_of_the_users(codec: Codec) -> None:
    """Everybody looks everywhere and clicks on what is relevant alone: each first b, and nothing else."""
    options = ClickOptions(examination=0.0, noise=0.0, showings=80)
    log = serve(policy(codec, 0), codec, ROWS, options, max_new_tokens=9)
    for one in join(log.items, log.events).showings:
        words = one.text.split()
        expected = [words.index("b") + 1] if "b" in words else []
        assert [event.position for event in one.events] == expected


def test_showings_that_cannot_be_used_are_refused(codec: Codec) -> None:
    made = policy(codec, 0)
    with pytest.raises(UserError, match="the log has no showing to learn from"):
        estimates(made, codec, [], EstimateOptions())
    with pytest.raises(UserError, match="'b a' was shown without the probability"):
        estimates(made, codec, [showing(ROWS[0], "b a", None)], EstimateOptions())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"clip": 0.0}, r"estimate\.clip: expected a number above 0, got 0"),
        ({"window": 0.0}, r"estimate\.window: expected a number of seconds above 0, got 0"),
        ({"weights": {}}, r"estimate\.weights: expected kinds of events"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        EstimateOptions(**options)  # type: ignore[arg-type]


def test_who_cannot_be_served_is_refused(codec: Codec) -> None:
    made = policy(codec, 0)
    with pytest.raises(UserError, match=r"clicks\.showings: expected at least 1, .* got 0"):
        serve(made, codec, ROWS, ClickOptions(showings=0), max_new_tokens=4)
    with pytest.raises(UserError, match=r"clicks\.column: .*in 'relevances'.*Did you mean 'relevance'"):
        serve(made, codec, ROWS, ClickOptions(column="relevances"), max_new_tokens=4)
