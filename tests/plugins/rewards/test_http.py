"""A judge elsewhere: what it is asked, what it may answer, and every way in which it can misbehave."""

from __future__ import annotations

import math
import socket
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.rewards import RewardCalls, SourceFailure, guarded, score_samples
from feedtune_plugins.remote.exchange import seconds_asked_for, shown
from feedtune_plugins.rewards.http import Http
from judges import Judge, Reply, judging, lengths, saying

SAMPLES = [Sample("Hi", "seven__"), Sample("Hi", ""), Sample("Ho", "fourteen______")]


def http(judge: Judge | str, **options: Any) -> Http:
    url = judge if isinstance(judge, str) else judge.url
    return Http(url=url, **{"attempts": 1, "timeout": 10.0, **options})


def failing(judge: Judge | str, **options: Any) -> str:
    """The failure of a call."""
    with pytest.raises(SourceFailure) as caught:
        http(judge, **options)(SAMPLES)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is asked and answered


def test_scores_come_back_in_the_order_of_the_samples() -> None:
    with judging(lengths) as judge:
        assert http(judge)(SAMPLES).tolist() == [1.0, 0.0, 2.0]
    assert judge.asked == [
        [
            {"prompt": "Hi", "response": "seven__"},
            {"prompt": "Hi", "response": ""},
            {"prompt": "Ho", "response": "fourteen______"},
        ]
    ]
    assert judge.headers[0]["Content-Type"] == "application/json"
    assert "Authorization" not in judge.headers[0]


def test_null_is_no_opinion() -> None:
    with judging(saying({"scores": [1, None, -0.5], "model": "judge-7"})) as judge:
        scores = http(judge)(SAMPLES).tolist()
    assert (scores[0], scores[2]) == (1.0, -0.5)
    assert math.isnan(scores[1])


def test_the_judge_is_shown_messages_and_columns() -> None:
    talk = ({"role": "user", "content": "Hi"},)
    columns = {"reference": ["a", "b"], "level": np.int64(3), "tags": np.array(["x"]), "note": math.nan}
    sample = Sample("Hi", "Ho", talk, columns)
    with judging(lengths) as judge:
        http(judge)([sample])
        http(judge, columns=["level", "tags", "note"])([sample])
        http(judge, columns=[])([sample])
    base = {"prompt": "Hi", "response": "Ho", "messages": [{"role": "user", "content": "Hi"}]}
    assert judge.asked == [
        [{**base, "reference": ["a", "b"]}],
        [{**base, "level": 3, "tags": ["x"], "note": None}],  # a missing cell of a table is NaN
        [base],
    ]


def test_text_of_any_kind_arrives_as_it_is() -> None:
    texts = ["half a pair \ud800", "你好 😀\x00\u2028", '"\\\n']
    with judging(lengths) as judge:
        http(judge)([Sample("Hi", text) for text in texts])
    assert [sample["response"] for sample in judge.asked[0]] == texts


def test_nothing_is_asked_about_nothing() -> None:
    with judging(lengths) as judge:
        assert http(judge)([]).shape == (0,)
    assert judge.asked == []


def test_equal_samples_are_asked_about_once() -> None:
    with judging(lengths) as judge:
        assert http(judge)([SAMPLES[0], SAMPLES[2], SAMPLES[0]]).tolist() == [1.0, 2.0, 1.0]
    assert [len(samples) for samples in judge.asked] == [2]


def test_batches_and_how_many_are_asked_at_once() -> None:
    many = [Sample("Hi", "x" * number) for number in range(10)]

    def slowly(samples: Any) -> Reply:
        scores = [len(sample["response"]) for sample in samples]
        return saying({"scores": scores}, delay=0.05)

    for concurrency in (1, 3):
        with judging(slowly) as judge:
            scores = http(judge, batch_size=3, concurrency=concurrency)(many)
        assert scores.tolist() == list(range(10))
        assert sorted(len(samples) for samples in judge.asked) == [1, 3, 3, 3]
        assert judge.most_at_once <= concurrency
        assert concurrency == 1 or judge.most_at_once > 1


