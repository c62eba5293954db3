"""The page in a real browser, by mouse, by keys and on a phone; and attacked by what models say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from chromium import Browser, Page, chromium
from feedback_sites import Site, feedback_site, make_items
from feedtune.feedback import Answer, FeedbackStore, Role, item_of, now, response_of
from feedtune.feedback.web.serving import serve_in_thread
from hostile_texts import ATTACKS, DO, MARK

pytestmark = pytest.mark.browser

READY = "document.querySelector('#question') && !document.querySelector('#question').hidden"
FREE = "![...document.querySelectorAll('.actions button')].slice(0, -1).some(one => one.disabled)"
WORDS = "document.querySelector('#count').innerText + document.querySelector('#responses').innerText"
PRESSED = "document.querySelectorAll('.said *').forEach(one => one.click && one.click())"
UNLABELLED = (
    "[...document.querySelectorAll('input, textarea')].filter(e => !e.labels?.length && !e.ariaLabel)"
)
LOW = "[...document.querySelectorAll('.actions button')].filter(e => e.offsetHeight < 44)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


def at(browser: Browser, site: Site, role: Role = "rater", kind: str = "", phone: bool = False) -> Page:
    """Somebody new who has logged in by a link, and sees a question."""
    page = browser.page()
    page.sized(*((390, 844) if phone else (1200, 760)), phone)
    page.go(f"{site.url}/login#{site.store.add_account(role)[1]}")
    page.until(f"location.pathname === '/' && {READY}")
    if kind:
        page.go(f"{site.url}/?kind={kind}")
        page.until(READY)
    return page


def counted(page: Page, count: int) -> None:
    page.until(f"document.querySelector('#count').textContent.startsWith('{count} of') && {FREE}")


def test_the_token_is_typed_and_does_not_stay_in_the_address(browser: Browser, site: Site) -> None:
    page = browser.page()
    page.go(f"{site.url}/results")
    assert page.js("location.pathname") == "/login"
    page.type("wrong")
    page.press("Enter")
    page.until("document.querySelector('#status').textContent === 'nobody has this token'")
    page.type(site.store.add_account("rater")[1])
    page.press("Enter")
    page.until(f"location.pathname === '/' && {READY}")
    linked = at(browser, site)
    assert linked.js("location.href") == f"{site.url}/"
    linked.click("summary")
    linked.click("#logout")
    linked.until("location.pathname === '/login'")
    linked.go(site.url)
    assert linked.js("location.pathname") == "/login"


@pytest.mark.parametrize("phone", [False, True])
def test_comparing_by_pressing_and_a_double_click_counts_once(
    browser: Browser, site: Site, phone: bool
) -> None:
    page = at(browser, site, phone=phone)
    left, right = page.text(".card:nth-child(1) .said"), page.text(".card:nth-child(2) .said")
    page.click("[data-value=b]", times=2)
    counted(page, 1)
    [kept] = site.store.answers()
    texts = {one.id: one.text for one in site.store.item(kept.item).responses}
    assert (kept.value, [texts[name] for name in kept.responses]) == ("b", [left, right])
    page.click("[data-value=tie]")
    counted(page, 2)
    page.click("[data-value=both_bad]")
    page.until("!document.querySelector('#done').hidden")
    assert [one.value for one in site.store.answers()] == ["b", "tie", "both_bad"]
    page.click("#undo")  # the last one can be taken back, too
    counted(page, 2)
    assert [one.value for one in site.store.answers()] == ["b", "tie"]


def test_comparing_by_keys_with_tags_and_undo(browser: Browser, site: Site) -> None:
    page = at(browser, site)
    asked = page.text("#prompt")
    page.click(".more summary")
    page.click("#tags")
    page.type("rude, off topic ")
    page.press("x")  # typed, not pressed
    page.js("document.activeElement.blur()")
    page.press("ArrowLeft")
    counted(page, 1)
    [kept] = site.store.answers()
    assert (kept.value, kept.tags) == ("a", ("rude", "off topic x"))
    page.press("u")
    counted(page, 0)
    assert page.js("document.querySelector('#undo').disabled")
    assert (site.store.answers(), page.text("#prompt")) == ([], asked)
    for count, key in enumerate("tsb", 1):
        page.press(key)
        if count < 3:
            counted(page, count)
    page.until("!document.querySelector('#done').hidden")
    assert [(one.value, one.tags) for one in site.store.answers()] == [("tie", ()), ("skip", ()), ("b", ())]


def test_rating_editing_and_commenting(browser: Browser, site: Site) -> None:
    page = at(browser, site, kind="rating")
    page.press("s")  # not this one
    page.until("document.querySelector('#status').textContent === 'Skipped.' && " + FREE)
    page.press("4")
    counted(page, 1)
    page.go(f"{site.url}/?kind=edit")
    page.until(READY)
    assert page.js("document.querySelector('#edited').value") == page.text(".card .said")
    page.js("document.querySelector('#edited').select()")
    page.type("Well said.\nAnd kindly.")
    page.press("Enter", ctrl=True)
    counted(page, 1)
    page.click(".card .quiet")
    page.type("too long")
    page.click(".card form button", times=2)
    page.until("document.querySelector('#status').textContent === 'Comment saved.'")
    kept = site.store.answers()
    assert [(one.kind, one.value) for one in kept] == [
        ("rating", 4),
        ("edit", "Well said.\nAnd kindly."),
        ("comment", "too long"),
    ]


def test_a_question_that_does_not_come_leaves_nothing_to_answer(browser: Browser, site: Site) -> None:
    """Else the next press would be about the question before, whose answer is known already."""
    page = at(browser, site)
    page.js(
        "const real = fetch; window.fetch = (path, ...more) => "
        "path.startsWith('/api/next') ? Promise.reject(1) : real(path, ...more)"
    )
    page.press("a")
    page.until("document.querySelector('#status').textContent.endsWith('again for the next question.')")
    assert page.text("#status").startswith("Saved. The server does not answer.")
    assert page.js("document.querySelector('#question').hidden")
    page.press("b")
    page.go(site.url)
    page.until(READY)
    assert [one.value for one in site.store.answers()] == ["a"]


def test_an_answer_waits_for_a_server_that_has_gone(browser: Browser, tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    store.add(make_items())
    with serve_in_thread(store) as url:
        page = browser.page()
        page.go(f"{url}/login#{store.add_account('rater')[1]}")
        page.until(f"location.pathname === '/' && {READY}")
    page.press("a")
    page.until("document.querySelector('#status').textContent.startsWith('Not saved yet')")
    page.press("a")  # in vain: one is on its way
    assert store.answers() == []
    with serve_in_thread(store, port=int(url.rpartition(":")[2])):
        counted(page, 1)
        assert len(store.answers()) == 1


@pytest.mark.parametrize("phone", [False, True])
def test_every_page_fits_its_window(browser: Browser, site: Site, phone: bool) -> None:
    site.store.add(
        [item_of("w" * 300, [response_of("w" * 300, text * 90) for text in ("long ", "unbroken")])]
    )
    page = at(browser, site, "admin", phone=phone)
    for path in ("/", "/?kind=rating", "/?kind=edit", "/results", "/login"):
        page.go(f"{site.url}{path}")
        if "login" not in path and "results" not in path:
            page.until(READY)
        assert page.js("document.documentElement.scrollWidth") <= (390 if phone else 1200), path
        assert page.js(f"{UNLABELLED}.length") == 0, path
        assert page.js(f"{LOW}.length") == 0, path
        elsewhere = f"performance.getEntriesByType('resource').filter(e => !e.name.startsWith('{site.url}/'))"
        assert page.js(f"{elsewhere}.length") == 0, path


def test_everything_of_mine_goes_when_i_say_so(browser: Browser, site: Site) -> None:
    page = at(browser, site)
    page.press("a")
    counted(page, 1)
    page.js("window.confirm = () => true")
    page.click(".account summary")
    page.click("#forget")
    page.until("location.pathname === '/login'")
    assert (site.store.answers(), site.store.accounts()) == ([], [])


def hostile_store(store: FeedbackStore) -> None:
    """Attacks wherever text comes from: prompts, conversations, responses, runs, raters, tags."""
    for n, one in enumerate(ATTACKS):
        texts = (one, one[::-1] + one)
        said = [response_of(one, text, run=f"{m}{one}") for m, text in enumerate(texts)]
        chat = [{"role": one, "content": one}] if n % 2 else []
        item = item_of(one, said, messages=chat)
        store.add([item])
        ids = tuple(response.id for response in said)
        rater = "".join(filter(str.isprintable, one)).strip()[:200]
        store.answer(
            Answer(
                id=str(n), item=item.id, kind="comparison", responses=ids, value="a", rater=rater, time=now()
            )
        )


def owned(page: Page) -> bool:
    return bool(page.js(f"document.documentElement.hasAttribute({json.dumps(MARK)})"))


@pytest.mark.parametrize("guarded", [False, True])
def test_no_text_of_a_model_runs(browser: Browser, tmp_path: Path, guarded: bool) -> None:
    """Without the page's policy, so that escaping alone has to hold; and with it, where nothing else does."""
    with feedback_site(tmp_path, []) as site:
        hostile_store(site.store)
        page = at(browser, site, "admin")
        page.call("Page.setBypassCSP", enabled=not guarded)
        seen = set()
        for kind, key in (("comparison", "a"), ("rating", "3"), ("edit", "s")):
            page.go(f"{site.url}/?kind={kind}")
            for _ in range(len(ATTACKS)):
                page.until(f"{READY} || !document.querySelector('#done').hidden")
                before = page.js(WORDS)
                seen.add(page.js("document.querySelector('#prompt').textContent"))
                page.js(PRESSED)
                assert not owned(page)
                page.press(key)
                page.until(f"!document.querySelector('#done').hidden || ({WORDS}) !== {json.dumps(before)}")
        assert len(seen) >= len(ATTACKS)
        page.go(f"{site.url}/results")
        assert not owned(page)
        # The control: put in as markup, an attack does leave its mark, unless the policy is there.
        attack = json.dumps(f"<img src=x onerror={DO}>")
        page.js(f"document.body.insertAdjacentHTML('beforeend', {attack})")
        if not guarded:
            page.until(f"document.documentElement.hasAttribute({json.dumps(MARK)})")
        else:
            page.js("new Promise(go => setTimeout(go, 300))")
            assert not owned(page)
