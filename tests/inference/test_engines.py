"""Engines besides PyTorch: their features, the choice among them, and what becomes of one that does not agree."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composed_network import compose
from narrow_resnet import narrow_resnet34
from torch import Tensor, nn
from untrained import save_untrained

import reid.inference.engines.engine as engine_module
import reid.model.precision as precision_module
from reid import Embedder
from reid.config import build
from reid.data.loading import user_images
from reid.errors import InputError
from reid.inference.engines import sessions, speed
from reid.inference.engines.engine import Engine, check_engine
from reid.inference.engines.export import engine_folder, export_path
from reid.inference.engines.speed import remembered_speed
from reid.model.network import ReidNetwork

__all__ = ["narrow_resnet34"]
pytestmark = pytest.mark.usefixtures("narrow_resnet34")
pytest.importorskip("onnxruntime")
SIZE = (64, 32)
THREADS = 2


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engine_module, "thread_count", lambda: THREADS)


def make_network(seed: int = 0, backbone: str = "resnet34", **options: Any) -> ReidNetwork:
    torch.manual_seed(seed)
    network = compose(backbone, 7, **options)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return network.train()


def batches(*counts: int, size: tuple[int, int] = SIZE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, 3, *size, generator=generator) for count in counts]


def features(engine: Engine, images: list[Tensor]) -> list[Tensor]:
    return [side for one in engine.embed_batches(iter(images)) for side in (one.input, one.output)]


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds per image that are "measured"; the number of measurements is added as "calls"."""
    known = {"torch": 1.0, "onnxruntime": 0.1, "openvino": 0.5}

    def measure(engines: dict[str, Callable[[Tensor], object]], images: Tensor) -> dict[str, float]:
        assert len(images) == THREADS * sessions.PART
        known["calls"] = known.get("calls", 0) + 1
        return {name: known[name] for name in engines}

    monkeypatch.setattr(engine_module, "measure_seconds", measure)
    return known


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_engine_computes_the_same_for_batches_of_any_size(name: str) -> None:
    pytest.importorskip(name)
    network, images = make_network(), batches(5, 70, 1, 3)
    expected, engine = features(Engine(network, "torch"), images), Engine(network, name)
    found = features(engine, images)
    assert engine.name == name and network.training
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape and theirs.std() > 1e-3
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    for ours, again in zip(found, features(Engine(network, name), images), strict=True):
        assert torch.equal(ours, again)


