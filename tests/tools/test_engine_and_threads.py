"""Every command that embeds images does it with the engine and the threads that it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import served
import torch
from called import Tool
from untrained import save_untrained

import reid.data.images.cache as cache_module
import reid.data.images.pixels as pixels_module
from reid.config import build
from reid.config.loading import load_config
from reid.inference.engines.engine import Engine

pytest.importorskip("onnxruntime")
CONFIG = Path(__file__).parents[2] / "configs" / "demo_synthetic.yaml"
THREADS = 3


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> served.SampleIndex:
    return served.build_sample_index(tmp_path_factory.mktemp("engines"), identities=2, cameras=2)


@pytest.fixture
def checkpoint(quick: tuple[str, ...], tmp_path: Path) -> Path:
    """An untrained network of a training with one thread."""
    config = load_config(CONFIG, [*quick, "THREADS", "1", "MODEL.EIGENLAYER.DIM", "8"])
    return save_untrained(tmp_path / "model.pth", config, classes=8)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """The engines that embed."""
    found, embed_batches = list[Engine](), Engine.embed_batches

    def record(self: Engine, batches: Any) -> Any:
        found.append(self)
        return embed_batches(self, batches)

    monkeypatch.setattr(Engine, "embed_batches", record)
    return found


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of threads that decode; afterwards PyTorch has as many threads as before."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # with a request, the cores of this machine do not matter
    found, original, before = list[int](), pixels_module.decoding_threads, torch.get_num_threads()

    def record() -> int:
        found.append(original())
        return found[-1]

    monkeypatch.setattr(cache_module, "decoding_threads", record)
    monkeypatch.setattr(pixels_module, "decoding_threads", record)
    yield found
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["evaluate", "extract", "ranks", "diagnose", "calibrate"])
def test_keys(
    name: str, tool: Tool, checkpoint: Path, tmp_path: Path, engines: list[Engine], decoding: list[int]
) -> None:
    torch.set_num_threads(2)
    engine = ("--engine", "onnxruntime", "--rates", "0.1") if name == "calibrate" else ("ENGINE", "onnxruntime")
    ended = tool(name, "--weights", checkpoint, "--output", tmp_path / "out", *engine, "THREADS", THREADS).ok()
    assert engines and {engine.name for engine in engines} == {"onnxruntime"}
    assert {session._threads for engine in engines for session in engine._chosen.values() if session} == {THREADS}
    assert torch.get_num_threads() == THREADS and decoding and set(decoding) == {THREADS}
    if name == "evaluate":
        assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["engine"] == "onnxruntime"
    if name == "extract":
        assert "embedded by onnxruntime\n" in ended.out


@pytest.mark.parametrize("name", ["train", "profile"])
def test_threads_of_commands_that_train(
    name: str, tool: Tool, quick: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoding: list[int]
) -> None:
    torch.set_num_threads(2)
    words = (name, "--config-file", CONFIG, *quick, "OUTPUT_DIR", tmp_path / "run", "THREADS", THREADS)

    def stop(*unused: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "network", stop)  # after the images are decoded
    tool(*words)
    assert decoding and set(decoding) == {THREADS}


def test_options(
    tool: Tool, sample: served.SampleIndex, tmp_path: Path, engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ("--engine", "onnxruntime", "--device", "cpu")
    ended = tool("index", sample.crops, "--index", tmp_path / "i", "--weights", sample.weights, *engine).ok()
    assert "4 embedded" in ended.out, ended.err
    query = next(sample.crops.iterdir())
    tool("search", query, "--index", tmp_path / "i", "--output", tmp_path / "found.html", *engine).ok()
    pytest.importorskip("fastapi", reason="needs the extra serve")
    import reid.search.serve.server as server_module

    monkeypatch.setattr(server_module, "run", lambda app, listener: None)
    assert tool("serve", "--index", tmp_path / "i", "--port", "0", *engine).ok().out.endswith("stopped\n")
    assert len(engines) == 3 and {engine.name for engine in engines} == {"onnxruntime"}