# Secrets


def test_a_token_comes_from_the_environment_and_stays_out_of_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "swordfish-12345")
    refusal = saying("no such key: swordfish-12345", status=401)
    with judging(lengths, refusal) as judge:
        source = http(judge, token_env="JUDGE_KEY")
        source([SAMPLES[0]])
        assert judge.headers[0]["Authorization"] == "Bearer swordfish-12345"
        with pytest.raises(UserError) as caught:
            source([SAMPLES[0]])
    assert str(caught.value) == f'{source.label} answered 401 Unauthorized: "no such key: ***"'
    assert "swordfish" not in repr(source)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("JUDGE_KEY", None, "reward.token_env: the environment variable JUDGE_KEY is not set"),
        ("JUDGE_KEY", "", "reward.token_env: the environment variable JUDGE_KEY is not set"),
        ("JUDGE_KEY", "sword\nfish", "reward.token_env: the value of JUDGE_KEY holds blanks or signs that"),
        ("JUDGE_KEY", "schwertfüsch", "reward.token_env: the value of JUDGE_KEY holds blanks or signs that"),
        ("sk-swordfish", None, "reward.token_env: expected the NAME of an environment variable, in capitals"),
    ],
)
def test_what_is_wrong_with_a_token_is_said_without_it(
    name: str, value: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(UserError) as caught:
        http("http://localhost/score", token_env=name)
    assert str(caught.value).startswith(message)
    assert "fish" not in str(caught.value)
    assert "füsch" not in str(caught.value)


# Attempts


@pytest.mark.parametrize(
    "trouble",
    [
        saying("too many", status=429),
        saying("early", status=425),
        saying("slow", status=408),
        saying("broken", status=500),
        saying("overloaded", status=503),
        Reply(body=b"<html>Bad gateway</html>"),
        Reply(body=b'{"scores": [1.0, 0.0', promised=100),
        saying({"scores": [1.0]}),
        saying({"score": [1.0, 0.0, 2.0]}),
    ],
    ids=lambda reply: f"{reply.status} {reply.body[:16]!r}",
)
def test_what_may_pass_is_tried_again(trouble: Reply) -> None:
    with judging(trouble, trouble, lengths) as judge:
        reward = guarded(http(judge, attempts=3, wait=0.0), RewardCalls())
        assert score_samples(reward, SAMPLES).total.tolist() == [1.0, 0.0, 2.0]
    assert len(judge.asked) == 3
    assert reward.metrics() == {"reward/retries": 2.0}


@pytest.mark.parametrize(("wait", "least"), [(None, 1.0), (0.5, 0.5), (300.0, 300.0)])
def test_the_first_wait_is_the_users(
    wait: float | None, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    with judging(saying("broken", status=500), lengths) as judge:
        source = http(judge, attempts=2, wait=wait)
        monkeypatch.setattr(time, "sleep", slept.append)
        source(SAMPLES)
    assert len(slept) == 1
    assert least <= slept[0] <= 1.5 * least


@pytest.mark.parametrize(
    "when",
    [
        lambda: "1",
        lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True),  # whole seconds
    ],
    ids=["seconds", "date"],
)
def test_429_says_when_to_come_back(when: Any) -> None:
    with judging(saying("busy", status=429, headers={"Retry-After": when()}), lengths) as judge:
        began = time.monotonic()
        http(judge, attempts=2, wait=0.0)(SAMPLES)
        assert 0.9 <= time.monotonic() - began < 10
    assert len(judge.asked) == 2


def test_who_wants_to_be_left_alone_for_an_hour_has_failed() -> None:
    with judging(saying("quota", status=429, headers={"Retry-After": "3600"}), lengths) as judge:
        said = failing(judge, attempts=5, wait=0.0)
    assert said == (
        f'reward.url={judge.url} answered 429 Too Many Requests: "quota"; '
        "asked about 3 samples (the first prompt: 'Hi')"
    )
    assert len(judge.asked) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 0.0), ("2.5", 2.5), ("-3", 0.0), ("nan", 0.0), ("inf", math.inf), ("soon", 0.0), ("", 0.0)],
)
def test_what_retry_after_can_say(header: str | None, seconds: float) -> None:
    assert seconds_asked_for(header) == seconds


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (saying("no", status=400), '400 Bad Request: "no"'),
        (Reply(404, b"\n  \n<h1>Nothing here</h1>\nmore"), "404 Not Found: <h1>Nothing here</h1>"),
        (Reply(422, b""), "422 Unprocessable"),
        (Reply(301, b"", {"Location": "/elsewhere"}), "301 Moved Permanently"),
        (Reply(499, b"\x1b[31mred\x1b[0m \xff"), "499: [31mred[0m \ufffd"),
        (Reply(403, b"x" * 1000), f"403 Forbidden: {'x' * 200}..."),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_a_refusal_is_not_tried_again(reply: Reply, said: str) -> None:
    with judging(reply, lengths) as judge, pytest.raises(UserError) as caught:
        http(judge, attempts=5, wait=0.0)(SAMPLES)
    assert not isinstance(caught.value, SourceFailure)
    assert str(caught.value).startswith(f"reward.url={judge.url} answered {said}")
    assert len(judge.asked) == 1


