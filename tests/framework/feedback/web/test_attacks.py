"""The server as an attacker meets it: no login, another's, another page's request, too much, too often."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from feedback_sites import Site, Visitor, body_of, feedback_site
from feedtune.feedback.web import api, pages
from feedtune.feedback.web.app import TRIES_A_MINUTE
from feedtune.feedback.web.guards import LONGEST_OTHER_BODY
from feedtune.feedback.web.tickets import SESSION_SECONDS, Tickets

WRITING = [
    ("POST", "/api/answers"),
    ("POST", "/api/events"),
    ("POST", "/logout"),
    ("DELETE", "/api/mine"),
    ("DELETE", "/api/answers/x"),
]


def session_of(visitor: Visitor) -> tuple[str, str]:
    [(name, value)] = visitor.cookies.items()
    return name, value


# -- without a login ----------------------------------------------------------------------------------------


def test_every_address_but_the_login_wants_a_login(site: Site) -> None:
    """By enumeration, so that an address that is added is an address that is tested."""
    stranger, found = site.visitor(), set()
    for route in [*api.router.routes, *pages.router.routes]:
        assert isinstance(route, APIRoute)
        for method in route.methods:
            if route.path == "/login":
                continue
            found.add(route.path)
            reply = stranger.request(method, route.path.replace("{name}", "x"), json={})
            if route in pages.router.routes:
                assert (reply.status_code, reply.headers["location"]) == (303, "/login")
            else:
                assert reply.status_code == 401, (method, route.path)
    assert found >= {"/", "/results", "/api/next", "/api/answers", "/api/answers/{name}", "/api/mine"}
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert stranger.get(path).status_code == 404


def test_the_cookie_of_a_session_that_was_logged_out_of_lets_nobody_in(site: Site) -> None:
    leaving, other = site.visitor("rater"), site.visitor("rater")
    name, cookie = session_of(leaving)
    assert leaving.post("/logout", json={}).status_code == 200
    thief = site.visitor()
    thief.cookies.set(name, cookie)
    assert thief.get("/api/next").status_code == 401
    assert other.get("/api/next").status_code == 200


@pytest.mark.parametrize("token", ["", "x", "x" * 201, "' OR 1=1 --", "\ud800", "\x00"])
def test_tokens_that_are_none_let_nobody_in(site: Site, token: str) -> None:
    reply = site.visitor().post("/login", content=b'{"token": "%s"}' % token.encode("unicode_escape"))
    assert reply.status_code == 415  # and as JSON:
    reply = site.visitor().post("/login", json={"token": token}) if "\ud800" not in token else reply
    assert reply.status_code in (401, 415, 422)
    assert "set-cookie" not in reply.headers


def test_forged_old_and_revoked_sessions_are_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    rater = site.visitor("rater")
    name, cookie = session_of(rater)
    pseudonym, expires, number, seal = cookie.split(".")
    other = site.store.add_account("admin")[0]
    forged = [
        f"{other}.{expires}.{number}.{seal}",  # somebody else's name under my seal
        f"{pseudonym}.{int(expires) + 1}.{number}.{seal}",  # a longer life
        Tickets(bytes(32)).session(pseudonym),  # sealed under another secret
        f"{pseudonym}.{expires}.{number}.",
        cookie[:-1],
        "...",
        "x",
        "\u00e9.\u00e9.\u00e9.\u00e9".encode().decode("latin-1"),
    ]
    for one in forged:
        headers = {b"cookie": f"{name}={one}".encode("latin-1")}
        assert site.visitor().get("/api/progress", headers=headers).status_code == 401, one
    assert rater.get("/api/progress").status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr("feedtune.feedback.web.tickets.time.time", lambda: int(expires) + 0.5)
        assert rater.get("/api/progress").status_code == 401
    assert 0 < SESSION_SECONDS <= 24 * 3600
    site.store.revoke(pseudonym)
    assert rater.get("/api/progress").status_code == 401


def test_sessions_and_questions_outlive_a_restarted_server(tmp_path: Path) -> None:
    with feedback_site(tmp_path) as site:
        rater = site.visitor("rater")
        question, csrf, (_, cookie) = rater.asked(), rater.headers["x-csrf-token"], session_of(rater)
    with feedback_site(tmp_path) as again:
        port = again.url.rpartition(":")[2]
        headers = {"cookie": f"feedtune-{port}={cookie}", "x-csrf-token": csrf}
        reply = again.visitor().post("/api/answers", json=body_of(question, "a"), headers=headers)
        assert reply.json() == {"new": True}


# -- with another's login -----------------------------------------------------------------------------------


def test_roles_reach_what_is_theirs(site: Site) -> None:
    rater, admin, logger = (site.visitor(role) for role in ("rater", "admin", "logger"))  # type: ignore[arg-type]
    allowed = {
        "/api/next": (200, 200, 403),
        "/api/progress": (200, 200, 403),
        "/api/mine": (200, 200, 403),
        "/api/results": (403, 200, 403),
        "/results": (403, 200, 403),
        "/": (200, 200, 403),
    }
    for path, codes in allowed.items():
        assert tuple(one.get(path).status_code for one in (rater, admin, logger)) == codes, path
    event = {"id": "e", "response": "r", "kind": "click", "time": "2026-01-31T12:00:00Z"}
    sent = [one.post("/api/events", json={"events": [event]}).status_code for one in (rater, admin, logger)]
    assert sent == [403, 200, 200]


def test_nobody_answers_in_anothers_place_or_takes_their_answer_back(site: Site) -> None:
    ann, bob = site.visitor("rater"), site.visitor("rater")
    question = ann.asked()
    stolen = bob.answer(question, "a")
    assert (stolen.status_code, site.store.answers()) == (400, [])
    ann.answer(question, "a")
    assert bob.delete(f"/api/answers/{question['answer']}").json() == {"retracted": False}
    assert len(site.store.answers()) == 1
    turned = ann.asked()
    turned["responses"].reverse()  # not as it was shown
    assert ann.answer(turned, "a").status_code == 400
    assert [one["value"] for one in bob.get("/api/mine").json()["answers"]] == []


# -- from another page --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), WRITING)
def test_without_the_csrf_token_a_cookie_changes_nothing(site: Site, method: str, path: str) -> None:
    admin, other = site.visitor("admin"), site.visitor("admin")
    for csrf in ("", "0" * 32, other.headers["x-csrf-token"]):
        reply = admin.request(method, path, json={}, headers={"x-csrf-token": csrf})
        assert reply.status_code == 403
        assert "CSRF" in reply.json()["error"]
    assert len(site.store.accounts()) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},  # another port of this machine
        {"origin": "http://127.0.0.1.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_requests_of_other_pages_are_refused_whatever_they_bring(site: Site, headers: dict[str, str]) -> None:
    rater = site.visitor("rater")
    reply = rater.post("/api/answers", json=body_of(rater.asked(), "a"), headers=headers)
    assert (reply.status_code, site.store.answers()) == (403, [])
    token = site.store.add_account("rater")[1]
    assert site.visitor().post("/login", json={"token": token}, headers=headers).status_code == 403
    own = {"origin": site.url, "sec-fetch-site": "same-origin"}
    assert rater.post("/api/answers", json=body_of(rater.asked(), "a"), headers=own).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_what_a_form_elsewhere_can_send_is_not_read(site: Site, kind: str) -> None:
    token = site.store.add_account("rater")[1]
    content = b'{"token": "%s"}' % token.encode()
    reply = site.visitor().post("/login", content=content, headers={"content-type": kind})
    assert (reply.status_code, "set-cookie" in reply.headers) == (415, False)


def test_a_name_that_leads_here_from_elsewhere_is_refused(site: Site, tmp_path: Path) -> None:
    """DNS rebinding: a page of evil.example, whose name now means 127.0.0.1, would be of the same origin."""
    stranger = site.visitor()
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1].evil.example"):
        assert stranger.get("/login", headers={"host": host}).status_code == 421, host
    for host in ("localhost", "LOCALHOST:1", "[::1]:8765"):
        assert stranger.get("/login", headers={"host": host}).status_code == 200, host
    with feedback_site(tmp_path / "named", hosts=("feedback.example",)) as named:
        through = named.visitor()
        assert through.get("/login", headers={"host": "feedback.example:443"}).status_code == 200
        assert through.get("/login").status_code == 421


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(site: Site, tmp_path: Path) -> None:
    token = site.store.add_account("rater")[1]
    cookie = site.visitor().post("/login", json={"token": token}).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie  # plain HTTP on loopback would not send it back
    assert token.lower() not in cookie
    with feedback_site(tmp_path / "https", secure=True) as https:
        token = https.store.add_account("rater")[1]
        reply = https.visitor().post("/login", json={"token": token})
        assert "; secure" in reply.headers["set-cookie"].lower()


@pytest.mark.parametrize("path", ["/", "/login", "/results", "/api/next", "/static/style.css", "/nowhere"])
def test_every_reply_carries_the_security_headers(site: Site, path: str) -> None:
    for visitor in (site.visitor(), site.visitor("admin")):
        headers = visitor.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_pages_load_nothing_from_elsewhere(site: Site) -> None:
    admin = site.visitor("admin")
    for path in ("/", "/?kind=edit", "/results", "/login", "/static/style.css", "/static/ask.js"):
        text = admin.get(path).text.replace("http://www.w3.org/2000/svg", "")
        assert re.findall(r"(?:https?:)?//\w[^\s\"')]*\.\w+", text) == [], path


# -- too much, too often ------------------------------------------------------------------------------------


def test_long_bodies_are_not_read(site: Site) -> None:
    rater = site.visitor("rater")
    reply = rater.post("/api/answers", json=body_of(rater.asked("edit"), "x" * LONGEST_OTHER_BODY))
    assert (reply.status_code, site.store.answers()) == (413, [])
    nested = b"[" * 60_000
    deep = rater.post("/api/answers", content=nested, headers={"content-type": "application/json"})
    assert deep.status_code in (400, 422)
    assert rater.asked()["item"] is not None  # and it goes on


def test_a_body_that_does_not_end_is_cut(site: Site) -> None:
    """No Content-Length to go by: chunks, of which the server takes no more than it should."""
    address = site.url.removeprefix("http://")
    host, port = address.split(":")
    head = f"POST /login HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(3):
            line.sendall(chunk)
        assert line.recv(64).startswith(b"HTTP/1.1 413 ")


def test_tokens_cannot_be_tried_one_after_another(site: Site) -> None:
    stranger = site.visitor()
    codes = [stranger.post("/login", json={"token": f"guess {n}"}).status_code for n in range(15)]
    assert codes == [401] * TRIES_A_MINUTE + [429] * (15 - TRIES_A_MINUTE)
    by_header = stranger.get("/api/next", headers={"authorization": "Bearer guess"})
    assert by_header.status_code == 429  # another door, the same count
    assert int(by_header.headers["retry-after"]) >= 1
    forwarded = {"x-forwarded-for": "10.0.0.1", "forwarded": "for=10.0.0.1"}
    assert stranger.post("/login", json={"token": "guess"}, headers=forwarded).status_code == 429
    token = site.store.add_account("rater")[1]  # even the right one has to wait
    assert stranger.post("/login", json={"token": token}).status_code == 429


def test_one_login_cannot_ask_without_end(tmp_path: Path) -> None:
    with feedback_site(tmp_path, requests_a_minute=5) as site:
        greedy, modest = site.visitor("rater"), site.visitor("rater")
        codes = [greedy.get("/api/progress").status_code for _ in range(8)]
        assert codes == [200] * 5 + [429] * 3
        assert modest.get("/api/progress").status_code == 200


# -- where it should not lead -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static/....//app.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/..\\app.py",
        "/static/style.css%00.png",
        "/static/",
        "/static/../../../../../../etc/passwd",
    ],
)
def test_no_path_leads_out_of_the_static_folder(site: Site, path: str) -> None:
    host, port = site.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:  # no client that tidies paths up
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        said = b"".join(iter(lambda: line.recv(65536), b""))
    assert said.split(b" ", 2)[1] in (b"404", b"405", b"400"), said[:200]
    assert b"root:" not in said
    assert b"create_app" not in said


HOSTILE = "<script>owned()</script><img src=x onerror=owned()>\"'{{7*7}}"


def test_names_of_others_are_text_on_the_page_of_results(site: Site, tmp_path: Path) -> None:
    from feedtune.feedback import Answer, item_of, now, response_of

    item = item_of("Hi", [response_of("Hi", "1", run=HOSTILE), response_of("Hi", "2", run="y")])
    site.store.add([item])
    answer: dict[str, Any] = {"item": item.id, "kind": "comparison", "value": "a", "time": now()}
    ids = tuple(one.id for one in item.responses)
    site.store.answer(Answer(id="1", responses=ids, rater=HOSTILE, **answer))
    page = site.visitor("admin").get("/results").text
    assert "&lt;script&gt;owned()" in page
    assert "<script>owned" not in page
    assert "<img" not in page
    assert "7*7" in page
    assert ">49<" not in page


def test_errors_of_ours_tell_nothing_of_the_inside(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    rater = site.visitor("rater")

    def broken(*arguments: object, **named: object) -> None:
        raise RuntimeError("CANARY")

    monkeypatch.setattr("feedtune.feedback.web.desk.choose", broken)
    reply = rater.get("/api/next")
    assert reply.status_code == 500
    assert "CANARY" not in reply.text
    assert reply.json() == {"error": "the server has made a mistake; its terminal says which"}
