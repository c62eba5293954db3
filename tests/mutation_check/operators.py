"""What can be wrong in a formula: small changes to a module's syntax tree, one at a time.

Only the bodies of functions are changed. Docstrings, annotations, defaults, messages, assertions and refusals
of a user's values (`raise`, `check_...`, and what holds nothing else) are left alone.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

OPERATORS: dict[type[ast.AST], list[type[ast.AST]]] = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.Pow: [ast.Mult],
    ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd],
    ast.And: [ast.Or],
    ast.Or: [ast.And],
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
}
"""The other side of each operator; a comparison also moves its border."""

_PAIRS = ["min max", "minimum maximum", "amin amax", "argmin argmax", "mean sum", "any all"]
_PAIRS += ["token_count row_count", "step_tokens step_rows"]
TWINS = {a: b for pair in _PAIRS for a, b in (pair.split(), pair.split()[::-1])}
"""Names that are taken for one another."""

DROPPED = {"detach", "clamp", "exp", "log", "square", "sqrt", "relu", "cumsum", "flip", "nan_to_num"}
DROPPED |= {"eval", "requires_grad_", "clamp_", "mul_", "scatter_add_", "lerp_", "copy_", "fill_"}
"""Methods whose call is left out."""

Place = tuple[tuple[str, int | None], ...]
Node = ast.stmt | ast.expr


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    file: Path
    function: str  # qualified name
    before: str
    after: str
    line: int
    lines: frozenset[int]  # a test that runs none of these cannot tell
    place: Place  # from the module down: the field, and the index where it is a list
    node: ast.AST | None  # what comes there; None: nothing

    @property
    def key(self) -> tuple[str, str]:
        """What names this change in its file, wherever its lines move."""
        return self.function, f"{self.before} -> {self.after}"


def mutants(file: Path) -> list[Mutant]:
    """Every change of a file, in the order of its lines."""
    found: list[Mutant] = []
    seen: Counter[tuple[str, str]] = Counter()
    for one in _definitions(ast.parse(file.read_text()), (), "", file):
        seen[one.key] += 1
        number = seen[one.key]  # the same change again in one function gets a number
        found.append(one if number == 1 else replace(one, after=f"{one.after} #{number}"))
    return sorted(found, key=lambda one: one.line)


def apply(mutant: Mutant, source: str) -> ast.Module:
    """The whole file with the change."""
    tree = ast.parse(source)
    parent: ast.AST = tree
    *way, (field, index) = mutant.place
    for name, at in way:
        parent = getattr(parent, name) if at is None else getattr(parent, name)[at]
    if index is None:
        setattr(parent, field, mutant.node)
    else:
        getattr(parent, field)[index : index + 1] = [] if mutant.node is None else [mutant.node]
    return ast.fix_missing_locations(tree)


def _definitions(node: ast.AST, place: Place, outer: str, file: Path) -> Iterator[Mutant]:
    """The functions of a module or a class."""
    for i, inner in enumerate(getattr(node, "body", [])):
        here = (*place, ("body", i))
        if isinstance(inner, ast.ClassDef):
            yield from _definitions(inner, here, f"{outer}{inner.name}.", file)
        elif isinstance(inner, ast.FunctionDef):
            yield from _function(inner, here, f"{outer}{inner.name}", file)


def _function(node: ast.FunctionDef, place: Place, name: str, file: Path) -> Iterator[Mutant]:
    body = frozenset(range(node.body[0].lineno, (node.body[-1].end_lineno or 0) + 1))
    for i, decorator in enumerate(node.decorator_list):
        text = ast.unparse(decorator)
        if "no_grad" in text:
            there = (*place, ("decorator_list", i))
            yield Mutant(file, name, f"@{text}", "nothing", decorator.lineno, body, there, None)
    yield from _block(node.body, (*place,), "body", name, file)


def _block(body: list[ast.stmt], place: Place, field: str, name: str, file: Path) -> Iterator[Mutant]:
    for i, statement in enumerate(body):
        here = (*place, (field, i))
        if isinstance(statement, ast.FunctionDef):
            yield from _function(statement, here, f"{name}.{statement.name}", file)
        elif not _left_alone(statement):
            yield from _statement(statement, here, name, file)


def _left_alone(statement: ast.stmt) -> bool:
    """Whether it only documents, asserts or refuses."""
    if isinstance(statement, ast.Raise | ast.Assert | ast.Pass):
        return True
    if isinstance(statement, ast.Expr):
        call = statement.value
        named = isinstance(call, ast.Call) and ast.unparse(call.func).lstrip("_").startswith("check_")
        return named or isinstance(call, ast.Constant)
    if isinstance(statement, ast.If | ast.For):
        return all(_left_alone(inner) for inner in [*statement.body, *statement.orelse])
    return False


def _statement(node: ast.stmt, place: Place, name: str, file: Path) -> Iterator[Mutant]:
    blocks = [field for field in ("body", "orelse", "handlers", "finalbody") if getattr(node, field, [])]
    if isinstance(node, ast.With) and "grad" in ast.unparse(node.items[0]):
        always = ast.If(test=ast.Constant(value=True), body=node.body, orelse=[])
        text = f"with {ast.unparse(node.items[0])}"
        yield Mutant(file, name, text, "nothing", node.lineno, frozenset({node.lineno}), place, always)
    last = node.lineno if blocks else node.end_lineno or node.lineno
    for field, value in ast.iter_fields(node):
        if field in blocks or field == "annotation":
            continue
        for index, inner in _nodes(value):
            end = max(last, inner.end_lineno or 0) if isinstance(inner, ast.expr) else last
            lines = frozenset(range(node.lineno, end + 1))
            yield from _expressions(inner, (*place, (field, index)), name, file, lines)
    if not blocks:
        lines = frozenset(range(node.lineno, last + 1))
        for other in [*_constants(node), *_other_operator(node)]:
            yield _mutant(file, name, node, other, lines, place)
    for field in blocks:
        if field == "handlers":
            continue
        yield from _block(getattr(node, field), place, field, name, file)


def _nodes(value: object) -> Iterator[tuple[int | None, ast.AST]]:
    if isinstance(value, ast.AST):
        yield None, value
    elif isinstance(value, list):
        yield from ((i, one) for i, one in enumerate(value) if isinstance(one, ast.AST))


def _expressions(
    node: ast.AST, place: Place, name: str, file: Path, lines: frozenset[int]
) -> Iterator[Mutant]:
    """The changes of an expression and of all in it; messages are left alone."""
    if isinstance(node, ast.JoinedStr | ast.arguments):
        return
    if isinstance(node, ast.expr):
        for other in _changes(node):
            yield _mutant(file, name, node, other, lines, place)
    for field, value in ast.iter_fields(node):
        for index, inner in _nodes(value):
            yield from _expressions(inner, (*place, (field, index)), name, file, lines)


def _mutant(file: Path, name: str, node: Node, other: Node, lines: frozenset[int], place: Place) -> Mutant:
    return Mutant(file, name, ast.unparse(node), ast.unparse(other), node.lineno, lines, place, other)


def _changes(node: ast.expr) -> Iterator[ast.expr]:
    """Every change of one expression that leaves its parts alone."""
    yield from _constants(node)
    yield from _other_operator(node)
    if isinstance(node, ast.BinOp):
        yield from _without_a_side(node)
    elif isinstance(node, ast.UnaryOp):
        number = isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant)
        if not number:
            yield node.operand
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.Attribute | ast.Name):
        yield from _twin(node)
    elif isinstance(node, ast.Call):
        yield from _simpler_call(node)


def _constants(node: Node) -> Iterator[Node]:
    """0 for 1 and 1 for 0, and 0 for -1, among the direct parts; not in x + 1, which becomes x anyhow."""
    if isinstance(node, ast.UnaryOp) or (isinstance(node, ast.BinOp) and _shifts(node)):
        return
    for field, value in ast.iter_fields(node):
        for index, part in _nodes(value):
            wrapped = isinstance(part, ast.keyword)
            number = part.value if isinstance(part, ast.keyword) else part
            if (other := _other_number(number)) is None:
                continue
            changed = copy.deepcopy(node)
            if wrapped:
                getattr(changed, field)[index].value = other
            elif index is None:
                setattr(changed, field, other)
            else:
                getattr(changed, field)[index] = other
            yield changed


def _other_number(node: ast.AST) -> ast.Constant | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _other_number(node.operand)
        return inner if inner is not None and not inner.value else None
    if isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value in (0, 1):
        return ast.Constant(value=1 - node.value)
    return None


def _other_operator(node: ast.AST) -> Iterator[Node]:
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        for other in OPERATORS.get(type(node.op), []):
            changed = copy.deepcopy(node)
            changed.op = other()  # type: ignore[assignment]
            yield changed
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for other in OPERATORS.get(type(op), []):
                compared = copy.deepcopy(node)
                compared.ops[i] = other()  # type: ignore[call-overload]
                yield compared


def _without_a_side(node: ast.BinOp) -> Iterator[ast.expr]:
    """One of two masks; no denominator; an index that is not shifted."""
    if isinstance(node.op, ast.BitAnd | ast.BitOr):
        yield from (node.left, node.right)
    elif isinstance(node.op, ast.Div) or _shifts(node):
        yield node.left


def _shifts(node: ast.BinOp) -> bool:
    """Whether it is x + 1 or x - 1."""
    one = isinstance(node.right, ast.Constant) and node.right.value == 1
    return one and isinstance(node.op, ast.Add | ast.Sub)


def _twin(node: ast.Attribute | ast.Name) -> Iterator[ast.expr]:
    changed = copy.deepcopy(node)
    if isinstance(changed, ast.Attribute) and changed.attr in TWINS:
        changed.attr = TWINS[changed.attr]
        yield changed
    elif isinstance(changed, ast.Name) and changed.id in ("min", "max"):
        changed.id = TWINS[changed.id]
        yield changed


def _simpler_call(node: ast.Call) -> Iterator[ast.expr]:
    """A choice without its condition, a method that is not called, a clamp of one bound."""
    if ast.unparse(node.func) == "torch.where":
        yield from node.args[1:]
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in DROPPED:
        return
    yield node.func.value
    if node.func.attr == "clamp" and len(node.args) + len(node.keywords) == 2:
        bounds = [ast.keyword(arg, value) for arg, value in zip(("min", "max"), node.args, strict=False)]
        for bound in bounds + node.keywords:
            yield ast.Call(func=node.func, args=[], keywords=[bound])