# Whatever else


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "answered what is no JSON"),
        (b"good", ": good;"),
        (b'{"scores": [1.0, NaN, 0.0]}', "NaN is none; null says that there is no opinion"),
        (b'{"scores": [1.0, 0.0, Infinity]}', "Infinity is none"),
        (b"[" * 100_000, "answered what is no JSON"),
        (b"[1.0, 0.0, 2.0]", 'expected {"scores": [...]}: [1.0, 0.0, 2.0]'),
        (b'{"scores": 3}', 'expected {"scores": [...]}'),
        (b'{"detail": "loading"}', 'expected {"scores": [...]}: {"detail": "loading"}'),
        (b'{"scores": [1.0, 0.0]}', "expected 3 scores, one a sample, got 2"),
        (b'{"scores": []}', "expected 3 scores, one a sample, got 0"),
        (b'{"scores": [1.0, "good", 0.0]}', 'score 2 of 3: expected a finite number or null, got "good"'),
        (b'{"scores": [1.0, 0.0, true]}', "score 3 of 3: expected a finite number or null, got true"),
        (b'{"scores": [1e999, 0.0, 0.0]}', "score 1 of 3: expected a finite number or null, got Infinity"),
        (b'{"scores": [1e39, 0.0, 0.0]}', "score 1 of 3"),  # infinite in float32
        (b'{"scores": [[1.0], 0.0, 0.0]}', "score 1 of 3: expected a finite number or null, got [1.0]"),
        (b'{"scores": [1.0, 0.0, 2.0', "answered what is no JSON"),
    ],
    ids=lambda value: str(value[:24]),
)
def test_what_is_no_answer_is_a_failure_and_never_0(body: bytes, said: str) -> None:
    with judging(Reply(body=body)) as judge:
        found = failing(judge)
    assert found.startswith(f"reward.url={judge.url}")
    assert said in found
    assert "asked about 3 samples (the first prompt: 'Hi')" in found


def test_half_an_answer_is_none() -> None:
    with judging(Reply(body=b'{"scores": [1.0, 0.0, 2.0]}', promised=1000)) as judge:
        assert "no answer: peer closed connection without sending complete message body" in failing(judge)


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:  # bound, but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/score"
        assert failing(url, attempts=2, wait=0.0) == (
            f"reward.url={url}: no answer: [Errno 111] Connection refused; "
            "asked about 3 samples (the first prompt: 'Hi'), tried 2 times"
        )