@pytest.mark.parametrize("pooling", ["gem", "netvlad"])
def test_poolings(pooling: str) -> None:
    network, images = make_network(pooling=pooling), batches(20)
    engine = Engine(network, "onnxruntime")
    [found, _], [expected, _] = features(engine, images), features(Engine(network, "torch"), images)
    assert engine.name == "onnxruntime" and (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_auto_prepares_an_engine_once_it_pays(monkeypatch: pytest.MonkeyPatch, times: dict[str, float]) -> None:
    monkeypatch.setattr(engine_module, "MIN_IMAGES", 10)
    network = make_network()
    first = Engine(network, "auto", model_id="0a")
    features(first, batches(4))
    assert first.name == "torch" and "calls" not in times and not engine_folder().exists()
    first.expect(1000)
    features(first, batches(4))
    assert first.name == "onnxruntime" and times["calls"] == 1
    kept = export_path("0a", SIZE)
    assert kept.is_file()
    # Both are remembered: a later process needs few images, and measures nothing.
    second = Engine(network, "auto", model_id="0a")
    features(second, batches(1))
    assert second.name == "onnxruntime" and times["calls"] == 1
    # The speed does not depend on the weights. Without an export, it takes more images to pay.
    other = Engine(make_network(1), "auto")
    features(other, batches(1))
    assert other.name == "torch"
    other.expect(1000)
    features(other, batches(1))
    assert other.name == "onnxruntime" and times["calls"] == 1


def test_auto_stays_with_pytorch_where_it_is_the_fastest(
    monkeypatch: pytest.MonkeyPatch, times: dict[str, float]
) -> None:
    monkeypatch.setattr(engine_module, "MIN_IMAGES", 1)
    times["torch"] = 0.01
    engine = Engine(make_network(), "auto")
    features(engine, batches(2))
    assert engine.name == "torch" and times["calls"] == 1
    [file] = engine_folder().glob("speed_*.json")
    assert remembered_speed(file.stem.removeprefix("speed_")) is not None
    file.write_text('{"seconds": 3')  # damaged: measured again
    features(Engine(make_network(), "auto"), batches(2))
    assert times["calls"] == 2


def test_an_engine_that_does_not_agree_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = engine_module.exported_network(make_network(1), SIZE, None)
    monkeypatch.setattr(engine_module, "exported_network", lambda *arguments: other)
    network, images = make_network(), batches(3, 2)
    engine = Engine(network, "onnxruntime")
    with caplog.at_level(logging.WARNING):
        found = features(engine, images)
    assert engine.name == "torch" and len(caplog.messages) == 1
    assert "onnxruntime differs from PyTorch by " in caplog.text and "embedding with PyTorch" in caplog.text
    for ours, expected in zip(found, features(Engine(network, "torch"), images), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("failing", ["load", "run", "differ"])
def test_auto_takes_the_fastest_engine_that_works(
    failing: str, times: dict[str, float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_module, "MIN_IMAGES", 1)
    monkeypatch.setattr(engine_module, "exported_network", lambda *arguments: b"")
    monkeypatch.setattr(engine_module, "installed_versions", lambda: {"openvino": "1", "onnxruntime": "1"})
    network, images = make_network().eval(), batches(3)
    expected = features(Engine(network, "torch"), images)

    def sound(data: bytes, threads: int, callers: int) -> sessions.Session:
        return lambda pixels: torch_features(pixels) + 1e-7

    def torch_features(pixels: np.ndarray) -> np.ndarray:
        return Engine(network, "torch")._run_torch(torch.from_numpy(pixels)).input.numpy()

    def broken(data: bytes, threads: int, callers: int) -> sessions.Session:
        if failing == "load":
            raise RuntimeError("no such\ninstruction")

        def run(pixels: np.ndarray) -> np.ndarray:
            if failing == "run":
                raise RuntimeError("no such\ninstruction")
            return torch_features(pixels) + 1

        return run

    def measure(engines: dict[str, Callable[[Tensor], object]], images: Tensor) -> dict[str, float]:
        return {name: times[name] for name in speed.measure_seconds(engines, images)}

    monkeypatch.setattr(engine_module, "measure_seconds", measure)
    monkeypatch.setattr(sessions, "_LOADERS", {"onnxruntime": sound, "openvino": broken})
    times["openvino"] = 0.01
    engine = Engine(network, "auto")
    engine.expect(1000)
    with caplog.at_level(logging.WARNING):
        found = features(engine, images)
    assert engine.name == "onnxruntime"
    assert all(torch.allclose(ours, theirs, atol=1e-5) for ours, theirs in zip(found, expected, strict=True))
    [message] = caplog.messages
    if failing == "differ":
        assert message.startswith("openvino differs from PyTorch by ")
        assert message.endswith("; embedding with onnxruntime")
    else:
        assert message == "openvino fails with RuntimeError: no such instruction; it is not used"
    # Where the others fail, too, PyTorch remains.
    monkeypatch.setattr(sessions, "_LOADERS", {"onnxruntime": broken, "openvino": broken})
    last = Engine(network, "auto")
    last.expect(1000)
    assert torch.equal(features(last, images)[0], expected[0]) and last.name == "torch"


def test_a_damaged_export_is_made_again() -> None:
    network, images = make_network(), batches(3)
    expected = features(Engine(network, "onnxruntime", model_id="0a"), images)
    kept = export_path("0a", SIZE)
    sound = kept.read_bytes()
    kept.write_bytes(sound[: len(sound) // 2])
    engine = Engine(network, "onnxruntime", model_id="0a")
    assert torch.equal(features(engine, images)[0], expected[0])
    assert engine.name == "onnxruntime" and len(kept.read_bytes()) == len(sound)


def test_what_cannot_be_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="openvino"):
        check_engine("openvin")
    with pytest.raises(InputError, match="runs on the CPU, not on cuda"):
        check_engine("onnxruntime", torch.device("cuda"))
    with pytest.raises(InputError, match="computes in float32"):
        check_engine("onnxruntime", torch.device("cpu"), torch.bfloat16)
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(InputError, match=r"openvino is not installed: pip install .*\[openvino\]"):
        check_engine("openvino")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    config = build.config_from_overrides(
        ["MODEL.BACKBONE", "resnet34", "MODEL.WEIGHTS", "none", "INPUT.SIZE", str(list(SIZE))], source="a test"
    )
    return save_untrained(tmp_path / "model.pth", config)


def test_the_embedder_keeps_the_order_with_flip_and_unreadable_images(saved: Path) -> None:
    generator = np.random.default_rng(0)
    images: list[Any] = [generator.integers(0, 256, (40, 20, 3), dtype=np.uint8) for _ in range(21)]
    images[13] = np.zeros(3)
    found, broken = {}, {}
    for name in ("torch", "onnxruntime"):
        broken[name] = dict[int, str]()
        embedder = Embedder.load(saved, device="cpu", flip=True, engine=name)
        found[name] = embedder.embed(images, batch_size=4, broken=broken[name])
        assert embedder.engine.name == name
        embedder.prepare()
    assert list(broken["onnxruntime"]) == [13] and not found["onnxruntime"][13].any()
    assert np.abs(found["onnxruntime"] - found["torch"]).max() < 1e-5


def test_lower_precision_is_another_model(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, *SIZE, 3), dtype=np.uint8)
    plain = Embedder.load(saved, device="cpu", engine="torch")
    monkeypatch.setattr(precision_module, "_has_bfloat16", lambda device: True)
    lower = Embedder.load(saved, device="cpu", precision="bfloat16")
    lower.engine.expect(10**9)
    difference = np.abs(lower.embed(images) - plain.embed(images)).max()
    assert 1e-5 < difference < 0.05 and lower.engine.name == "torch"
    assert lower.model_id != plain.model_id and "bfloat16" in repr(lower) and "float" not in repr(plain)
    assert plain.model_id == Embedder.load(saved, device="cpu", precision="float32").model_id
    with pytest.raises(InputError, match="the engine onnxruntime computes in float32"):
        Embedder.load(saved, device="cpu", engine="onnxruntime", precision="bfloat16")
    with pytest.raises(InputError, match="bfloat16"):
        Embedder.load(saved, device="cpu", precision="float16")
    monkeypatch.setattr(precision_module, "_has_bfloat16", lambda device: False)
    with pytest.raises(InputError, match="does not compute in bfloat16 natively"):
        Embedder.load(saved, device="cpu", precision="bfloat16")


def test_decoding_and_the_network_overlap(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    per_batch, count = 4, 6
    embedder = Embedder.load(saved, device="cpu", engine="onnxruntime")
    embedding, decoding = ([threading.Event() for _ in range(count)] for _ in range(2))
    alone = list[str]()

    def wait(event: threading.Event, what: str) -> None:
        if not event.wait(10):
            alone.append(what)

    def decode(path: str, size: tuple[int, int], resize: str) -> np.ndarray:
        batch = int(path) // per_batch
        decoding[batch].set()
        if batch >= 4:  # decoding is three batches ahead at most
            wait(embedding[0], f"batch {batch} is decoded before any is embedded")
        return np.full((3, *size), batch, dtype=np.uint8)

    def load(data: bytes, threads: int, callers: int) -> sessions.Session:
        def run(pixels: np.ndarray) -> np.ndarray:
            batch = round(255 * (0.485 + 0.229 * float(pixels[0, 0, 0, 0])))
            embedding[batch].set()
            if batch + 1 < count:
                wait(decoding[batch + 1], f"nothing is decoded while batch {batch} is embedded")
            return embedder.engine._run_torch(torch.from_numpy(pixels)).input.numpy()

        return run

    monkeypatch.setattr(user_images, "decode_image", decode)
    monkeypatch.setattr(engine_module, "exported_network", lambda *arguments: b"")
    monkeypatch.setattr(sessions, "_LOADERS", {"onnxruntime": load})
    embedder.embed([str(number) for number in range(per_batch * count)], batch_size=per_batch)
    assert embedder.engine.name == "onnxruntime" and not alone


OPENVINO_AND_CTRL_C = """
import gc, io, signal, sys
import torch
from reid.inference.engines.sessions import ParallelSession
network, file = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten()), io.BytesIO()
axes = {"images": {0: "count"}}
torch.onnx.export(
    network, (torch.zeros(2, 3, 8, 8),), file, input_names=["images"], dynamic_axes=axes, dynamo=False
)
session = ParallelSession("openvino", file.getvalue(), 2)
session.embed(torch.zeros(4, 3, 8, 8))
del session
gc.collect()
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_after_openvino_is_no_crash() -> None:
    pytest.importorskip("openvino")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", OPENVINO_AND_CTRL_C]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 130, ended.stderr
