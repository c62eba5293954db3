"""A judge behind chat completions: what it is asked, how it may misbehave, what it may cost."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from chat_judges import COMPLETION_TOKENS, PROMPT_TOKENS, chatting, completion
from feedtune.errors import UserError
from feedtune.judging import Question, Reply
from feedtune.rewards import SourceFailure
from feedtune_plugins.judges.ledger import Ledger
from feedtune_plugins.judges.openai import OpenAI
from judges import Judge, saying
from judges import Reply as Answer

NUMBER = Question(system="Rate it.", user="Hello!", words=("1", "2", "3"))
TEXT = Question(system="Say what is wrong.", user="Hello!")


def openai(judge: Judge | str, **options: Any) -> OpenAI:
    url = judge if isinstance(judge, str) else judge.url
    return OpenAI(**{"url": url, "model": "tiny", "attempts": 1, "timeout": 10.0, **options})


def ask(answer: Answer, question: Question = NUMBER, **options: Any) -> Reply:
    with chatting(answer) as judge:
        (reply,) = openai(judge, **options)([question])
    return reply


# What is asked and answered


def test_a_request_is_a_chat_completion() -> None:
    with chatting(completion("2")) as judge:
        openai(judge, answer_tokens=3, text_tokens=50, top_logprobs=5)([NUMBER, TEXT])
        openai(judge, top_logprobs=None)([NUMBER])
    said = {"model": "tiny", "temperature": 0.0}
    rated, written, plain = sorted(judge.asked[:2], key=lambda body: body["max_tokens"]) + judge.asked[2:]
    messages = [{"role": "system", "content": "Rate it."}, {"role": "user", "content": "Hello!"}]
    assert rated == {**said, "messages": messages, "max_tokens": 3, "logprobs": True, "top_logprobs": 5}
    assert written == {**said, "messages": TEXT.messages, "max_tokens": 50}
    assert plain == {**said, "messages": messages, "max_tokens": 8}


def test_the_probabilities_of_words_come_from_the_token_that_says_one() -> None:
    """ " 2" and "2" say the same: 0.5 + 0.1. What else could stand there says nothing."""
    likely = {" 2": 0.5, "2": 0.1, "3": 0.3, "Hm": 0.05}
    reply = ask(completion(" 2", likely))
    assert reply.weights == pytest.approx({"1": 0.0, "2": 0.6, "3": 0.3})
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == (
        " 2",
        PROMPT_TOKENS,
        COMPLETION_TOKENS,
    )


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        {"content": None},
        {"content": [{"token": "Hm", "logprob": -0.1, "top_logprobs": []}]},
        {"content": ["2", 2, {"top_logprobs": "none"}]},
        {"tokens": ["2"], "token_logprobs": [-0.1]},  # of the older kind of completions
    ],
    ids=str,
)
def test_probabilities_that_do_not_come_back_are_none(logprobs: Any) -> None:
    choice = {"message": {"content": "2"}, "logprobs": logprobs}
    assert ask(saying({"choices": [choice]})) == Reply(text="2")


def test_probabilities_above_1_are_1() -> None:
    token = {"token": "2", "logprob": 0.7, "top_logprobs": [{"token": "3", "logprob": -math.inf}]}
    body = json.dumps({"choices": [{"message": {"content": "2"}, "logprobs": {"content": [token]}}]})
    assert ask(Answer(body=body.replace("-Infinity", "-1e999").encode())).weights == {
        "1": 0.0,
        "2": 1.0,
        "3": 0.0,
    }


def test_a_model_that_was_cut_off_while_it_thought_said_nothing() -> None:
    assert ask(completion(None)).text == ""


def test_equal_questions_are_asked_once() -> None:
    with chatting(completion("2")) as judge:
        source = openai(judge)
        assert [reply.text for reply in source([NUMBER, TEXT, NUMBER])] == ["2", "2", "2"]
        assert len(judge.asked) == 2
        tokens = 2.0 * (PROMPT_TOKENS + COMPLETION_TOKENS)
        assert source.counts() == {"requests": 2.0, "tokens": tokens, "cost": 0.0}
        assert source.counts() == {"requests": 0.0, "tokens": 0.0, "cost": 0.0}


def test_answers_come_back_in_the_order_of_the_questions() -> None:
    def echo(body: Any) -> Answer:
        text = body["messages"][1]["content"]
        return completion(text, delay=0.05 if text == "0" else 0.0)

    questions = [Question(system="", user=str(number)) for number in range(6)]
    with chatting(echo) as judge:
        replies = openai(judge, concurrency=3)(questions)
    assert [reply.text for reply in replies] == list("012345")
    assert 1 < judge.most_at_once <= 3


def test_the_token_of_the_environment_is_sent_and_shown_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "swordfish-12345")
    refusal = saying({"error": "no such key: swordfish-12345"}, status=401)
    with chatting(completion("2"), refusal) as judge:
        source = openai(judge, token_env="JUDGE_KEY")
        source([NUMBER])
        assert judge.headers[0]["Authorization"] == "Bearer swordfish-12345"
        with pytest.raises(UserError) as caught:
            source([TEXT])
    assert "answered 401 Unauthorized" in str(caught.value)
    assert "swordfish" not in str(caught.value) + repr(source)


# A server that misbehaves


@pytest.mark.parametrize(
    "trouble",
    [
        saying("too many", status=429),
        saying("broken", status=500),
        Answer(body=b"<html>Bad gateway</html>"),
        Answer(body=b'{"choices": [', promised=100),
        saying({"choices": []}),
        saying({"error": {"message": "loading"}}),
        saying({"choices": [{"message": {"content": 7}}]}),
        saying({"choices": [{"text": "2"}]}),
        saying(["2"]),
    ],
    ids=lambda reply: f"{reply.status} {reply.body[:32]!r}",
)
def test_what_may_pass_is_tried_again(trouble: Answer) -> None:
    with chatting(trouble, trouble, completion("3")) as judge:
        (reply,) = openai(judge, attempts=3, wait=0.0)([NUMBER])
    assert reply.text == "3"
    assert len(judge.asked) == 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (saying("broken", status=500), ' answered 500 Internal Server Error: "broken"'),
        (Answer(body=b"[1,"), " answered what is no JSON (Expecting value: line 1 column 4 (char 3)): [1,"),
        (saying({"detail": "loading"}), ': expected {"choices": [...]}: {"detail": "loading"}'),
        (saying({"choices": [{}]}), ': expected {"message": {"content": ...}}: {}'),
    ],
)
def test_what_fails_for_good_says_about_what(answer: Answer, said: str) -> None:
    with chatting(answer) as judge, pytest.raises(SourceFailure) as caught:
        openai(judge, attempts=2, wait=0.0)([NUMBER])
    asked = "; asked about what begins 'Hello!', tried 2 times"
    assert str(caught.value) == f"judge.url={judge.url}{said}{asked}"


def test_a_slow_server_is_not_waited_for() -> None:
    with chatting(completion("2", delay=5.0)) as judge:
        began = time.monotonic()
        with pytest.raises(SourceFailure, match=r"no answer within judge\.timeout=0\.3 seconds"):
            openai(judge, timeout=0.3)([NUMBER])
        assert time.monotonic() - began < 2.0


def test_a_server_without_logprobs_is_named_with_what_to_do() -> None:
    refusal = saying({"detail": "Unsupported fields: {'logprobs', 'top_logprobs'}"}, status=422)
    with chatting(refusal) as judge, pytest.raises(UserError) as caught:
        openai(judge)([NUMBER])
    assert str(caught.value).endswith("; a server without logprobs needs judge.top_logprobs=null")
    assert not isinstance(caught.value, SourceFailure)


# Replies that are kept


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    cache = str(tmp_path / "replies.sqlite")
    with chatting(completion("2", {"2": 0.5, "3": 0.25}), completion("1")) as judge:
        first = openai(judge, cache=cache)([NUMBER])
        again = openai(judge, cache=cache)
        assert again([NUMBER]) == first
        assert again.counts()["requests"] == 0
        assert len(judge.asked) == 1
        others = {"model": "large", "version": "2", "top_logprobs": 3, "answer_tokens": 9}
        for name, value in others.items():
            openai(judge, cache=cache, **{name: value})([NUMBER])
        openai(judge, cache=cache)([Question(system="Rate it.", user="Hello!", words=("1", "2"))])
        assert len(judge.asked) == 1 + len(others) + 1


def test_what_is_no_completion_is_not_kept(tmp_path: Path) -> None:
    with chatting(saying({"choices": []}), completion("2")) as judge:
        source = openai(judge, cache=str(tmp_path / "replies.sqlite"))
        with pytest.raises(SourceFailure):
            source([NUMBER])
        assert source([NUMBER])[0].text == "2"


# Money


PRICES = {"prompt_price": 10_000.0, "completion_price": 50_000.0}
EACH = 1.1
"""100 tokens of a question at 0.01, 2 of an answer at 0.05."""


def questions(count: int) -> list[Question]:
    return [Question(system="", user=f"{number}") for number in range(count)]


def test_tokens_and_cost_are_counted() -> None:
    with chatting(completion("2")) as judge:
        source = openai(judge, **PRICES)
        source(questions(3))
    assert source.counts() == {"requests": 3.0, "tokens": 306.0, "cost": pytest.approx(3 * EACH)}


def test_a_reply_that_is_no_completion_is_paid_for_too() -> None:
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS}
    with chatting(saying({"choices": [], "usage": usage})) as judge:
        source = openai(judge, attempts=3, wait=0.0, **PRICES)
        with pytest.raises(SourceFailure):
            source([NUMBER])
    assert source.counts()["cost"] == pytest.approx(3 * EACH)


def test_nothing_is_asked_beyond_the_budget(tmp_path: Path) -> None:
    """1.1 each: after two requests 2.2 of 2 has been spent; the third is not begun, nor by a later run."""
    ledger, cache = tmp_path / "spending.jsonl", str(tmp_path / "replies.sqlite")
    options = {**PRICES, "budget": 2.0, "ledger": str(ledger), "cache": cache, "concurrency": 1}
    with chatting(completion("2")) as judge:
        for _ in range(2):
            with pytest.raises(UserError) as caught:
                openai(judge, **options)(questions(5))
            assert not isinstance(caught.value, SourceFailure)
            assert len(judge.asked) == 2
        assert str(caught.value) == (
            f"judge.budget: 2.2 of 2 has been spent (noted in {ledger}); raise it to go on, nothing in the "
            "cache is paid for again"
        )
        assert len(openai(judge, **options)(questions(2))) == 2  # from the cache
        openai(judge, **{**options, "budget": 3.0})(questions(3))
        assert len(judge.asked) == 3
    (line, *more) = map(json.loads, ledger.read_text().splitlines())
    assert len(more) == 2
    assert line == {
        "model": "tiny",
        "prompt_tokens": 100,
        "completion_tokens": 2,
        "cost": pytest.approx(EACH),
    }


def test_requests_under_way_are_all_that_can_be_too_much() -> None:
    with chatting(completion("2", delay=0.05)) as judge:
        source = openai(judge, **PRICES, budget=1.0, concurrency=4)
        with pytest.raises(UserError, match=r"judge\.budget"):
            source(questions(20))
    assert 1 <= len(judge.asked) <= 4


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "judge.url: expected http://HOST/PATH or https://HOST/PATH"),
        ({"url": "http://me:swordfish@localhost/"}, "judge.url: leave user and password out"),
        ({"concurrency": 0}, "judge.concurrency: expected 1 or more, got 0"),
        ({"attempts": 0}, "judge.attempts: expected 1 or more, got 0"),
        ({"timeout": 0}, "judge.timeout: expected a number above 0, got 0"),
        ({"attempts": 1, "wait": 2.0}, "judge.wait: only judge.attempts above 1 has a use for it"),
        ({"version": "2"}, "judge.version: only judge.cache has a use for it"),
        ({"answer_tokens": 0}, "judge.answer_tokens: expected 1 or more, got 0"),
        ({"text_tokens": 0}, "judge.text_tokens: expected 1 or more, got 0"),
        ({"top_logprobs": 0}, "judge.top_logprobs: expected 1 or more, got 0"),
        ({"prompt_price": -1.0}, "judge.prompt_price: expected at least 0, got -1.0"),
        ({"completion_price": math.nan}, "judge.completion_price: expected at least 0, got nan"),
        ({"prompt_price": 1.0, "budget": 0.0}, "judge.budget: expected a number above 0, got 0.0"),
        ({"budget": 1.0}, "judge.budget: only judge.prompt_price or judge.completion_price has a use for it"),
        ({"token_env": "sk-swordfish"}, "judge.token_env: expected the NAME of an environment variable"),
    ],
    ids=str,
)
def test_a_bad_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        OpenAI(**{"url": "http://localhost/v1", "model": "tiny", **options})
    assert str(caught.value).startswith(message)
    assert "swordfish" not in str(caught.value)


# The ledger


def test_ledgers_of_several_processes_add_up(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "spending.jsonl"
    one, other = Ledger(str(file)), Ledger(str(file))
    assert one.total() == 0.0
    one.add({"cost": 1.0})
    other.add({"cost": 2.0})
    assert (one.total(), other.total(), Ledger(str(file)).total()) == (3.0, 3.0, 3.0)
    one.add({"cost": 0.5})
    assert (other.total(), other.total()) == (3.5, 3.5)


def test_a_line_that_was_left_half_way_counts_for_nothing(tmp_path: Path) -> None:
    file = tmp_path / "spending.jsonl"
    ledger = Ledger(str(file))
    ledger.add({"cost": 1.0})
    with file.open("a") as text:
        text.write('\n{"cost": 7')
    assert ledger.total() == 1.0
    ledger.add({"cost": 2.0})
    assert (ledger.total(), Ledger(str(file)).total()) == (3.0, 3.0)


def test_a_ledger_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^judge\.ledger: .*spending\.jsonl cannot be written: File exists"):
        Ledger(str(tmp_path / "file" / "spending.jsonl")).add({"cost": 1.0})
