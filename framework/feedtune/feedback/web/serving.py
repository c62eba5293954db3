"""The server of the page: in front of a person, or in a thread beside other work."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from feedtune.errors import UserError, missing_extra
from feedtune.feedback.storage.store import FeedbackStore
from feedtune.feedback.web.addresses import listening, url_of

if TYPE_CHECKING:
    import uvicorn

MOST_CONNECTIONS = 256  # at once
PATIENCE = 30.0  # seconds for a server to begin or to end


def require_server(needed_by: str) -> None:
    """Refuse to begin what will serve the page, where the packages for it are not installed.

    Raises:
        UserError: naming the extra that brings them.
    """
    try:
        import uvicorn  # noqa: F401

        import feedtune.feedback.web.app  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra(str(error.name), "feedback", needed_by) from error


def make_server(store: FeedbackStore, **options: Any) -> uvicorn.Server:
    """A server of the page, not yet running.

    Args:
        store: what is asked and answered.
        options: of `feedtune.feedback.web.app.create_app`.

    Raises:
        UserError: the extra `feedback` is not installed, or the store cannot be used.
    """
    require_server("feedtune feedback serve")
    import uvicorn

    from feedtune.feedback.web.app import create_app

    config = uvicorn.Config(
        create_app(store, **options),
        access_log=False,
        lifespan="off",
        limit_concurrency=MOST_CONNECTIONS,
        log_level="error",
        proxy_headers=False,  # anybody can write them, and addresses are what tries are counted by
        server_header=False,
        timeout_graceful_shutdown=5,
        ws="none",
    )
    return uvicorn.Server(config)


@contextmanager
def serve_in_thread(
    store: FeedbackStore, *, host: str = "127.0.0.1", port: int = 0, name: str = "feedback", **options: Any
) -> Iterator[str]:
    """Inside of the block the page is served, by a thread of this process; yields its URL.

    Args:
        store: what is asked and answered; other processes may add to it meanwhile.
        host, port: where to listen; port 0 takes a free one.
        name: of the config's node that says where, for messages.
        options: of `feedtune.feedback.web.app.create_app`.

    Raises:
        UserError: the address is taken, the extra `feedback` is missing, or the store cannot be used.

        with serve_in_thread(FeedbackStore("feedback.sqlite")) as url:
            httpx.get(f"{url}/login")
    """
    server = make_server(store, **options)
    with contextlib.closing(listening(host, port, name)) as taken:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        try:
            _wait_for(server, thread)
            yield url_of(taken)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


def _wait_for(server: uvicorn.Server, thread: threading.Thread) -> None:
    end = time.monotonic() + PATIENCE
    while not server.started:
        if not thread.is_alive() or time.monotonic() > end:
            raise UserError("feedback.port: the server did not begin")
        time.sleep(0.01)
