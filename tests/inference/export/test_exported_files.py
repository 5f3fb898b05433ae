"""Exported files answer what the network answers, at any number of images, and tell what they are."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from reid.data.loading.user_images import GivenImages
from reid.errors import InputError
from reid.inference.export.checked_export import checked_file
from reid.inference.export.files import (
    LIMITS,
    METADATA,
    OPSET,
    Answer,
    check_answer,
    check_available,
    largest_difference,
    onnx_answer,
    to_onnx,
    to_torch,
    torch_answer,
    write_export,
)
from reid.inference.export.interface import IMAGENET_MEAN, IMAGENET_STD
from reid.inference.export.local_connection import UnfoldedLocal
from reid.inference.export.metadata import Facts, metadata
from reid.inference.export.network import expected, trace
from reid.inference.export.sample_images import drawn_crops, read_crops
from reid.model.connection import LocallyConnected2d
from reid.model.folding import fold_norms
from reid.model.network import ReidNetwork

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

Make = Callable[..., ReidNetwork]
Describe = Callable[..., Facts]
SIZE = (64, 32)


@pytest.fixture(scope="module")
def osnet(make: Make) -> ReidNetwork:
    return make("osnet_x0_25")


@dataclass(frozen=True)
class Exported:
    facts: Facts
    onnx: bytes
    torch: bytes
    answers: dict[str, Answer]


@pytest.fixture(scope="module")
def exported(osnet: ReidNetwork, describe: Describe) -> Exported:
    """OSNet-x0.25 with all that can be asked for at once, in both formats."""
    facts = describe(
        size=SIZE, feature="output", flip=True, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), facts={"dim": 512}
    )
    folded = copy.deepcopy(osnet)  # as `Embedder` has it
    folded.backbone = fold_norms(folded.backbone)  # type: ignore[assignment]
    program = trace(folded, facts.form)
    files = to_onnx(program, metadata(facts)), to_torch(program, json.dumps(metadata(facts)))
    return Exported(facts, *files, {"onnx": onnx_answer(files[0]), "torch": torch_answer(files[1])})


def by_hand(network: ReidNetwork, pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """The Eigenlayer's output of unit length, mean with the mirror image's, all in float64 and one image at a time."""
    rows = []
    network = network.double()
    for image in pixels:
        values = torch.stack([(image[c].double() / 255 - mean[c]) / std[c] for c in range(3)])[None]
        with torch.no_grad():
            maps = [network.neck(network.backbone(v).mean((2, 3))) for v in (values, torch.flip(values, [3]))]
        row = sum((maps[i] @ network.eigenlayer.weight.T.double())[0] for i in (0, 1)).detach().numpy()
        rows.append(row / np.sqrt((row * row).sum()))
    network.float()
    return np.array(rows)


@pytest.mark.parametrize("batch", [1, 3, 17])
def test_any_number_of_images_gives_the_embeddings(osnet: ReidNetwork, exported: Exported, batch: int) -> None:
    facts = exported.facts
    pixels = drawn_crops(SIZE, count=17)[:batch]
    wanted = by_hand(osnet, pixels, facts.form.mean, facts.form.std)
    images = facts.form.taken(pixels)
    # What a tracker feeds, whatever the network was trained by.
    for channel in range(3):
        plain = (pixels[:, channel].numpy() / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        np.testing.assert_allclose(images[:, channel].numpy(), plain, atol=1e-6)
    for format, limit in (("onnx", 1e-4), ("torch", 1e-5)):
        found = exported.answers[format](images)
        assert found.dtype == np.float32 and found.shape == (batch, 512)
        np.testing.assert_allclose(found, wanted, atol=limit)
        assert LIMITS[format] == limit
    np.testing.assert_allclose(expected(osnet, pixels, facts.form), wanted, atol=1e-5)


def test_the_onnx_file_tells_what_it_is_and_nothing_else(osnet: ReidNetwork, exported: Exported) -> None:
    facts, data = exported.facts, exported.onnx
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    (images,), (embeddings,) = model.graph.input, model.graph.output
    shapes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (images, embeddings)]
    assert (images.name, embeddings.name) == ("images", "embeddings")
    assert shapes == [["batch", 3, *SIZE], ["batch", 512]]
    told = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    assert told == metadata(facts)
    assert told["distance"] == "euclidean" and told["colour"] == "RGB" and told["feature"] == "output"
    assert (told["height"], told["width"], json.loads(told["mean"])) == ("64", "32", list(IMAGENET_MEAN))
    assert json.loads(told["normalised"]) is True and told["licence"] == "unknown"
    for word in (b".py", b"stack_trace", str(Path(__file__).parents[3]).encode(), b"classifier"):
        assert word not in data
    weights = sum(tensor.numel() for name, tensor in osnet.named_parameters() if not name.startswith("classifier"))
    assert 4 * weights < 1.02 * len(data) < 1.2 * 4 * weights  # batch normalization is in the convolutions


def test_the_torch_file_carries_the_same(exported: Exported) -> None:
    facts, data = exported.facts, exported.torch
    extra = {METADATA: ""}
    program = torch.export.load(io.BytesIO(data), extra_files=extra)
    assert json.loads(extra[METADATA]) == metadata(facts)
    assert not any("classifier" in name for name in program.state_dict)
    for word in (b"test_exported_files.py", b"network.py", str(Path(__file__).parents[3]).encode()):
        assert word not in data


def test_real_crops(osnet: ReidNetwork, exported: Exported, real_data: Path) -> None:
    facts = exported.facts
    with zipfile.ZipFile(real_data / "Market-1501-v15.09.15.zip") as archive:
        names = sorted(name for name in archive.namelist() if "/query/" in name and name.endswith(".jpg"))[:180:30]
        crops = [Image.open(io.BytesIO(archive.read(name))) for name in names]
    images = GivenImages(crops, SIZE, threads=1)
    pixels = torch.from_numpy(np.stack([images.decode(number) for number in range(len(images))]))
    wanted = by_hand(osnet, pixels, facts.form.mean, facts.form.std)
    for format, answer in exported.answers.items():
        np.testing.assert_allclose(answer(facts.form.taken(pixels)), wanted, atol=LIMITS[format])
        assert check_answer(answer, pixels, wanted.astype(np.float32), facts.form, limit=LIMITS[format]) > 0


@pytest.mark.parametrize(
    ("pooling", "options", "norm"),
    [
        ("gem", {"p_per_channel": True, "l2": True}, "instance"),
        ("weighted_gem", {}, "weight"),
        ("hard_vlad", {"clusters": 4, "init": "random"}, "cosine"),
    ],
)
def test_poolings_and_norms(
    make: Make, describe: Describe, pooling: str, options: dict[str, object], norm: str
) -> None:
    network = make("small_convolution", pooling=pooling, pooling_options=options, norm=norm)
    if hasattr(network.pooling, "omega"):
        torch.nn.init.normal_(network.pooling.omega.weight)
    facts = describe(normalized=False)
    pixels = drawn_crops((128, 64), count=5)
    data, difference = checked_file(network, facts, pixels, format="onnx")
    with torch.no_grad():
        images = facts.form.taken(pixels)
        wanted = torch.cat([network.embed(image[None]).input for image in images]).numpy()
    found = onnx_answer(data)(images)
    assert 0 < difference < 1e-5
    assert np.abs(found - wanted).max() < 1e-4 * np.linalg.norm(wanted, axis=1).min()
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() > 1e-3 or pooling in ("gem", "hard_vlad")


def test_local_connection_is_unfolded(make: Make, describe: Describe) -> None:
    """DeepFace's layer, with stride, padding and bias: the product of every window with the kernel of its place."""
    torch.manual_seed(0)
    layer = LocallyConnected2d(3, 4, (3, 2), input_size=(7, 6), stride=(2, 1), padding=(1, 0))
    torch.nn.init.normal_(layer.bias)
    maps = torch.randn(5, 3, 7, 6)
    with torch.no_grad():
        np.testing.assert_allclose(UnfoldedLocal(layer)(maps).numpy(), layer(maps).numpy(), atol=1e-5)
    network, pixels = make("small_local", norm="group", norm_groups=8), drawn_crops((128, 64), count=5)
    _, difference = checked_file(network, describe(), pixels, format="onnx")
    assert 0 < difference < 1e-5


