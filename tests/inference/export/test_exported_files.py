"""Exported files return the outputs of the network at any batch size, and carry their metadata."""

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
from torch import Tensor, nn

from reid.data.loading.user_images import ImageList
from reid.errors import InputError
from reid.inference.export.exporter import export_network
from reid.inference.export.files import write_export
from reid.inference.export.formats import (
    METADATA_FILE,
    OPSET,
    check_available,
    load_onnx,
    load_torch,
    to_onnx,
    to_torch,
)
from reid.inference.export.local_connection import UnfoldedLocal
from reid.inference.export.metadata import ModelMetadata
from reid.inference.export.sample_images import read_crops, synthetic_crops
from reid.inference.export.tracing import reference_output, trace_network
from reid.inference.export.verification import TOLERANCES, Runner, check_output, max_relative_difference
from reid.model.connection import LocallyConnected2d
from reid.model.folding import fold_norms
from reid.model.network import ReidNetwork
from reid.records import IMAGENET_MEAN, IMAGENET_STD

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

Make = Callable[..., ReidNetwork]
MakeMetadata = Callable[..., ModelMetadata]
SIZE = (64, 32)


@pytest.fixture(scope="module")
def osnet(make: Make) -> ReidNetwork:
    """OSNet-x0.25 with one block in each stage rather than two."""
    network = make("osnet_x0_25")
    for stage in (network.backbone.conv2, network.backbone.conv3, network.backbone.conv4):
        stage[1] = nn.Identity()
    return network


@dataclass(frozen=True)
class Exported:
    metadata: ModelMetadata
    onnx: bytes
    torch: bytes
    runners: dict[str, Runner]


@pytest.fixture(scope="module")
def exported(osnet: ReidNetwork, make_metadata: MakeMetadata) -> Exported:
    """The network with all that can be asked for at once, in both formats."""
    metadata = make_metadata(
        size=SIZE, feature="output", flip=True, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), fields={"dim": 512}
    )
    folded = copy.deepcopy(osnet)  # as `Embedder` has it
    folded.backbone = fold_norms(folded.backbone)  # type: ignore[assignment]
    program = trace_network(folded, metadata.interface)
    files = to_onnx(program, metadata.to_properties()), to_torch(program, json.dumps(metadata.to_properties()))
    return Exported(metadata, *files, {"onnx": load_onnx(files[0]), "torch": load_torch(files[1])})


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
    metadata = exported.metadata
    pixels = synthetic_crops(SIZE, count=17)[:batch]
    wanted = by_hand(osnet, pixels, metadata.interface.mean, metadata.interface.std)
    images = metadata.interface.prepare_images(pixels)
    # What a tracker feeds, whatever the network was trained by.
    for channel in range(3):
        plain = (pixels[:, channel].numpy() / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        np.testing.assert_allclose(images[:, channel].numpy(), plain, atol=1e-6)
    for format, limit in (("onnx", 1e-4), ("torch", 1e-5)):
        found = exported.runners[format](images)
        assert found.dtype == np.float32 and found.shape == (batch, 512)
        np.testing.assert_allclose(found, wanted, atol=limit)
        assert TOLERANCES[format] == limit
    np.testing.assert_allclose(reference_output(osnet, pixels, metadata.interface), wanted, atol=1e-5)


def test_the_onnx_file_carries_metadata_and_nothing_else(osnet: ReidNetwork, exported: Exported) -> None:
    metadata, data = exported.metadata, exported.onnx
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    (images,), (embeddings,) = model.graph.input, model.graph.output
    shapes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (images, embeddings)]
    assert (images.name, embeddings.name) == ("images", "embeddings")
    assert shapes == [["batch", 3, *SIZE], ["batch", 512]]
    properties = (
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    )
    assert properties == metadata.to_properties()
    assert properties["distance"] == "euclidean" and properties["colour"] == "RGB" and properties["feature"] == "output"
    assert (properties["height"], properties["width"], json.loads(properties["mean"])) == (
        "64",
        "32",
        list(IMAGENET_MEAN),
    )
    assert json.loads(properties["normalised"]) is True and properties["licence"] == "unknown"
    for word in (b".py", b"stack_trace", str(Path(__file__).parents[3]).encode(), b"classifier"):
        assert word not in data
    weights = sum(tensor.numel() for name, tensor in osnet.named_parameters() if not name.startswith("classifier"))
    assert 4 * weights < 1.02 * len(data) < 1.2 * 4 * weights  # batch normalization is in the convolutions


def test_the_torch_file_carries_the_same(exported: Exported) -> None:
    metadata, data = exported.metadata, exported.torch
    extra = {METADATA_FILE: ""}
    program = torch.export.load(io.BytesIO(data), extra_files=extra)
    assert json.loads(extra[METADATA_FILE]) == metadata.to_properties()
    assert not any("classifier" in name for name in program.state_dict)
    for word in (b"test_exported_files.py", b"network.py", str(Path(__file__).parents[3]).encode()):
        assert word not in data


def test_real_crops(osnet: ReidNetwork, exported: Exported, real_data: Path) -> None:
    metadata = exported.metadata
    with zipfile.ZipFile(real_data / "Market-1501-v15.09.15.zip") as archive:
        names = sorted(name for name in archive.namelist() if "/query/" in name and name.endswith(".jpg"))[:180:30]
        crops = [Image.open(io.BytesIO(archive.read(name))) for name in names]
    images = ImageList(crops, SIZE, threads=1)
    pixels = torch.from_numpy(np.stack([images.decode(number) for number in range(len(images))]))
    wanted = by_hand(osnet, pixels, metadata.interface.mean, metadata.interface.std)
    for format, run in exported.runners.items():
        np.testing.assert_allclose(run(metadata.interface.prepare_images(pixels)), wanted, atol=TOLERANCES[format])
        assert (
            check_output(run, pixels, wanted.astype(np.float32), metadata.interface, tolerance=TOLERANCES[format]) > 0
        )


