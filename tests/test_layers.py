"""Import rules: a package imports only those above it in `PACKAGES`, and there are no circular imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REID = ROOT / "reid"

# Lowest layer first. CONTRIBUTING.md shows the same list.
PACKAGES = {
    "errors": "errors that a command reports, signals to stop, and how a command ends: one line and an exit code",
    "threads": "how many threads a process may have, and how long they wait for one another",
    "progress": "progress bars on a terminal",
    "records": "the records that packages exchange: Split, Features, Scores, StageLog",
    "io": "reading and writing files safely and atomically",
    "distributed": "multiple processes with torchrun: rank, gather, a single writer",
    "decorrelation": "the paper's linear algebra: S(W), spectra, US / U / UVt / QD; RRI in any training loop",
    "losses": "training losses",
    "ranking": "exact retrieval evaluation: features in, scores out",
    "model": "backbones, pooling, normalization, connection, Eigenlayer, heads, network",
    "data": "datasets, synthetic pedestrians, images, augmentation, loading",
    "training": "the training engine: epoch, step, optimizer, schedule, state, run folder",
    "evaluation": "from a network to scores: features, protocols, whitening",
    "svdnet": "one file per stage of the paper (Step 0, decorrelation, Restraint, Relaxation), and RRI",
    "config": "configuration keys, checks, loading, and `build.py`, which creates objects from a configuration",
    "report": "pages, figures and tables from files; computes no metric",
    "sweep": "hyperparameter sweeps: many runs, one table",
    "diagnostics": "measurements of weights, features and datasets, written as JSON",
    "inference": "using a trained model: embedder, conversion, calibration, export",
    "search": "a folder of crops as an index, and its search server",
    "commands": "what a user types: one module per command, run by `svdnet NAME` and the scripts in `tools/`",
}
LEVEL = {package: number for number, package in enumerate(PACKAGES)}


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
    parts = path.relative_to(REID.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def packages_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if "." in name} - {"__version__"}


_TOP = ("__init__.py", "__main__.py")
FILES = [path for path in sorted(REID.rglob("*.py")) if path.parent != REID or path.name not in _TOP]


def test_every_package_is_listed() -> None:
    entries = {path.stem for path in REID.iterdir() if path.name not in (*_TOP, "__pycache__", "assets", "py.typed")}
    assert entries == set(PACKAGES)


def test_contributing_shows_the_list() -> None:
    table = [f"| `{package}` | {contents} |" for package, contents in PACKAGES.items()]
    assert "\n".join(table) in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_upward_import(path: Path) -> None:
    package = module_name(path).split(".")[1]
    for other in packages_imported(path):
        # What `reid` itself offers, such as Embedder, comes from the packages above.
        level = LEVEL.get(other, LEVEL["commands"])
        assert level <= LEVEL[package], f"{path} imports {other}, which comes after {package} in PACKAGES"


@pytest.mark.parametrize("package", ["losses", "ranking", "model", "data"])
def test_independent_packages_do_not_import_each_other(package: str) -> None:
    for path in FILES:
        if module_name(path).split(".")[1] == package:
            others = packages_imported(path) & {"losses", "ranking", "model", "data"} - {package}
            assert not others, f"{path} imports {others}"


def test_only_commands_and_build_read_the_configuration() -> None:
    for path in FILES:
        used = {name for name in imports(path) if f"{name}.".startswith("reid.config.")}
        if used and module_name(path).split(".")[1] not in ("config", "commands"):
            allowed = {name for name in used if name == "reid.config" or f"{name}.".startswith("reid.config.build.")}
            assert "reid.config.build" in used, f"{path} reads a configuration; pass it the values it needs"
            assert used == allowed, f"{path} imports {used - allowed}; only reid.config.build may be used"


def test_report_only_renders_and_ranking_needs_no_network() -> None:
    for path in FILES:
        package = module_name(path).split(".")[1]
        if package == "report":
            assert packages_imported(path) <= {"report", "records", "errors", "io", "progress"}, f"{path} computes"
        if package == "ranking":
            assert "nn" not in path.read_text(encoding="utf-8").replace(".", " ").split(), f"{path} uses torch.nn"


def test_no_circular_imports() -> None:
    modules = {module_name(path): path for path in FILES}
    graph = {name: (imports(path) & set(modules)) - {name} for name, path in modules.items()}
    # `from reid.data import split_table` also names its package, whose __init__ imports its own files: not circular.
    graph = {name: {o for o in others if not name.startswith(f"{o}.")} for name, others in graph.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circular import: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())
    assert len(done) == len(modules)


def test_functions_are_short_and_take_few_arguments() -> None:
    too_large = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
                names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                count = len([name for name in names if name not in ("self", "cls")])
                lines = (node.end_lineno or 0) - node.lineno + 1
                if count > 8 or lines > 60:
                    too_large.append(f"{path.name}:{node.lineno} {node.name}: {count} arguments, {lines} lines")
    assert not too_large, "\n".join(too_large)
