"""The mutation check checks: it finds what can be wrong, its forks see it, and it says what nobody sees."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mutation import TESTS
from mutation_check.equivalents import EQUIVALENTS
from mutation_check.operators import apply, mutants
from mutation_check.watching import watch

ROOT = Path(__file__).parents[1]

TOY = '''
"""A toy: 1 + 1."""
import functools


class Base:
    def scale(self):
        return 2


class Scaled(Base):
    """Says "a - b"."""

    def scale(self):
        return super().scale() + 3


def largest(a: "1 - 2", b, shift=1):
    """a - b, or so."""
    if a > 1000:
        raise ValueError(f"expected at most 1000, got {a - 1}")
    check_sign(a - 1)
    return max(a, b) * Scaled().scale()


def same(a):
    return a if a > 0 else -a


def check_sign(value):
    pass


@functools.cache
def half(n):
    return n / 2
'''

TOY_TESTS = """
from toy import Scaled, largest, same

def test_scaled():
    assert Scaled().scale() == 5

def test_largest():
    assert largest(3, 2) == 15

def test_same():
    assert [same(-2), same(0), same(1)] == [2, 0, 1]
"""


def changes(tmp_path: Path, body: str) -> list[str]:
    file = tmp_path / "formula.py"
    file.write_text(f"def f(x, m, a, b, exp):\n    {body}\n")
    return [f"{one.before} -> {one.after}" for one in mutants(file)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return a + b", ["a + b -> a - b"]),
        ("return a * b", ["a * b -> a / b"]),
        ("return a / b", ["a / b -> a * b", "a / b -> a"]),
        ("return a - 1", ["a - 1 -> a + 1", "a - 1 -> a"]),
        ("return -a", ["-a -> a"]),
        ("return a < b", ["a < b -> a <= b", "a < b -> a >= b"]),
        ("return a == b", ["a == b -> a != b"]),
        ("return a & ~b", ["a & ~b -> a | ~b", "a & ~b -> a", "a & ~b -> ~b", "~b -> b"]),
        ("return x.detach()", ["x.detach() -> x"]),
        ("return torch.where(m, a, b)", ["torch.where(m, a, b) -> a", "torch.where(m, a, b) -> b"]),
        ("return torch.minimum(a, b)", ["torch.minimum -> torch.maximum"]),
        ("return min(a, b)", ["min -> max"]),
        (
            "return x.clamp(a, b)",
            ["x.clamp(a, b) -> x", "x.clamp(a, b) -> x.clamp(min=a)", "x.clamp(a, b) -> x.clamp(max=b)"],
        ),
        ("return x.mul_(a)", ["x.mul_(a) -> x"]),
        ("return x.mean()", ["x.mean -> x.sum"]),
        ("return m.any(0)", ["m.any(0) -> m.any(1)", "m.any -> m.all"]),
        ("return exp.token_count", ["exp.token_count -> exp.row_count"]),
        ("return x.sum(-1)", ["x.sum(-1) -> x.sum(0)", "x.sum -> x.mean"]),
        ("return a if m else b", ["a if m else b -> a", "a if m else b -> b"]),
        ("a += b", ["a += b -> a -= b"]),
        ("with torch.no_grad(): a = b", ["with torch.no_grad() -> nothing"]),
        ("return (a + b) * (a + b)", ["(a + b) * (a + b) -> (a + b) / (a + b)"] + ["a + b -> a - b"] * 2),
    ],
)
def test_what_can_be_wrong(body: str, expected: list[str], tmp_path: Path) -> None:
    found = changes(tmp_path, body)
    assert [one.removesuffix(" #2") for one in found] == expected
    assert len(set(found)) == len(found)  # the second `a + b` has a number


@pytest.mark.parametrize(
    "body",
    ['"""a - b"""', 'raise ValueError(f"{a - b}")', "check_unit('a', a - b)", "assert a > b", "c: 1 - 2 = a"],
)
def test_what_is_left_alone(body: str, tmp_path: Path) -> None:
    assert changes(tmp_path, body) == []


WATCHED = '''
import functools

class Sign:
    """Of a number."""

    @property
    def names(self):
        """All."""
        return ["minus",
                "plus"]

def sign(a):
    """-1, 0 or 1."""
    try:
        if a > 0:
            return 1
        elif a < 0:
            return -1
        for one in Sign().names:
            pass
    except TypeError:
        a = 0
    finally:
        a = 0
    return a
'''


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (3, {15, 16, 17, 25}),  # past the docstring; the finally comes even after a return
        (-3, {15, 16, 18, 19, 25}),
        (0, {15, 16, 18, 20, 21, 10, 25, 26}),  # 10: the first line of the statement over two
        ("x", {15, 16, 23, 25, 26}),
    ],
)
def test_functions_say_which_lines_they_come_by(
    given: object, lines: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "watched_toy.py"
    file.write_text(WATCHED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "watched_toy", raising=False)
    toy = importlib.import_module("watched_toy")
    sign = toy.sign  # whoever holds a function already holds the watched one
    found: set[tuple[str, int]] = set()
    watch(file, found.add)
    assert not found
    sign(given)
    assert found == {(str(file), line) for line in lines}
    monkeypatch.delitem(sys.modules, "watched_toy")


def test_every_change_is_a_module_that_differs(tmp_path: Path) -> None:
    file = tmp_path / "toy.py"
    file.write_text(TOY)
    found = mutants(file)
    sources = {compile(apply(one, TOY), "toy", "exec") for one in found}
    assert len(sources) == len(found) > 8


def check(folder: Path, tests: str = TOY_TESTS) -> tuple[int, str]:
    """The script over the toy."""
    (folder / "toy.py").write_text(TOY)
    (folder / "test_toy.py").write_text(tests)
    command = [sys.executable, str(ROOT / "tests/mutation.py"), "toy.py", "--tests", "test_toy.py"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_it_prints_what_nobody_sees(tmp_path: Path) -> None:
    code, said = check(tmp_path)
    survivors = re.findall(r"^toy.py:\d+: (.*?)    \[(.*)\]$", said, re.MULTILINE)
    # a > 0 or a >= 0 is the same absolute value; half is called by no test. All others are seen.
    assert survivors == [
        ("a > 0 -> a >= 0", "same; 1 tests came by"),
        ("n / 2 -> n * 2", "half; no test comes by"),
        ("n / 2 -> n", "half; no test comes by"),
    ], said
    assert code == 1


def test_a_test_that_fails_by_itself_is_no_witness(tmp_path: Path) -> None:
    code, said = check(tmp_path, TOY_TESTS.replace("== 15", "== 14"))
    assert "left out, it fails without any change: " in said
    assert "max -> min    [largest; no test comes by]" in said
    assert code == 1


def test_every_equivalent_is_a_change_and_has_its_reason() -> None:
    for name, entries in EQUIVALENTS.items():
        keys = {one.key for one in mutants(ROOT / name)}
        for key, reason in entries.items():
            assert key in keys, f"{name}: {key}: there is no such change"
            assert len(reason.split()) >= 3


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("part", TESTS)
def test_the_formulas_leave_nothing_unseen(part: str) -> None:
    script = [sys.executable, str(ROOT / "tests/mutation.py"), str(ROOT / part)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
