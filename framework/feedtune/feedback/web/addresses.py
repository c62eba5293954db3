"""Where the page listens, and how it is found there."""

from __future__ import annotations

import errno
import socket

from feedtune.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine that no other can reach."""

BACKLOG = 128  # connections that wait to be taken


def listening(host: str, port: int, name: str = "feedback") -> socket.socket:
    """A socket that listens; port 0: a free one.

    Args:
        host, port: where.
        name: of the config's node that says so, for messages.

    Raises:
        UserError: there is no such address here, or it is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Only of sockets with this number asyncio switches off Nagle's wait of 40 ms a reply.
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, OverflowError) as error:
        raise UserError(f"{name}.host: cannot listen on {host}: {error}") from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        taken = error.errno == errno.EADDRINUSE
        key, hint = ("port", f"; {name}.port=0 takes a free one") if taken else ("host", "")
        raise UserError(
            f"{name}.{key}: cannot listen on {host}, port {port}: {error.strerror}{hint}"
        ) from error
    return found


def url_of(taken: socket.socket) -> str:
    """Where to find what listens there."""
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
