"""Who imports whom: a room imports only rooms below it and its own siblings, and there is no circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "reid"
LAYERS = (
    {
        *("errors", "files", "plain", "array_files", "mat_files", "tensor_files", "records", "choices", "combinations"),
        *("threads", "config", "distributed", "run", "checkpoint", "safetensors_files", "decorrelation", "shards"),
    },
    {"data", "model", "losses", "ranking", "feature_files"},
    {"stages", "features"},
    {
        *("sweep", "retrieval", "protocols", "experiment", "extraction", "build", "report", "diagnostics"),
        *("conversion", "embedder", "gallery", "calibration", "export", "serve"),
    },
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def imports(path: Path) -> set[str]:
    """The modules of `reid` that a file imports, dotted, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return {name for name in found if name == "reid" or name.startswith("reid.")}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", [p for p in FILES if p != PACKAGE / "__init__.py"], ids=module_name)
def test_no_upward_import(path: Path) -> None:
    room = module_name(path).split(".")[1]
    for name in imports(path):
        parts = name.split(".")
        if len(parts) == 1 or parts[1] == "__version__":
            continue
        other = parts[1]
        assert other in LEVEL, f"{path} imports {name}, a room without a layer"
        if LEVEL[room] == 1:
            assert other == room or LEVEL[other] == 0, f"{path} imports {name}"
        assert LEVEL[other] <= LEVEL[room], f"{path} imports {name}"


def test_only_build_reads_the_configuration() -> None:
    readers = {module_name(path) for path in FILES if any(n.startswith("reid.config") for n in imports(path))}
    assert readers == {"reid.build"}


def test_report_and_ranking_keep_to_themselves() -> None:
    for path in FILES:
        room = module_name(path).split(".")[1:2]
        rooms = {name.split(".")[1] for name in imports(path) if "." in name}
        if room == ["report"]:
            assert rooms <= {"report", "records", "errors", "plain", "run"}, f"{path} computes: {rooms}"
        if room == ["ranking"]:
            assert "nn" not in path.read_text(encoding="utf-8").replace(".", " ").split(), f"{path} knows networks"


def test_no_circle() -> None:
    modules = {module_name(path): path for path in FILES}
    graph = {name: (imports(path) & set(modules)) - {name} for name, path in modules.items()}
    # `from reid.data import banner` also names its package, whose __init__ imports its own files: not a circle.
    graph = {name: {o for o in others if not name.startswith(f"{o}.")} for name, others in graph.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())
    assert len(done) == len(modules)
