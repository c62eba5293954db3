"""A warm parent that forks a child for each command: nothing is imported twice, and each child can be killed.

Run as a program it is the parent: it imports everything, never runs autograd and keeps to one thread, without
which a fork is not safe. It reads one request a line and answers each with one line. `Nursery` is its client.

A child is the real command line (`feedtune.cli.main`) in a process of its own. It kills itself by SIGKILL
where the request says (`places`), or is killed by the parent after some seconds.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

TESTS = Path(__file__).resolve().parents[1]
NEEDED = ["feedtune.cli", "feedtune.commands.train", "feedtune.commands.resume", "feedtune.runs.training"]


@dataclass(frozen=True)
class Life:
    """How a command ended: the exit codes of its processes; negative for a signal, as in `subprocess`."""

    codes: tuple[int, ...]
    seconds: float
    log: Path

    @property
    def code(self) -> int:
        """The exit code of the first process."""
        return self.codes[0]

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return -signal.SIGKILL in self.codes

    def said(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-3000:]


class Nursery:
    """The client: `run` gives the parent one command and waits for its end."""

    def __init__(self, folder: Path) -> None:
        self.errors = (folder / "nursery.log").open("w")
        path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=_environment(PYTHONPATH=path, OMP_NUM_THREADS="1"),
            text=True,
        )
        self._ask({})  # warm

    def run(
        self,
        *arguments: str,
        log: Path,
        kill: Mapping[str, Any] | None = None,
        after: float | None = None,
        number: int = signal.SIGKILL,
        world: int = 1,
        limit: float = 120.0,
        **watch: Any,
    ) -> Life:
        """A command, in a child for each of `world` processes.

        Args:
            arguments: of the command line.
            log: takes what the command prints, behind what is there.
            kill: where the child kills itself (`places`).
            after: seconds until the parent kills it, or sends it the signal of this `number`.
            limit: seconds after which it is killed and this raises.
            watch: `journal` or `events`, files that the child notes in where it is (`places`).
        """
        request = {"arguments": arguments, "log": log, "kill": kill, "after": after, "world": world}
        request["number"] = int(number)
        answer = self._ask({**request, "limit": limit, **watch})
        life = Life(tuple(answer["codes"]), answer["seconds"], log)
        if answer["overdue"]:
            raise TimeoutError(f"{' '.join(arguments)} took longer than {limit} s:\n{life.said()}")
        return life

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request, default=str) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the nursery has died: {Path(self.errors.name).read_text()}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        """End the parent; it has no children left."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.close()


def _environment(**more: str) -> dict[str, str]:
    """That of this process, but for the service of W&B, which would outlive a child that is killed."""
    return {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"} | more


# The parent


def _serve(folder: Path) -> None:
    # Children print into their logs; the answers go where the parent's own output went.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            request = json.loads(line)
            answer = _raise_children(request) if request else _warm(folder)
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def _warm(folder: Path) -> dict[str, Any]:
    """Import whatever a tiny run imports: a child that trains says what that is."""
    import torch

    torch.set_num_threads(1)
    for name in NEEDED:
        importlib.import_module(name)
    found = folder / "modules.json"
    pid = os.fork()
    if pid == 0:
        with _leaving(folder / "warm.log"):
            _train_once(folder / "warm")
            found.write_text(json.dumps(sorted(sys.modules)))
    os.waitpid(pid, 0)
    if not found.exists():
        raise RuntimeError(f"the first run failed:\n{(folder / 'warm.log').read_text()}")
    for name in json.loads(found.read_text()):
        with contextlib.suppress(ImportError):  # a name that its package has made up
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or each child would look through all of it, and copy it so
    return {}


def _train_once(folder: Path) -> None:
    from feedtune.cli import main
    from small_runs import overrides, write_rows

    folder.mkdir()
    chosen = overrides(write_rows(folder), "lstm", "ppo", "report=false", f"hydra.run.dir={folder / 'run'}")
    if main(["train", *chosen]) != 0:
        raise RuntimeError("feedtune train failed")


def _raise_children(request: Mapping[str, Any]) -> dict[str, Any]:
    """Fork, and wait for the end of all; one that is killed takes the others with it."""
    began = time.perf_counter()
    port = _free_port() if request["world"] > 1 else 0
    running: dict[int, int] = {}  # process -> rank
    for rank in range(request["world"]):
        pid = os.fork()
        if pid == 0:
            with _leaving(Path(request["log"])):
                _live(request, rank, port)
        running[pid] = rank
    codes = [0] * request["world"]
    kill_at = began + (request["after"] if request["after"] is not None else float("inf"))
    overdue = False
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
        else:
            time.sleep(0.001)
        now = time.perf_counter()
        overdue |= now - began > request["limit"]
        if now > kill_at:
            kill_at = float("inf")
            _send(request["number"], running)
        if overdue or -signal.SIGKILL in codes:
            _send(signal.SIGKILL, running)
    return {"codes": codes, "seconds": time.perf_counter() - began, "overdue": overdue}


def _send(number: int, running: Mapping[int, int]) -> None:
    """SIGKILL to all, as when the machine goes; what asks for an end, to the first."""
    for pid, rank in running.items():
        if number == signal.SIGKILL or rank == 0:
            os.kill(pid, number)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


# A child


class _leaving:  # noqa: N801 - used as a block
    """The child's life: it prints into a log and ends with the process, whatever happens."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __enter__(self) -> None:
        target = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, 1)
        os.dup2(target, 2)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> NoReturn:
        code = 0
        if isinstance(error, SystemExit):
            code = int(error.code or 0)
        elif error is not None:
            traceback.print_exception(kind, error, trace)
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _live(request: Mapping[str, Any], rank: int, port: int) -> NoReturn:
    from feedtune.cli import main
    from kills import places

    # A shell starts background jobs, these tests perhaps among them, with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments = list(request["arguments"])
    if request["world"] > 1:
        _join(rank, request["world"], port)
        if rank and arguments[0] == "train":  # as Lightning starts further processes
            arguments += ["hydra.output_subdir=null", f"hydra.job.name=train_ddp_process_{rank}"]
    places.watch(request, rank)
    sys.argv = ["feedtune", *arguments]
    raise SystemExit(main(arguments))


def _join(rank: int, world: int, port: int) -> None:
    """The environment of one of several processes, which Lightning reads."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    os.environ |= {
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    rank_zero_only.rank = rank  # read from the environment when Lightning was imported


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
