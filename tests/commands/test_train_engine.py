"""The engine of the evaluations between stages: one for a whole run, also where the run was interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import reid
import reid.commands.train as train_module
import reid.inference.engines.engine as engine_module
from reid.errors import Interrupted

pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[2]
SMALL = {
    "DATASETS.SYNTHETIC.SIZE": "tiny",
    "INPUT.SIZE": (32, 16),
    "SOLVER.BATCH_SIZE": 16,
    "STEP0.EPOCHS": 1,
    "STEP0.WARMUP_EPOCHS": 0,
    "RESTRAINT.EPOCHS": 1,
    "RRI.MAX_ROUNDS": 0,
    "RRI.FINAL_RESTRAINT": True,
    "RRI.CONTROL": False,
    "RRI.LOSS_IMAGES": 16,
    "MODEL.EIGENLAYER.DIM": 32,
}


def test_a_resumed_run_is_scored_by_the_same_engine(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(engine_module, "MIN_IMAGES", 1)
    monkeypatch.setattr(engine_module, "remember_speed", lambda *arguments: None)
    seconds = {"torch": 100.0, "onnxruntime": 0.1, "openvino": 1.0}

    def measure(engines: dict[str, Any], images: object) -> dict[str, float]:
        return {name: seconds[name] for name in engines}

    monkeypatch.setattr(engine_module, "measure_seconds", measure)
    overrides = {**SMALL, "OUTPUT_DIR": str(tmp_path / "run")}
    path = ROOT / "configs" / "demo_synthetic.yaml"
    with monkeypatch.context() as patch:

        def interrupt(*arguments: object) -> str:
            raise KeyboardInterrupt

        patch.setattr(train_module.rri, "run", interrupt)
        with pytest.raises(Interrupted):
            reid.train(path, overrides)
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["engine"] == "onnxruntime"
    seconds["torch"] = 0.01
    opened, original = list[str](), engine_module.Engine._open

    def recorded(self: engine_module.Engine, engine: str, *arguments: Any) -> Any:
        opened.append(engine)
        return original(self, engine, *arguments)

    monkeypatch.setattr(engine_module.Engine, "_open", recorded)
    result = reid.train(path, overrides, resume=True)
    assert result.scores["engine"] == "onnxruntime" and opened and set(opened) == {"onnxruntime"}
