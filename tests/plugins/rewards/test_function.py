"""A user's function as a reward: where it is found, what it receives, and what is said when it is wrong."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune_plugins.rewards.function import Function

SAMPLES = [
    Sample("One?", "1", columns={"answer": "1", "level": 7}),
    Sample("Two?", "22", columns={"answer": "2"}),
]

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write `rewards.py` in an empty working directory; forget afterwards what was imported from there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text: str) -> Path:
        file = tmp_path / "rewards.py"
        file.write_text(text, encoding="utf-8")
        return file

    yield write
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def total(path: str) -> list[float]:
    return [float(score) for score in Function(path=path)(SAMPLES).total]


LENGTHS = "def score(responses):\n    return [len(said) for said in responses]\n"


@pytest.mark.parametrize("path", ["rewards:score", "./rewards.py:score", "rewards.py:score"])
def test_a_function_of_the_working_directory(write: Write, path: str) -> None:
    write(LENGTHS)
    assert total(path) == [1.0, 2.0]


def test_a_function_of_a_file_anywhere_that_imports_its_neighbour(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "some.where"
    folder.mkdir()
    (folder / "neighbour_of_it.py").write_text("FACTOR = 10\n")
    (folder / "rewards.py").write_text(
        "from neighbour_of_it import FACTOR\n"
        "def score(responses):\n    return [FACTOR * len(r) for r in responses]\n"
    )
    write(LENGTHS)  # another file of the same name is another module
    assert total(f"{folder}/rewards.py:score") == [10.0, 20.0]
    assert total("./rewards.py:score") == [1.0, 2.0]


def test_a_function_of_a_package_in_the_working_directory(write: Write, tmp_path: Path) -> None:
    (tmp_path / "package_of_mine").mkdir()
    (tmp_path / "package_of_mine" / "scores.py").write_text(LENGTHS)
    assert total("package_of_mine.scores:score") == [1.0, 2.0]


def test_a_method_of_an_object(write: Write) -> None:
    write("class Judge:\n    def score(self, responses):\n        return [1, 1]\njudge = Judge()\n")
    assert total("rewards:judge.score") == [1.0, 1.0]


def test_a_file_is_run_once_for_two_functions(write: Write) -> None:
    write("seen = []\ndef a(responses):\n    seen.append(1)\n    return [len(seen)] * 2\nb = a\n")
    assert total("./rewards.py:a") == [1.0, 1.0]
    assert total("./rewards.py:b") == [2.0, 2.0]


def test_the_working_directory_hides_no_installed_module(write: Write, tmp_path: Path) -> None:
    (tmp_path / "math.py").write_text("def sqrt(responses):\n    return 'mine'\n")
    with pytest.raises(
        UserError, match=r"reward\.path=math:sqroot: no 'sqroot' in .*math.* Did you mean 'sqrt'"
    ):
        Function(path="math:sqroot")
    (tmp_path / "datasets").mkdir()
    import importlib

    write(LENGTHS)
    Function(path="rewards:score")
    assert sys.path[-1] == str(tmp_path)
    spec = importlib.util.find_spec("datasets")
    assert spec is not None
    assert not str(spec.origin).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("signature", "received"),
    [
        ("prompts, responses", {"prompts": ["One?", "Two?"], "responses": ["1", "22"]}),
        ("responses, answer", {"responses": ["1", "22"], "answer": ["1", "2"]}),
        ("*, level, responses", {"responses": ["1", "22"], "level": [7, None]}),
        ("responses, other=5", {"responses": ["1", "22"], "other": 5}),
        ("responses, answer=None", {"responses": ["1", "22"], "answer": ["1", "2"]}),
        (
            "prompts, **rest",
            {
                "prompts": ["One?", "Two?"],
                "rest": {"responses": ["1", "22"], "answer": ["1", "2"], "level": [7, None]},
            },
        ),
        ("*nothing", {"nothing": ()}),
        ("", {}),
    ],
)
def test_it_receives_what_its_signature_names(write: Write, signature: str, received: dict[str, Any]) -> None:
    write(f"def score({signature}):\n    seen.append(dict(locals()))\n    return [0, 0]\nseen = []\n")
    assert total("rewards:score") == [0.0, 0.0]
    assert sys.modules["rewards"].seen == [received]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("[1, 2.5]", [1.0, 2.5]),
        ("(True, False)", [1.0, 0.0]),
        ("[None, 2]", [math.nan, 2.0]),
        ("__import__('numpy').array([1, 2])", [1.0, 2.0]),
        ("__import__('torch').tensor([1.0, 2.0], requires_grad=True)", [1.0, 2.0]),
        ("[__import__('torch').tensor(1.0), __import__('numpy').float32(2)]", [1.0, 2.0]),
    ],
)
def test_what_counts_as_n_numbers(write: Write, returned: str, expected: list[float]) -> None:
    write(f"def score(responses):\n    return {returned}\n")
    assert total("rewards:score") == pytest.approx(expected, nan_ok=True)


def test_parts_that_it_returns_are_kept(write: Write) -> None:
    write(
        "import torch\nfrom feedtune.contracts import Scores\n"
        "def score(responses):\n    return Scores(torch.ones(2), {'half': torch.ones(2) / 2})\n"
    )
    assert Function(path="rewards:score")(SAMPLES).parts["half"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "returned",
    ["None", "[1]", "[1, 2, 3]", "3.0", "'ab'", "['a', 'b']", "{'a': 1}", "[[1], [2]]", "iter([1, 2])"],
)
def test_what_does_not_is_refused_with_the_count_that_was_expected(write: Write, returned: str) -> None:
    write(f"def score(responses):\n    return {returned}\n")
    with pytest.raises(UserError, match=r"reward 'rewards:score': expected 2 (numbers|scores).*, got "):
        total("rewards:score")


def test_it_is_not_called_for_nothing(write: Write) -> None:
    write("def score(responses, answer):\n    return 1 / 0\n")
    assert Function(path="rewards:score")([]).total.shape == (0,)


def test_an_exception_is_named_with_its_line_and_the_rows(write: Write) -> None:
    write(
        "import json\ndef score(responses):\n    first = 1\n    return [json.loads('{') for _ in responses]\n"
    )
    with pytest.raises(UserError) as caught:
        total("rewards:score")
    assert str(caught.value) == (
        "reward.path=rewards:score raised JSONDecodeError: "
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1) "
        "(rewards.py, line 4; called with 2 rows)"
    )
    assert type(caught.value.__cause__).__name__ == "JSONDecodeError"


def test_its_own_user_error_is_its_own(write: Write) -> None:
    write(
        "from feedtune.errors import UserError\ndef score(responses):\n    raise UserError('buy a licence')\n"
    )
    with pytest.raises(UserError, match=r"^buy a licence$"):
        total("rewards:score")


def test_a_column_that_the_task_lacks_is_named(write: Write) -> None:
    write("def score(responses, anser):\n    return [0, 0]\n")
    with pytest.raises(UserError) as caught:
        total("rewards:score")
    assert str(caught.value) == (
        "reward.path=rewards:score wants 'anser', which is no column of the task; "
        "there are: answer, level, prompts, responses. Did you mean 'answer'?"
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("rewards", "expected module:function, such as rewards:score or ./rewards.py:score; got 'rewards'"),
        ("rewards:", "expected module:function"),
        (":score", "expected module:function"),
        (
            "rewads:score",
            "reward.path=rewads:score: no module named 'rewads' is installed or in the working directory",
        ),
        ("rewads:score", "Did you mean 'rewards'?"),
        ("rewards.deep:score", "no module named 'rewards.deep' is installed"),
        ("./rewads.py:score", "reward.path=./rewads.py:score: no file 'rewads.py' in "),
        ("./rewads.py:score", "Did you mean 'rewards.py'?"),
        ("./no/where.py:score", "no file 'where.py' in "),
        ("rewards:scor", "rewards.py. Did you mean 'score'?"),
        ("rewards:scor", "reward.path=rewards:scor: no 'scor' in "),
        ("./rewards.py:zebra", "no 'zebra' in "),
        ("rewards:LEVEL", "expected a function, but 'LEVEL' is int"),
        ("..rewards:score", "importing '..rewards' failed with TypeError"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(write: Write, path: str, message: str) -> None:
    write(LENGTHS + "LEVEL = 3\n")
    with pytest.raises(UserError) as caught:
        Function(path=path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import nothing_of_this_name\n",
            "failed with ModuleNotFoundError: No module named 'nothing_of_this_name'",
        ),
        ("def score(:\n", "failed with SyntaxError: invalid syntax (rewards.py, line 1)"),
        ("1 / 0\n", "failed with ZeroDivisionError: division by zero"),
    ],
)
@pytest.mark.parametrize("where", ["rewards", "./rewards.py"])
def test_a_module_that_fails_to_import_is_named(write: Write, where: str, text: str, message: str) -> None:
    file = write(text)
    for _ in range(2):  # a failed import leaves nothing half-made behind
        with pytest.raises(UserError) as caught:
            Function(path=f"{where}:score")
        assert str(caught.value).startswith(f"reward.path={where}:score: importing '{where}' failed")
        assert message in str(caught.value)
        assert caught.value.__cause__ is not None
    file.write_text(LENGTHS)
    assert str(file) not in sys.modules


def test_a_builtin_that_hides_its_signature_gets_everything() -> None:
    with pytest.raises(
        UserError, match=r"reward.path=builtins:dict: expected|reward 'builtins:dict': expected 2 numbers"
    ):
        total("builtins:dict")  # it takes any keyword and returns a dict
