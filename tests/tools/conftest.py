"""Commands called as a user calls them, in this process: arguments in, exit code and output out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from reid.commands import run

ROOT = Path(__file__).parents[2]
QUICK = (
    *("DATASETS.SYNTHETIC.SIZE", "tiny", "INPUT.SIZE", "[32, 16]", "INPUT.PAD", "2", "SOLVER.BATCH_SIZE", "16"),
    *("MODEL.BACKBONE", "resnet18", "SOLVER.PRECISION", "float32", "STEP0.EPOCHS", "2", "RRI.MAX_ROUNDS", "1"),
    *(
        "RRI.FINAL_RESTRAINT",
        "False",
        "RESTRAINT.EPOCHS",
        "1",
        "RELAXATION.EPOCHS",
        "1",
        "RRI.LOSS_IMAGES",
        "32",
        "MODEL.EIGENLAYER.DIM",
        "32",
    ),
)


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Tool = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for all these tests, and no dataset of the user's."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("REID_CACHE", str(cache))
    monkeypatch.delenv("REID_DATA", raising=False)
    monkeypatch.delenv("REID_WEIGHTS", raising=False)


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
