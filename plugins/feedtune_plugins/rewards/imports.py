"""Finding a user's function by `module:function`, in installed packages, the working directory or a file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from feedtune.errors import UserError, nearest


def load_function(path: str) -> Callable[..., Any]:
    """The function that `path` names: `package.module:function` or `./file.py:function`.

    A module is looked for where Python looks, then in the working directory. A file finds its neighbours.

    Raises:
        UserError: there is no such module, file or function, or importing it fails.

    >>> load_function("math:sqrt")(9)
    3.0
    """
    where, _, name = path.rpartition(":")
    if not (where and name):
        example = "rewards:score or ./rewards.py:score"
        raise UserError(f"reward.path: expected module:function, such as {example}; got '{path}'")
    try:
        module = import_file(where) if where.endswith(".py") else import_module(where)
    except UserError as error:
        raise UserError(f"reward.path={path}: {error}") from error
    except Exception as error:
        raise UserError(
            f"reward.path={path}: importing '{where}' failed with {type(error).__name__}: {error}"
        ) from error
    return function_of(module, name, path)


def import_file(file: str) -> ModuleType:
    """Import a Python file by its path. Its folder joins the search path, as if the file had been run."""
    found = Path(file).expanduser().resolve()
    if not found.is_file():
        hint = nearest(found.name, (other.name for other in found.parent.glob("*.py")))
        raise UserError(f"no file '{found.name}' in {found.parent}.{hint}")
    name = str(found)  # no other module can have this name, and a second use finds the first
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, found)
    assert spec is not None, "every file that ends in .py has a spec"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    add_to_search_path(found.parent)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def import_module(name: str) -> ModuleType:
    """Import a module by name, from the working directory if it is not installed."""
    add_to_search_path(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise  # it was found; something that it imports was not
        hint = nearest(name, (file.stem for file in Path.cwd().glob("*.py")))
        raise UserError(
            f"no module named '{error.name}' is installed or in the working directory {Path.cwd()}.{hint}"
        ) from error


def add_to_search_path(folder: Path) -> None:
    """Let Python find modules of this folder, after all others: a `datasets/` folder hides no package."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def function_of(module: ModuleType, name: str, path: str) -> Callable[..., Any]:
    """A function or other callable of a module; a dot reaches into classes and objects."""
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            callables = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
            file = getattr(module, "__file__", None) or "a built-in module"
            raise UserError(f"reward.path={path}: no '{part}' in {file}.{nearest(part, callables)}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"reward.path={path}: expected a function, but '{name}' is {type(found).__name__}")
    function: Callable[..., Any] = found
    return function
