"""What `import reid` offers: five names that lead to the rest."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

import reid
from reid.config import load_config
from reid.errors import InputError

ROOT = Path(__file__).parents[1]
NAMES = ["Embedder", "correlation_metric", "evaluate", "top_k", "train"]
SMALL = {
    "DATASETS.SYNTHETIC.SIZE": "tiny",
    "INPUT.SIZE": (32, 16),
    "SOLVER.BATCH_SIZE": 16,
    "STEP0.EPOCHS": 1,
    "STEP0.WARMUP_EPOCHS": 0,
    "RRI.MAX_ROUNDS": 0,
    "RRI.FINAL_RESTRAINT": False,
    "RRI.CONTROL": False,
    "MODEL.EIGENLAYER.DIM": 32,
}


def test_dir_and_help_name_the_doors() -> None:
    assert [name for name in dir(reid) if not name.startswith("_")] == NAMES
    for name in NAMES:
        assert f"`{name}`" in (reid.__doc__ or "") and len(inspect.getdoc(getattr(reid, name)) or "") > 200
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        reid.trian  # noqa: B018


def test_train_returns_scores_and_paths(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, blank_charts: None
) -> None:
    monkeypatch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    overrides = {**SMALL, "OUTPUT_DIR": str(tmp_path / "run")}
    path = ROOT / "configs" / "demo_synthetic.yaml"
    result = reid.train(path, overrides)
    assert result.folder == tmp_path / "run" and result.checkpoint.is_file() and result.report.is_file()
    assert result.scores == json.loads((result.folder / "scores.json").read_text())
    assert reid.Embedder.load(result.checkpoint).size == (32, 16)
    with pytest.raises(InputError, match="--resume"):
        reid.train(path, overrides)
    node = load_config(result.folder / "config.yaml")
    assert reid.train(node, resume=True).scores == result.scores
