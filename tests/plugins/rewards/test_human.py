"""reward=human asks, waits and hears: simulated raters answer over HTTP as people would."""

from __future__ import annotations

import math
import socket
import threading
from pathlib import Path

import pytest

from feedtune.checkpoints import newest
from feedtune.config.compose import compose_config
from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.feedback import Answer, FeedbackStore, Kind, now
from feedtune.feedback.raters.simulated import Habits
from feedtune.feedback.web.addresses import url_of
from feedtune.rewards import SourceFailure
from feedtune.runs.training import train
from feedtune_plugins.rewards.human import Human
from raters import answering, raters_at
from small_runs import fingerprint, overrides, run, write_rows

GROUP = [Sample("Hi", "x"), Sample("Hi", "xyz"), Sample("Hi", "xy"), Sample("Ho", "x")]


def human(path: Path, **more: object) -> Human:
    """Looks often, and leaves the page to the test."""
    return Human(**{"path": str(path), "poll": 0.01, "port": None, **more})  # type: ignore[arg-type]


def say(store: FeedbackStore, item_text: str, value: str | float, rater: str = "ann") -> None:
    """Answer the question whose first response has this text."""
    item = next(one for one in store.items() if one.responses[0].text == item_text)
    kind = "rating" if isinstance(value, float) else "comparison"
    shown = tuple(one.id for one in item.responses)
    name = f"{item.id}{rater}"
    store.answer(
        Answer(id=name, item=item.id, kind=kind, responses=shown, value=value, rater=rater, time=now())
    )


def test_a_rating_is_what_the_rater_says_and_is_asked_once(tmp_path: Path) -> None:
    """A response of n letters is rated n + 1; two of the same words are one question."""
    path = tmp_path / "feedback.sqlite"
    reward = human(path)
    with answering(path) as store:
        assert reward([*GROUP, GROUP[1]]).tolist() == [2.0, 4.0, 3.0, 2.0, 4.0]
        assert len(store.items()) == len(store.answers()) == 4
        assert {one.by for one in store.answers()} == {"simulated"}
    assert human(path)(GROUP[1:]).tolist() == [4.0, 3.0, 2.0]  # nobody is there any more, or needed
    assert reward([]).tolist() == []


def test_several_people_are_heard_and_no_more_than_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "feedback.sqlite"
    store, early = FeedbackStore(path), human(path, timeout=0.0)
    with pytest.raises(SourceFailure):
        early(GROUP[:1])
    for value, rater in ((5.0, "ann"), (2.0, "bob"), (1.0, "cid")):
        say(store, "x", value, rater)
    assert early(GROUP[:1]).tolist() == [5.0]
    assert human(path, answers=2)(GROUP[:1]).tolist() == [3.5]
    assert human(path, answers=3)(GROUP[:1]).tolist() == pytest.approx([8 / 3])


def test_the_stronger_of_a_group_is_who_wins_its_comparisons(tmp_path: Path) -> None:
    """One win of x over y, beside a tie of each with an opponent of strength 0: by symmetry s and -s.

    The slope of the log-likelihood, 1 - sigmoid(2 s) + 1/2 - sigmoid(s), is 0 at s = 0.756308: the two
    sigmoids are 0.819448 and 0.680552 there, 3/2 together.
    """
    path = tmp_path / "feedback.sqlite"
    with answering(path, kind="comparison"):
        reward = human(path, kind="comparison")
        two = reward([GROUP[0], GROUP[1], GROUP[3]]).tolist()
        assert two[:2] == pytest.approx([-0.756308, 0.756308], abs=1e-5)
        assert math.isnan(two[2])  # alone in its group
        three = reward(GROUP[:3]).tolist()
        assert three[0] < three[2] < three[1]
        assert sum(three) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("value", "worth"), [("tie", 0.0), ("both_bad", 0.0), ("skip", math.nan)])
def test_who_cannot_choose_says_that_both_are_alike_or_nothing(
    value: str, worth: float, tmp_path: Path
) -> None:
    path = tmp_path / "feedback.sqlite"
    reward = human(path, kind="comparison", timeout=0.0)
    with pytest.raises(SourceFailure):
        reward(GROUP[:2])
    say(FeedbackStore(path), "x", value)
    assert reward(GROUP[:2]).tolist() == pytest.approx([worth, worth], nan_ok=True)


