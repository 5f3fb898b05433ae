"""Who imports whom: a room imports rooms above it in `ROOMS`, never below, and there is no circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "reid"

# From the ground up. CONTRIBUTING.md shows the same list.
ROOMS = {
    "errors": "the ways a command can fail, and exit codes",
    "records": "the records that cross rooms: Split, Features, Scores, StageLog",
    "io": "reading and writing files safely and atomically",
    "distributed": "torchrun: rank, gather, one writer",
    "decorrelation": "the algebra of the paper: S(W), spectra, US / U / UVt / QD",
    "losses": "what training minimizes",
    "ranking": "exact retrieval evaluation: features in, scores out",
    "model": "backbones, pooling, normalization, connection, Eigenlayer, heads, network",
    "data": "datasets, synthetic pedestrians, images, augmentation, loading",
    "training": "the engine: epoch, step, optimizer, schedule, state, run folder",
    "evaluation": "from a network to scores: features, protocols, whitening",
    "svdnet": "the method, one file per word of the paper: Step 0, decorrelate, Restraint, Relaxation, RRI",
    "config": "keys, checks, loading, and `build.py`: the only place below `tools/` that reads one",
    "report": "pages, figures and tables from files; computes no metric",
    "sweep": "many runs for one question",
    "diagnostics": "weights, features and data -> numbers as JSON",
    "inference": "a trained model at work: embedder, conversion, calibration, export",
    "search": "a folder of crops as an index, and the page on it",
}
FLOOR = {room: number for number, room in enumerate(ROOMS)}


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


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if "." in name} - {"__version__"}


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_every_room_is_listed() -> None:
    entries = {path.stem for path in PACKAGE.iterdir() if path.name not in ("__init__.py", "__pycache__", "assets")}
    assert entries == set(ROOMS)


def test_contributing_shows_the_list() -> None:
    table = [f"| `{room}` | {meaning} |" for room, meaning in ROOMS.items()]
    assert "\n".join(table) in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_upward_import(path: Path) -> None:
    room = module_name(path).split(".")[1]
    for other in rooms_imported(path):
        assert FLOOR[other] <= FLOOR[room], f"{path} imports {other}, which stands below {room} in ROOMS"


@pytest.mark.parametrize("room", ["losses", "ranking", "model", "data"])
def test_these_rooms_do_not_know_each_other(room: str) -> None:
    for path in FILES:
        if module_name(path).split(".")[1] == room:
            others = rooms_imported(path) & {"losses", "ranking", "model", "data"} - {room}
            assert not others, f"{path} imports {others}"


def test_only_build_reads_the_configuration() -> None:
    for path in FILES:
        used = {name for name in imports(path) if f"{name}.".startswith("reid.config.")}
        if used and module_name(path).split(".")[1] != "config":
            allowed = {name for name in used if name == "reid.config" or f"{name}.".startswith("reid.config.build.")}
            assert "reid.config.build" in used, f"{path} reads a configuration; pass it what it needs"
            assert used == allowed, f"{path} imports {used - allowed}; only reid.config.build may be used"


def test_report_and_ranking_keep_to_themselves() -> None:
    for path in FILES:
        room = module_name(path).split(".")[1]
        if room == "report":
            assert rooms_imported(path) <= {"report", "records", "errors", "io"}, f"{path} computes"
        if room == "ranking":
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
