"""Several commands in one process: `python session.py` runs them and prints what they said, as JSON.

Its standard input is a JSON list of command lines of feedtune; one that begins with "pytest" runs tests. The
last line that it prints has of each the exit code, standard output and standard error.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys


def said(arguments: list[str]) -> dict[str, object]:
    """Run one command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = called(arguments)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def called(arguments: list[str]) -> int:
    """The exit code of a command."""
    if arguments[0] == "pytest":
        import pytest

        return int(pytest.main(arguments[1:]))
    from feedtune.cli import main

    return main(arguments)


if __name__ == "__main__":
    print("\n" + json.dumps([said(command) for command in json.load(sys.stdin)]))
