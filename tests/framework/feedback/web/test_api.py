"""What programs and the page's own script ask: questions, answers, progress, over real HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from feedback_sites import Site, body_of, feedback_site, make_items
from feedtune.feedback import item_of, response_of
from feedtune.feedback.asking.choosing import Key, Question


def test_a_rater_is_asked_everything_and_every_answer_is_kept(site: Site) -> None:
    rater = site.visitor("rater")
    shown = []
    for n in range(3):
        question = rater.asked()
        assert (question["answered"], question["questions"]) == (n, 3)
        shown.append((question["item"]["id"], tuple(one["id"] for one in question["responses"])))
        assert rater.answer(question, "b", tags=["short", "rude"]).json() == {"new": True}
    over = rater.asked()
    assert (over["item"], over["answer"], over["responses"]) == (None, None, [])
    kept = site.store.answers()
    assert [(one.item, one.responses) for one in kept] == shown  # in the order in which they were shown
    assert {(one.kind, one.value, one.by, one.tags) for one in kept} == {
        ("comparison", "b", "person", ("short", "rude"))
    }


def test_what_is_shown_does_not_say_who_said_it_nor_the_solution(tmp_path: Path) -> None:
    secret = item_of("1+1?", [response_of("1+1?", "2", run="CANARY")], columns={"reference": "CANARY"})
    with feedback_site(tmp_path, [secret]) as site:
        rater = site.visitor("rater")
        for path in ("/", "/api/next?kind=rating", "/api/progress", "/api/mine"):
            assert "CANARY" not in rater.get(path).text


def test_a_double_click_counts_once_and_a_change_of_mind_replaces(site: Site) -> None:
    rater = site.visitor("rater")
    question = rater.asked()
    assert [rater.answer(question, "a").json()["new"] for _ in range(3)] == [True, False, False]
    assert rater.answer(question, "b").json() == {"new": False}  # the same click, whatever it says now
    assert [one.value for one in site.store.answers()] == ["a"]
    assert rater.delete(f"/api/answers/{question['answer']}").json() == {"retracted": True}
    assert site.store.answers() == []
    again = rater.asked()
    assert again["item"] == question["item"]  # asked again, under a new id
    assert rater.answer(again, "b").json() == {"new": True}
    assert [one.value for one in site.store.answers()] == ["b"]


@pytest.mark.parametrize(("kind", "value"), [("rating", 4), ("rating", 2.5), ("edit", "Much better.")])
def test_one_response_is_rated_or_edited(site: Site, kind: str, value: str | float) -> None:
    rater = site.visitor("rater")
    question = rater.asked(kind)
    assert question["questions"] == 6
    assert len(question["responses"]) == 1
    assert rater.answer(question, value).json() == {"new": True}
    [kept] = site.store.answers()
    assert (kept.kind, kept.value, len(kept.responses)) == (kind, value, 1)
    passed = rater.asked(kind)
    other = rater.asked(kind, skip=[one["id"] for one in passed["responses"]])
    assert other["responses"] != passed["responses"]


def test_comments_of_a_rater_all_stay(site: Site) -> None:
    rater = site.visitor("rater")
    item = site.store.items()[0]
    for text in ("odd", "very odd"):
        where = {"item": item.id, "response": item.responses[0].id}
        ticket = rater.get("/api/ticket", params=where).json()["answer"]
        body = {"answer": ticket, "kind": "comment", "responses": [where["response"]], "value": text}
        assert rater.post("/api/answers", json={**body, "item": item.id}).json() == {"new": True}
    assert [one.value for one in site.store.answers(["comment"])] == ["odd", "very odd"]
    lost = rater.get("/api/ticket", params={"item": item.id, "response": "none"})
    assert (lost.status_code, lost.json()["error"]) == (
        400,
        "response: the item has none with the id 'none'",
    )


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"value": "c"}, 400, "expected one of a, b, tie, both_bad, skip"),
        ({"value": 3}, 400, "expected one of"),
        ({"value": True}, 422, "value"),
        ({"value": None}, 422, "value"),
        ({"value": "x" * 50_001}, 422, "at most 50000 characters"),
        ({"kind": "rating"}, 400, "was not given to you"),
        ({"kind": "opinion"}, 422, "kind"),
        ({"by": "judge"}, 422, "by"),
        ({"tags": ["x"] * 21}, 422, "tags"),
        ({"tags": ["a\nb"]}, 400, "a tag"),
        ({"responses": []}, 422, "responses"),
        ({"item": "another"}, 400, "was not given to you"),
        ({"answer": "made-up"}, 400, "was not given to you"),
        ({"rater": "somebody"}, 422, "Extra inputs"),
    ],
)
def test_what_is_no_answer_is_refused_by_name(
    site: Site, changes: dict[str, object], status: int, says: str
) -> None:
    rater = site.visitor("rater")
    reply = rater.post("/api/answers", json=body_of(rater.asked(), "a") | changes)
    assert (reply.status_code, site.store.answers()) == (status, [])
    assert says in reply.json()["error"]


def test_progress_is_of_oneself_and_for_admins_of_all(site: Site) -> None:
    rater, admin = site.visitor("rater"), site.visitor("admin")
    rater.answer(rater.asked(), "a")
    mine = rater.get("/api/progress").json()
    assert mine["kinds"]["comparison"] == {"questions": 3, "answered": 1}
    everything = admin.get("/api/progress").json()
    assert everything["kinds"]["comparison"] == {"questions": 3, "answered": 0, "answers": 1}


def test_results_are_what_the_answers_say(site: Site) -> None:
    admin = site.visitor("admin")
    empty = admin.get("/results").text
    assert "No two runs have been compared yet." in empty
    for _ in range(2):  # two raters who always prefer run x
        rater = site.visitor("rater")
        for _ in range(3):
            question = rater.asked()
            item = site.store.item(question["item"]["id"])
            best = next(one.id for one in item.responses if one.run == "x")
            rater.answer(question, "a" if question["responses"][0]["id"] == best else "b")
    found = admin.get("/api/results").json()
    assert found["progress"]["comparison"] == {"questions": 3, "answered": 3, "answers": 6}
    assert found["agreement"]["all raters"]["comparison"]["percent"] == 100.0
    x, y = found["leaderboards"]["person"]
    assert (x["run"], x["wins"], y["run"], y["wins"]) == ("x", 6.0, "y", 0.0)
    assert sorted(one["answers"] for one in found["raters"]) == [3, 3]
    page = admin.get("/results").text
    assert page.index("<bdi>x</bdi>") < page.index("<bdi>y</bdi>")
    assert "By people" in page


def test_events_come_from_loggers(site: Site) -> None:
    _, token = site.store.add_account("logger")
    program = site.visitor()
    program.headers["authorization"] = f"Bearer {token}"
    response = site.store.items()[0].responses[0].id
    event = {"id": "e1", "response": response, "kind": "click", "time": "2026-01-31T12:00:00Z"}
    sent = [program.post("/api/events", json={"events": [event]}).json() for _ in range(2)]
    assert sent == [{"new": 1}, {"new": 0}]
    assert [one.kind for one in site.store.events([response])] == ["click"]
    wrong = program.post("/api/events", json={"events": [event, event | {"time": "yesterday"}]})
    assert (wrong.status_code, "events[1]: time" in wrong.json()["error"]) == (400, True)
    assert program.get("/api/next").status_code == 403  # it answers no questions
    assert program.get("/").status_code == 403


def test_what_others_add_meanwhile_is_asked_too(tmp_path: Path) -> None:
    with feedback_site(tmp_path, make_items(1)) as site:
        rater = site.visitor("rater")
        rater.answer(rater.asked(), "tie")
        assert rater.asked()["item"] is None
        site.store.add(make_items(2))
        assert rater.asked()["item"]["prompt"] == "Prompt 1?"


def test_the_most_informative_question_comes_first(tmp_path: Path) -> None:
    def worth(asked: Sequence[Question]) -> dict[Key, float]:
        return {one.key: float("4" in one.item.prompt) for one in asked}

    with feedback_site(tmp_path, make_items(9), worth=worth) as site:
        assert site.visitor("rater").asked()["item"]["prompt"] == "Prompt 4?"


def test_text_of_every_kind_comes_through(tmp_path: Path) -> None:
    text = "line\nline \ud800 \u202e \x00 \N{GRINNING FACE} <b>"
    with feedback_site(tmp_path, [item_of(text, [response_of(text, text)])]) as site:
        question = site.visitor("rater").asked("edit")
        assert question["item"]["prompt"] == question["responses"][0]["text"] == text


def test_a_rater_can_see_and_delete_everything_of_theirs(site: Site) -> None:
    rater, other = site.visitor("rater"), site.visitor("rater")
    for one in (rater, other):
        one.answer(one.asked(), "a")
    mine = rater.get("/api/mine").json()
    assert [one["value"] for one in mine["answers"]] == ["a"]
    assert {one["rater"] for one in mine["answers"]} == {mine["account"]["pseudonym"]}
    assert rater.delete("/api/mine").json() == {"deleted": 1}
    assert rater.get("/api/progress").status_code == 401  # the login is gone
    assert len(site.store.answers()) == 1
