"""Names of TensorRT that a file uses, from its syntax tree; and names.toml, the list of the permitted names.

A value is TensorRT's because of `trt.…`, because of an annotation, or because names.toml gives the class of a result.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

TREE = Path(__file__).parents[3] / "converter" / "lmconv" / "trt"
FILES = sorted(TREE.rglob("*.py"))
MARK = re.compile(r"# trt: (\d+(?:, \d+)*)$")
ENUMERATIONS = frozenset({"DataType", "ILogger.Severity"})
"""Enumerations: their members have an attribute `name`, as in every enumeration of pybind11."""

Kind: TypeAlias = str | tuple["Kind", ...] | None
"""Class of a value, or a tuple of classes; None for other classes. A list has the class of its elements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """Entry of names.toml: the major versions with the name, and the class of its value or result."""

    versions: frozenset[int]
    gives: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A used name with its line, and the major versions for which the line is marked."""

    name: str
    line: int
    versions: frozenset[int]


def listed() -> dict[str, Name]:
    """Reads names.toml."""
    document = tomllib.loads(Path(__file__).with_name("names.toml").read_text(encoding="utf-8"))
    majors = {version: int(version.partition(".")[0]) for version in document["versions"]}
    names = {
        name: Name(versions=frozenset(majors.values()), gives=gives) for name, gives in document["everywhere"].items()
    }
    for name, versions in document["some"].items():
        names[name] = Name(versions=frozenset(majors[version] for version in versions), gives="")
    return names


def complaints(source: str, names: dict[str, Name]) -> list[str]:
    """Names in a file that names.toml does not permit, as messages."""
    messages = []
    for use in uses(source, names):
        if use.name not in names:
            messages.append(f"line {use.line}: {use.name} is not in names.toml")
        elif lacking := use.versions - names[use.name].versions:
            messages.append(f"line {use.line}: {use.name} is not in {', '.join(map(str, sorted(lacking)))}")
    return messages


def marks(source: str) -> dict[int, frozenset[int]]:
    """Major versions of marked lines, by line number."""
    matches = ((line, MARK.search(text)) for line, text in enumerate(source.splitlines(), 1))
    return {line: frozenset(map(int, mark[1].split(", "))) for line, mark in matches if mark}


def uses(source: str, names: dict[str, Name]) -> list[Use]:
    """Every name of TensorRT in a file."""
    reader = Reader(names)
    tree = ast.parse(source)
    for _ in range(3):  # results of functions and attributes of self may be defined further down
        reader.names_used = []
        reader.visit(tree)
    marked, every = marks(source), frozenset({8, 10, 11})
    return [Use(name=name, line=line, versions=marked.get(line, every)) for name, line in reader.names_used]


def is_class(name: str) -> bool:
    """True if a name is a class, not a member of a class."""
    return name[:1].isupper() and ("." not in name or name in ENUMERATIONS)


@dataclass
class Reader(ast.NodeVisitor):
    """Follows the classes of values through a file."""

    names: dict[str, Name]
    names_used: list[tuple[str, int]] = field(default_factory=list)
    scopes: list[dict[str, Kind]] = field(default_factory=lambda: [{}])
    results: dict[str, Kind] = field(default_factory=dict)

    def kind(self, node: ast.expr | None) -> Kind:
        """Class of the value of an expression."""
        if isinstance(node, ast.Name):
            kinds = (scope[node.id] for scope in reversed(self.scopes) if node.id in scope)
            return "" if node.id == "trt" else next(kinds, None)
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                return self.scopes[0].get(f"self.{node.attr}")
            return self.member(node)
        if isinstance(node, ast.Call):
            return self.result(node)
        if isinstance(node, ast.ListComp | ast.GeneratorExp):
            return self.kind(node.elt)
        return self.kind(node.value) if isinstance(node, ast.Subscript | ast.NamedExpr) else None

    def member(self, node: ast.Attribute) -> Kind:
        owner = self.kind(node.value)
        if not isinstance(owner, str) or not (owner == "" or is_class(owner)):
            return None
        return f"{owner}.{node.attr}" if owner else node.attr

    def result(self, node: ast.Call) -> Kind:
        if isinstance(node.func, ast.Name) and node.func.id == "enumerate":
            return None, self.kind(node.args[0])
        called = self.kind(node.func)
        if isinstance(called, str):
            entry = self.names.get(called)
            return called if is_class(called) else (entry.gives or None) if entry else None
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        return self.results.get(name)

    def annotated(self, node: ast.expr | None) -> Kind:
        if isinstance(node, ast.BinOp):
            return self.annotated(node.left) or self.annotated(node.right)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
            return tuple(map(self.annotated, node.slice.elts))
        return self.kind(node) if isinstance(node, ast.Attribute) else None

    def bind(self, target: ast.expr, kind: Kind) -> None:
        if isinstance(target, ast.Tuple):
            fits = isinstance(kind, tuple) and len(kind) == len(target.elts)
            parts = kind if isinstance(kind, tuple) and fits else (None,) * len(target.elts)
            for element, part in zip(target.elts, parts, strict=True):
                self.bind(element, part)
        elif isinstance(target, ast.Name):
            self.scopes[-1][target.id] = kind
        elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
            self.scopes[0][f"self.{target.attr}"] = kind

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.results[node.name] = self.annotated(node.returns)
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        self.scopes.append({argument.arg: self.annotated(argument.annotation) for argument in arguments})
        self.generic_visit(node)
        self.scopes.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self.bind(target, self.kind(node.value))
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.bind(node.target, self.annotated(node.annotation) or self.kind(node.value))
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self.bind(node.target, self.kind(node.iter))
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self.comprehended(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self.comprehended(node)

    def comprehended(self, node: ast.ListComp | ast.GeneratorExp) -> None:
        self.scopes.append({})
        for part in node.generators:
            self.bind(part.target, self.kind(part.iter))
        self.generic_visit(node)
        self.scopes.pop()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner, name = self.kind(node.value), self.member(node)
        common = node.attr.startswith("__") or (owner in ENUMERATIONS and node.attr == "name")
        if isinstance(name, str) and not common:
            self.names_used.append((name, node.lineno))
        self.generic_visit(node)


def names_in(files: list[Path]) -> Iterator[str]:
    """Yields the names of TensorRT that files use."""
    for file in files:
        yield from (use.name for use in uses(file.read_text(encoding="utf-8"), listed()))
