"""Commands called as a user calls them, in this process: arguments in, exit code and output out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from called import Ended, Tool

from reid.commands import run
from reid.data.synthetic import generate_dataset

ROOT = Path(__file__).parents[2]
QUICK = (
    *("DATASETS.SYNTHETIC.SIZE", "tiny", "INPUT.SIZE", "[128, 64]", "INPUT.PAD", "2", "SOLVER.BATCH_SIZE", "16"),
    *("MODEL.BACKBONE", "small_convolution", "MODEL.EIGENLAYER.DIM", "32", "SOLVER.PRECISION", "float32"),
    *("STEP0.EPOCHS", "2", "RESTRAINT.EPOCHS", "1", "RELAXATION.EPOCHS", "1", "RRI.MAX_ROUNDS", "1"),
    *("RRI.FINAL_RESTRAINT", "False", "RRI.LOSS_IMAGES", "32"),
)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, blank_charts: None) -> None:
    """One cache for all these tests, also in several processes, no dataset of the user's, and blank charts."""
    monkeypatch.setenv("REID_CACHE", str(shared_folder(tmp_path_factory) / "cache"))
    monkeypatch.delenv("REID_DATA", raising=False)
    monkeypatch.delenv("REID_WEIGHTS", raising=False)


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this run of the tests, the same in all of its processes."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def drawn_market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest synthetic dataset in the layout of Market-1501; must not be changed."""
    return generate_dataset(tmp_path_factory.mktemp("drawn") / "data", size="tiny", seed=2, progress=False)


@pytest.fixture
def market(drawn_market: Path, tmp_path: Path) -> Path:
    """A copy of that dataset, which a test may change."""
    return Path(shutil.copytree(drawn_market, tmp_path / "data")) / "Market-1501-v15.09.15"


@pytest.fixture
def quick() -> tuple[str, ...]:
    """Overrides that make a run as small as can be."""
    return QUICK


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    def call(name: str, *arguments: str | Path) -> Ended:
        capsys.readouterr()
        try:
            code = run(name, [str(argument) for argument in arguments])
        except SystemExit as ended:  # of argparse
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return call


@pytest.fixture
def train(tool: Tool, tmp_path: Path) -> Tool:
    """The demo's config made as small as can be, into `tmp_path / "run"`."""

    def call(*arguments: str | Path) -> Ended:
        output = ("OUTPUT_DIR", str(tmp_path / "run"))
        return tool("train", "--config-file", ROOT / "configs" / "demo_synthetic.yaml", *QUICK, *output, *arguments)

    return call
