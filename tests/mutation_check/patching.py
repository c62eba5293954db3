"""Puts changed code into a module that others have imported from already."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

_OWN = {"__dict__", "__weakref__", "__doc__", "__abstractmethods__", "_abc_impl", "__orig_bases__"}
"""What a class does not take over from its changed self."""


def put(code: CodeType, file: Path) -> None:
    """Run a module's changed code; whoever holds its functions and classes now holds the changed ones."""
    module = next(one for one in _modules() if Path(one.__file__ or "") == file)
    names = vars(module)
    before = dict(names)
    exec(code, names)
    for name, old in before.items():
        new = names.get(name)
        if new is old or getattr(old, "__module__", None) != module.__name__:
            continue
        if isinstance(old, type) and isinstance(new, type):
            _change_class(old, new)
            names[name] = old
        elif isinstance(old, FunctionType) and isinstance(new, FunctionType):
            if _change_function(old, new):
                names[name] = old
            else:
                _replace_everywhere(old, new)


def _modules() -> Iterator[ModuleType]:
    return (one for one in list(sys.modules.values()) if getattr(one, "__file__", None))


def _change_class(old: type, new: type) -> None:
    """The class stays itself, with the members of the changed one."""
    for name, value in list(vars(new).items()):
        if name in _OWN:
            continue
        for function in _functions(value):
            for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
                if variable == "__class__":  # of `super()`
                    cell.cell_contents = old
        setattr(old, name, value)


def _functions(value: Any) -> Iterator[FunctionType]:
    """A method and what its decorators wrap."""
    for part in (value, *(getattr(value, name, None) for name in ("fget", "fset", "__func__"))):
        while isinstance(part, FunctionType):
            yield part
            part = getattr(part, "__wrapped__", None)


def _change_function(old: FunctionType, new: FunctionType) -> bool:
    """The function stays itself, with the changed code; False where its decorators are not the same."""
    inner, other = list(_functions(old)), list(_functions(new))
    if len(inner) != len(other):
        return False
    olds, news = inner[-1], other[-1]
    olds.__code__, olds.__defaults__ = news.__code__, news.__defaults__
    olds.__kwdefaults__ = news.__kwdefaults__
    return True


def _replace_everywhere(old: FunctionType, new: FunctionType) -> None:
    for module in _modules():
        for name, value in list(vars(module).items()):
            if value is old:
                setattr(module, name, new)