@pytest.mark.parametrize(
    "slow",
    [
        Reply(body=b'{"scores": [1.0, 0.0, 2.0]}', delay=5.0),
        Reply(body=b'{"scores": [1.0, 0.0, 2.0]}', drip=0.1),  # never silent for long, and never done
    ],
    ids=["late", "dripping"],
)
def test_a_slow_answer_is_not_waited_for(slow: Reply) -> None:
    with judging(slow) as judge:
        began = time.monotonic()
        assert f"reward.url={judge.url}: no answer within reward.timeout=0.3 seconds" in failing(
            judge, timeout=0.3
        )
        assert time.monotonic() - began < 2.0


def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedtune_plugins.remote.exchange.MOST_BYTES", 1000)
    with judging(Reply(body=b" " * 100_000)) as judge:
        assert "the answer is longer than 1000 bytes" in failing(judge)


def test_a_failure_is_missing_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with judging(saying("broken", status=500)) as judge:
        reward = guarded(http(judge), RewardCalls(attempts=2, wait=0.0, on_failure="missing"))
        assert score_samples(reward, SAMPLES).total.isnan().all()
    assert reward.metrics() == {"reward/failures": 2.0, "reward/retries": 1.0, "reward/missing": 3.0}
    assert len(judge.asked) == 2
    assert "answered 500 Internal Server Error" in capsys.readouterr().err


def test_a_refusal_stops_the_run_also_then() -> None:
    with judging(saying("who are you?", status=401)) as judge:
        reward = guarded(http(judge), RewardCalls(attempts=3, wait=0.0, on_failure="missing"))
        with pytest.raises(UserError, match='answered 401 Unauthorized: "who are you\\?"'):
            score_samples(reward, SAMPLES)
    assert len(judge.asked) == 1


# Replies that are kept


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    cache = str(tmp_path / "replies.sqlite")
    with judging(lengths) as judge:
        first = http(judge, cache=cache)(SAMPLES)
        again = http(judge, cache=cache)([SAMPLES[2], Sample("New", "x"), SAMPLES[0]])
        assert [len(samples) for samples in judge.asked] == [3, 1]
        assert judge.asked[1] == [{"prompt": "New", "response": "x"}]
        assert again.tolist() == [first[2], pytest.approx(1 / 7), first[0]]
        http(judge)(SAMPLES)
        assert len(judge.asked) == 3  # without a cache it is


@pytest.mark.parametrize(
    "other",
    [
        {"version": "2"},
        {"columns": ["level"]},
        {"url": "?other"},
    ],
    ids=["version", "columns", "url"],
)
def test_another_question_is_asked_anew(other: dict[str, Any], tmp_path: Path) -> None:
    samples = [Sample("Hi", "Ho", columns={"level": 1})]
    cache = str(tmp_path / "replies.sqlite")
    with judging(lengths) as judge:
        http(judge, cache=cache)(samples)
        chosen = {**other, "url": judge.url + other.get("url", "")}
        Http(cache=cache, attempts=1, **chosen)(samples)
        assert len(judge.asked) == 2


def test_no_opinion_is_an_answer_to_keep(tmp_path: Path) -> None:
    with judging(saying({"scores": [None]}), lengths) as judge:
        for _ in range(2):
            scores = http(judge, cache=str(tmp_path / "replies.sqlite"))([SAMPLES[0]])
            assert scores.isnan().tolist() == [True]
    assert len(judge.asked) == 1


def test_what_has_been_paid_for_is_kept_where_another_batch_fails(tmp_path: Path) -> None:
    """Three batches of one, one after another: the second fails, so the third is not even asked for."""
    cache = str(tmp_path / "replies.sqlite")
    with judging(lengths, saying("broken", status=500), lengths) as judge:
        options = {"cache": cache, "batch_size": 1, "concurrency": 1}
        failing(judge, **options)
        assert len(judge.asked) == 2
        assert http(judge, **options)(SAMPLES).tolist() == [1.0, 0.0, 2.0]
    assert [samples[0]["response"] for samples in judge.asked] == ["seven__", "", "", "fourteen______"]


