"""The notebooks run from the first cell to the last, on less data."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from forked import start
from IPython.core.interactiveshell import InteractiveShell

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SMALL = {
    "svdnet_in_ten_minutes": 'SIZE, STEP0_EPOCHS, EPOCHS = "tiny", 1, 1',
    "your_checkpoint": """CHECKPOINT = "demo"
DATASET = ["DATASETS.NAME", "synthetic", "DATASETS.SYNTHETIC.SIZE", "tiny"]""",
}


def execute(notebook: nbformat.NotebookNode) -> int:
    """Run all cells as a kernel does; returns the exit code."""
    shell = InteractiveShell.instance()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shell.run_cell(cell.source, store_history=True).raise_error()
    return 0


@pytest.mark.parametrize("name", SMALL)
def test_it_runs(name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path_factory.getbasetemp() / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    parameters = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(parameters) == 1
    parameters[0].source = SMALL[name]
    process = start(lambda: execute(notebook))  # a process of its own, as a kernel, without its imports
    try:
        printed, errors = process.stdout.read(), process.stderr.read()
        assert process.wait(300) == 0, printed + errors
    finally:
        process.close()
    assert {"svdnet_in_ten_minutes": "Relaxation     S(W)", "your_checkpoint": "95 % interval"}[name] in printed


def test_every_notebook_is_run_and_stored_without_output() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SMALL)
    for path in NOTEBOOKS.glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") for cell in cells), f"{path.name}: clear the outputs before committing"
