"""Public functions and classes of `reid` document their parameters, attributes and results in Google style.

Ruff's `D` rules check the form of the docstrings that exist; this checks that sections and names are there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "reid"
FILES = sorted(PACKAGE.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def section(doc: str, name: str) -> str:
    """The lines of a section, empty where it is missing."""
    found = re.search(rf"^{name}:\n((?: +.*\n?|\n)*)", doc + "\n", re.MULTILINE)
    return found[1] if found else ""


def unnamed(names: list[str], text: str) -> list[str]:
    """The names that a section does not begin an entry with; several names may share an entry."""
    return [name for name in names if not re.search(rf"^ +(?:\*?\w+, )*\*{{0,2}}{name}\b", text, re.MULTILINE)]


def decorators(node: Function | ast.ClassDef) -> set[str]:
    return {ast.unparse(item).split("(")[0].split(".")[-1] for item in node.decorator_list}


def parameters(node: Function) -> list[str]:
    return [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]


# Parameters of the methods of protocols, by class and method.
PROTOCOLS = {
    (node.name, method.name): parameters(method)
    for path in FILES
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in node.bases)
    for method in node.body
    if isinstance(method, ast.FunctionDef)
}


def missing_in_function(node: Function, *, method: bool) -> Iterator[str]:
    doc, marks = ast.get_docstring(node) or "", decorators(node)
    if not doc:
        yield "no docstring"
    if not doc or marks & {"property", "cached_property"}:
        return
    names = parameters(node)
    names = names[1:] if method and "staticmethod" not in marks else names
    protocol = re.search(rf"see `(\w+)\.{node.name}`", doc)
    if protocol and protocol[1] in {name for name, _ in PROTOCOLS}:  # an implementation refers to what it implements
        if PROTOCOLS.get((protocol[1], node.name)) != parameters(node):
            yield f"{protocol[1]}.{node.name} is not a method of a protocol with the same parameters"
        return
    yield from (f"{name} is not in Args" for name in unnamed(names, section(doc, "Args")))
    returns = ast.unparse(node.returns) if node.returns else "None"
    said = doc.startswith(("Return ", "Yield "))
    if returns != "None" and not (said or section(doc, "Returns") or section(doc, "Yields")):
        yield "no Returns"


def missing_in_class(node: ast.ClassDef) -> Iterator[str]:
    doc = ast.get_docstring(node) or ""
    if not doc:
        yield "no docstring"
        return
    fields = [f.target.id for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]
    if "dataclass" in decorators(node):
        public = [name for name in fields if not name.startswith("_")]
        yield from (f"{name} is not in Attributes" for name in unnamed(public, section(doc, "Attributes")))
    for method in node.body:
        if isinstance(method, Function) and not method.name.startswith("_"):
            yield from (f"{method.name}: {text}" for text in missing_in_function(method, method=True))


def public(nodes: list[ast.stmt]) -> Iterator[Function | ast.ClassDef]:
    for node in nodes:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    missing = [] if ast.get_docstring(tree) else ["the module has no docstring"]
    for node in public(tree.body):
        found = missing_in_class(node) if isinstance(node, ast.ClassDef) else missing_in_function(node, method=False)
        missing += [f"line {node.lineno}, {node.name}: {text}" for text in found]
    assert not missing, "\n".join(missing)


def test_what_is_missing_is_found() -> None:
    source = '''
def f(a, b) -> int:
    """Summary.

    Args:
        a: Said.
    """
'''
    (node,) = public(ast.parse(source).body)
    assert isinstance(node, ast.FunctionDef)
    assert list(missing_in_function(node, method=False)) == ["b is not in Args", "no Returns"]


def test_a_method_may_refer_to_its_protocol() -> None:
    source = '''
def count(self, cameras, time_range) -> int:
    """Count, see `IndexView.count`."""
def search(self, queries) -> list:
    """Search, see `IndexView.search`."""
'''
    right, wrong = public(ast.parse(source).body)
    assert isinstance(right, ast.FunctionDef) and isinstance(wrong, ast.FunctionDef)
    assert list(missing_in_function(right, method=True)) == []
    (text,) = missing_in_function(wrong, method=True)
    assert text.startswith("IndexView.search is not a method")