def test_failures_are_not_kept(tmp_path: Path) -> None:
    with judging(saying({"scores": ["good"] * 3}), lengths) as judge:
        cache = str(tmp_path / "replies.sqlite")
        failing(judge, cache=cache)
        assert http(judge, cache=cache)(SAMPLES).tolist() == [1.0, 0.0, 2.0]


def test_a_damaged_cache_is_named_and_stops_the_run(tmp_path: Path) -> None:
    cache = tmp_path / "replies.sqlite"
    cache.write_text("no database\n" * 100)
    with judging(lengths) as judge:
        reward = guarded(http(judge, cache=str(cache)), RewardCalls(on_failure="missing"))
        with pytest.raises(UserError, match=r"^reward\.cache: .*replies\.sqlite is damaged"):
            score_samples(reward, SAMPLES)
    assert judge.asked == []


# Options


URL = "http://localhost/score"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "reward.url: expected http://HOST/PATH or https://HOST/PATH"),
        ({"url": "ftp://localhost/"}, "reward.url: expected http://HOST/PATH"),
        ({"url": "http://"}, "reward.url: expected http://HOST/PATH"),
        ({"url": "http://localhost:port/"}, "reward.url: expected http://HOST/PATH"),
        ({"url": "http://[::1/"}, "reward.url: expected http://HOST/PATH"),
        ({"url": "http://me:swordfish@localhost/"}, "reward.url: leave user and password out"),
        ({"url": "http://local\x00host/"}, "reward.url: "),
        ({"batch_size": 0}, "reward.batch_size: expected 1 or more, got 0"),
        ({"concurrency": 0}, "reward.concurrency: expected 1 or more, got 0"),
        ({"attempts": 0}, "reward.attempts: expected 1 or more, got 0"),
        ({"timeout": 0}, "reward.timeout: expected a number above 0, got 0"),
        ({"wait": -1}, "reward.wait: expected 0 or more, got -1"),
        ({"attempts": 1, "wait": 2.0}, "reward.wait: only reward.attempts above 1 has a use for it"),
        ({"version": "2"}, "reward.version: only reward.cache has a use for it"),
        ({"columns": ["prompt"]}, "reward.columns: 'prompt' of a sample is something else"),
        ({"columns": "reference"}, "reward.columns: expected a list, such as [reference], got text"),
    ],
    ids=str,
)
def test_a_bad_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Http(**{"url": URL, **options})
    assert str(caught.value).startswith(message)
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"referense": "a"},
            "reward.columns: row 0 (prompt 'Hi') has no column 'reference'; its columns are: referense. "
            "Did you mean 'referense'?",
        ),
        ({"reference": {1, 2}}, "JSON cannot say what column 'reference' holds (set: "),
        ({"reference": [math.inf]}, "JSON cannot say what column 'reference' holds (list: "),
    ],
)
def test_a_column_that_cannot_be_shown_is_the_users_to_mend(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        http(URL, columns=["reference"])([Sample("Hi", "Ho", columns=columns)])
    assert message in str(caught.value)
    assert not isinstance(caught.value, SourceFailure)


@pytest.mark.parametrize(("package", "attempts"), [("httpx", 1), ("tenacity", 2)])
def test_a_missing_package_is_named_with_its_extra(
    package: str, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as caught:
        http(URL, attempts=attempts)
    assert str(caught.value).startswith("reward=http")
    assert str(caught.value).endswith(
        f"needs the package '{package}'. Install it with: pip install 'feedtune[remote]'"
    )


def test_one_attempt_needs_no_tenacity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tenacity", None)
    with judging(lengths) as judge:
        assert http(judge)(SAMPLES).tolist() == [1.0, 0.0, 2.0]


def test_what_a_server_says_does_nothing_to_a_terminal() -> None:
    assert shown("a\x1b]0;title\x07b\u202e\tc") == "a]0;titlebc"