@pytest.mark.parametrize(
    ("pooling", "options", "norm"),
    [
        ("gem", {"p_per_channel": True, "l2": True}, "instance"),
        ("weighted_gem", {}, "weight"),
        ("hard_vlad", {"clusters": 4, "init": "random"}, "cosine"),
    ],
)
def test_poolings_and_norms(
    make: Make, make_metadata: MakeMetadata, pooling: str, options: dict[str, object], norm: str
) -> None:
    network = make("small_convolution", pooling=pooling, pooling_options=options, norm=norm)
    if hasattr(network.pooling, "omega"):
        torch.nn.init.normal_(network.pooling.omega.weight)
    metadata = make_metadata(normalized=False)
    pixels = synthetic_crops((128, 64), count=5)
    data, difference = export_network(network, metadata, pixels, format="onnx")
    with torch.no_grad():
        images = metadata.interface.prepare_images(pixels)
        wanted = torch.cat([network.embed(image[None]).input for image in images]).numpy()
    found = load_onnx(data)(images)
    assert 0 < difference < 1e-5
    assert np.abs(found - wanted).max() < 1e-4 * np.linalg.norm(wanted, axis=1).min()
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() > 1e-3 or pooling in ("gem", "hard_vlad")


def test_local_connection_is_unfolded(make: Make, make_metadata: MakeMetadata) -> None:
    """DeepFace's layer, with stride, padding and bias: the product of every window with the kernel of its place."""
    torch.manual_seed(0)
    layer = LocallyConnected2d(3, 4, (3, 2), input_size=(7, 6), stride=(2, 1), padding=(1, 0))
    torch.nn.init.normal_(layer.bias)
    maps = torch.randn(5, 3, 7, 6)
    with torch.no_grad():
        np.testing.assert_allclose(UnfoldedLocal(layer)(maps).numpy(), layer(maps).numpy(), atol=1e-5)
    network, pixels = make("small_local", norm="group", norm_groups=8), synthetic_crops((128, 64), count=5)
    _, difference = export_network(network, make_metadata(), pixels, format="onnx")
    assert 0 < difference < 1e-5


def test_normalizing_inside_is_normalizing_outside(make: Make, make_metadata: MakeMetadata) -> None:
    network = make(
        "small_convolution", eigenlayer={"k": 16, "parametrization": "scaled_orthogonal"}, pooling="average_max"
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pixels, found = synthetic_crops((128, 64), count=3), []
    for preprocessing, images in (("tracker", torch.float32), ("inside", torch.uint8)):
        interface = make_metadata(feature="output", preprocessing=preprocessing).interface
        assert interface.prepare_images(pixels).dtype == interface.dtype == images
        found.append(load_torch(to_torch(trace_network(network, interface), "{}"))(interface.prepare_images(pixels)))
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(found[0], reference_output(network, pixels, interface), atol=1e-5)
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_file_with_other_outputs_is_refused(make: Make, make_metadata: MakeMetadata) -> None:
    interface = make_metadata().interface
    pixels = synthetic_crops(interface.size, count=3)
    wanted = np.eye(3, 128, dtype=np.float32)
    close = iter(np.split(wanted + np.float32(9e-5), [1]))
    assert check_output(lambda images: next(close), pixels, wanted, interface, tolerance=1e-4) == pytest.approx(
        9e-5, rel=1e-3
    )
    far = iter(np.split(wanted + np.float32(2e-4), [1]))
    with pytest.raises(InputError, match=r"differs from PyTorch by 2\.0e-04 .* 3 images"):
        check_output(lambda images: next(far), pixels, wanted, interface, tolerance=1e-4)
    with pytest.raises(InputError, match="by nan"):
        check_output(lambda images: np.full((len(images), 128), np.nan), pixels, wanted, interface, tolerance=1e-4)
    assert max_relative_difference(np.array([[3.0, 4.1]]), np.array([[3.0, 4.0]])) == pytest.approx(0.02)


def test_images_too_small_for_a_network_are_an_error(make: Make, make_metadata: MakeMetadata) -> None:
    network = make("small_convolution", pooling="rmac", pooling_options={"levels": 9})
    with pytest.raises(InputError, match="R-MAC of 9 levels has"):
        trace_network(network, make_metadata().interface)


def test_missing_and_old_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from reid.inference.export import formats

    check_available("onnx")
    monkeypatch.setattr(formats, "version", lambda name: "1.2.3" if name == "onnx" else "99.0")
    with pytest.raises(InputError, match=r"onnx 1\.23 or newer \(1\.2\.3 is installed\): pip install .*\[export\]"):
        check_available("onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"onnxscript \(missing\).*\[export\]"):
        check_available("onnx")
    check_available("torch")


def test_a_card_that_cannot_be_written_takes_its_file_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reid.inference.export import files

    def fail_on_cards(path: Path, data: bytes) -> None:
        if path.suffix == ".md":
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(files, "write_bytes", fail_on_cards)
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
    assert read_crops([tmp_path], (32, 16), max_images=3)[:, 0, 0, 0].tolist() == [0, 40, 80]
    (tmp_path / "deep" / "x.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"x\.jpg"):
        read_crops([tmp_path], (32, 16))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="none: neither the folder nor its subfolders hold an image"):
        read_crops([tmp_path / "none"], (32, 16))