def test_normalizing_inside_is_normalizing_outside(make: Make, describe: Describe) -> None:
    network = make(
        "small_convolution", eigenlayer_dim=16, eigenlayer_parametrization="scaled_orthogonal", pooling="average_max"
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pixels, found = drawn_crops((128, 64), count=3), []
    for preprocessing, images in (("tracker", torch.float32), ("inside", torch.uint8)):
        form = describe(feature="output", preprocessing=preprocessing).form
        assert form.taken(pixels).dtype == form.dtype == images
        found.append(torch_answer(to_torch(trace(network, form), "{}"))(form.taken(pixels)))
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(found[0], expected(network, pixels, form), atol=1e-5)
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_file_that_answers_otherwise_is_refused(make: Make, describe: Describe) -> None:
    form = describe().form
    pixels = drawn_crops(form.size, count=3)
    wanted = np.eye(3, 128, dtype=np.float32)
    close = iter(np.split(wanted + np.float32(9e-5), [1]))
    assert check_answer(lambda images: next(close), pixels, wanted, form, limit=1e-4) == pytest.approx(9e-5, rel=1e-3)
    far = iter(np.split(wanted + np.float32(2e-4), [1]))
    with pytest.raises(InputError, match=r"differs from PyTorch by 2\.0e-04 .* 3 images"):
        check_answer(lambda images: next(far), pixels, wanted, form, limit=1e-4)
    with pytest.raises(InputError, match="by nan"):
        check_answer(lambda images: np.full((len(images), 128), np.nan), pixels, wanted, form, limit=1e-4)
    assert largest_difference(np.array([[3.0, 4.1]]), np.array([[3.0, 4.0]])) == pytest.approx(0.02)


def test_images_too_small_for_a_network_are_told(make: Make, describe: Describe) -> None:
    network = make("small_convolution", pooling="rmac", pooling_options={"levels": 9})
    with pytest.raises(InputError, match="R-MAC of 9 levels has"):
        trace(network, describe().form)


def test_missing_and_old_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from reid.inference.export import files

    check_available("onnx")
    monkeypatch.setattr(files, "version", lambda name: "1.2.3" if name == "onnx" else "99.0")
    with pytest.raises(InputError, match=r"onnx 1\.23 or newer \(1\.2\.3 is installed\): pip install 'reid\[export\]'"):
        check_available("onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"onnxscript \(missing\).*reid\[export\]"):
        check_available("onnx")
    check_available("torch")


def test_a_card_that_cannot_be_written_takes_its_file_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reid.inference.export import files

    def fail_on_cards(path: Path, data: bytes) -> None:
        if path.suffix == ".md":
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(files, "write_whole", fail_on_cards)
    with pytest.raises(OSError, match="No space"):
        write_export(tmp_path / "m.onnx", b"model", "card", force=False)
    assert not list(tmp_path.iterdir())


def test_crops_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    colors = [(10 * i, 0, 0) for i in range(9)]
    for number, color in enumerate(colors):
        Image.new("RGB", (20, 40), color).save(tmp_path / "deep" / f"{number}.png")
    pixels = read_crops([tmp_path, tmp_path / "deep" / "3.png"], (32, 16))
    assert pixels.shape == (10, 3, 32, 16) and pixels.dtype == torch.uint8
    assert pixels[:, 0, 0, 0].tolist() == [*(c[0] for c in colors), 30]
    assert read_crops([tmp_path], (32, 16), most=3)[:, 0, 0, 0].tolist() == [0, 40, 80]
    (tmp_path / "deep" / "x.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"x\.jpg"):
        read_crops([tmp_path], (32, 16))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="none: holds no image"):
        read_crops([tmp_path / "none"], (32, 16))