def test_each_response_meets_as_many_as_it_is_to(tmp_path: Path) -> None:
    """On a ring of five: 5 pairs with the next one, 10 with the next two, which are all that there are."""
    five = [Sample("Hi", "x" * n) for n in range(1, 6)]
    for opponents, pairs in ((None, 5), (2, 10), (4, 10)):
        path = tmp_path / f"{opponents}.sqlite"
        with pytest.raises(SourceFailure):
            human(path, kind="comparison", opponents=opponents, timeout=0.0)(five)
        assert len(FeedbackStore(path).items()) == pairs


def test_who_is_late_is_not_heard(tmp_path: Path) -> None:
    path = tmp_path / "feedback.sqlite"
    reward = human(path, timeout=0.05)
    with pytest.raises(SourceFailure, match=r"none of 4 questions was answered within reward\.timeout=0\.05"):
        reward(GROUP)
    say(FeedbackStore(path), "xyz", 5.0)
    assert reward(GROUP).tolist() == pytest.approx([math.nan, 5.0, math.nan, math.nan], nan_ok=True)


def test_the_run_serves_the_page_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url, port = url_of(free), free.getsockname()[1]
    store, found = FeedbackStore(tmp_path / "feedback.sqlite"), list[list[float]]()
    reward = human(store.path, port=port)
    thread = threading.Thread(target=lambda: found.append(reward(GROUP[:2]).tolist()), daemon=True)
    thread.start()
    while f"give them at {url} (a login: feedtune feedback account" not in capsys.readouterr().err:
        assert thread.is_alive()
    with raters_at(url, store, "ann"):
        thread.join(timeout=20)
    reward.close()
    assert found == [[2.0, 4.0]]


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError) as error:
        human(tmp_path / "feedback.sqlite", port=taken.getsockname()[1])(GROUP)
    assert str(error.value).startswith("reward.port: cannot listen on 127.0.0.1, port ")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": "ratings"}, "reward.kind: expected one of rating, comparison, got 'ratings'."),
        ({"answers": 0}, "reward.answers: expected 1 or more, got 0"),
        ({"opponents": 2}, "reward.opponents: only reward.kind=comparison has a use for it"),
        ({"opponents": 0, "kind": "comparison"}, "reward.opponents: expected 1 or more, got 0"),
        ({"timeout": -1.0}, "reward.timeout: expected at least 0, got -1.0"),
        ({"poll": 0.0}, "reward.poll: expected a number above 0, got 0.0"),
    ],
)
def test_options_that_nobody_can_mean_are_refused(
    wrong: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        human(tmp_path / "feedback.sqlite", **wrong)
    assert words in str(error.value)


def test_a_resumed_run_hears_what_the_run_in_one_go_heard(tmp_path: Path) -> None:
    """Noisy raters; two rollouts and then two more, or four: the same questions, and the same weights."""
    data = write_rows(tmp_path)
    kind: Kind = "comparison"
    typed = overrides(data, "lstm", "ppo", "reward=human", f"reward.kind={kind}", "reward.port=null")
    typed += ["reward.poll=0.01", "collector.group_size=2", "optimizer.lr=0.01", "evaluation.rows=2"]
    habits, asked = Habits(temperature=2.0, worst=0.0, best=4.0), list[set[str]]()
    for name, lengths in (("whole", (4,)), ("parts", (2, 4))):
        folder = tmp_path / name
        folder.mkdir()
        with answering(folder / "feedback.sqlite", kind=kind, habits=habits) as store:
            for length in lengths:
                chosen = [*typed, f"trainer.max_epochs={length}"]
                if length == lengths[0]:
                    run(folder, chosen)
                else:
                    train(compose_config(chosen), folder, newest(folder))
            asked.append({item.id for item in store.items()})
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")
    assert asked[0] == asked[1]
    assert len(asked[0]) > 8


def test_what_was_heard_before_a_kill_is_not_asked_again(tmp_path: Path) -> None:
    """The first rollout has been answered when the process dies; nobody is there when the run begins anew."""
    data = write_rows(tmp_path)
    typed = overrides(data, "gru", "ppo", "reward=human", "reward.port=null", "reward.poll=0.01")
    typed += ["trainer.max_epochs=1", "evaluation.rows=2"]
    with answering(tmp_path / "first" / "feedback.sqlite") as store:
        run(tmp_path / "first", typed)
    again = [*typed, f"reward.path={store.path}", "reward.timeout=0"]
    run(tmp_path / "again", again)
    assert fingerprint(tmp_path / "again") == fingerprint(tmp_path / "first")
