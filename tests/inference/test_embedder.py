"""Embeddings for all kinds of inputs, compared with an evaluation, and invalid inputs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import foreign_models
import numpy as np
import pytest
import torch
from narrow_resnet import narrow_resnet34
from PIL import Image
from png_files import png
from torch.nn import functional
from untrained import save_untrained

import reid.inference.embedder
from reid import Embedder
from reid.config import build
from reid.config.loading import parse_config
from reid.data.images import cache as cache_module
from reid.errors import InputError
from reid.evaluation.retrieval import embed
from reid.inference.conversion import load_network
from reid.inference.engines.engine import Engine
from reid.io.checkpoint import load_checkpoint, save_checkpoint
from reid.io.digest import compute_file_digest
from reid.io.safetensors_files import save_safetensors
from reid.model.folding import fold_norms
from reid.model.network import Embedding, ReidNetwork
from reid.records import ImageRecord

__all__ = ["narrow_resnet34"]
pytestmark = pytest.mark.usefixtures("narrow_resnet34")
SIZE = (64, 32)
PAIRS = [
    *("MODEL.BACKBONE", "resnet34", "MODEL.WEIGHTS", "none", "INPUT.SIZE", str(list(SIZE))),
    *("MODEL.EIGENLAYER.DIM", "24", "INPUT.MEAN", "[0.4, 0.5, 0.45]", "INPUT.STD", "[0.2, 0.3, 0.25]"),
]


def checkpoint(path: Path, *pairs: str) -> Path:
    return save_untrained(path, parse_config("", [*PAIRS, *pairs]), classes=5, normed=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("weights") / "model.pth")


@pytest.fixture(scope="module")
def embedder(weights: Path) -> Embedder:
    return Embedder.load(weights, device="cpu")


def picture(number: int, size: tuple[int, int] = (60, 40)) -> np.ndarray:
    """(rows, columns, 3) uint8, smooth, so that another resizing gives nearly the same."""
    random = np.random.default_rng(number)
    small = random.integers(0, 256, (4, 3, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((size[1], size[0]), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("files")
    paths = []
    for number in range(21):
        size = SIZE if number % 3 == 0 else (40 + number, 30 + 2 * number)
        paths.append(str(folder / f"{number}.{'png' if number % 2 else 'jpg'}"))
        Image.fromarray(picture(number, size)).save(paths[-1])
    return paths


def test_its_representation_is_two_lines(embedder: Embedder) -> None:
    first, second = repr(embedder).splitlines()
    assert embedder.config.MODEL.BACKBONE in first and f"64 x 32 -> {embedder.dim}" in first
    assert "feature 'input'" in second and embedder.model_id[:12] in second


def test_a_tensor_that_requires_a_gradient(embedder: Embedder) -> None:
    images = torch.rand(2, 3, *SIZE)
    assert np.array_equal(embedder.embed(images.clone().requires_grad_()), embedder.embed(images))


def evaluated(weights: Path, files: list[str], feature: str, flip: bool) -> np.ndarray:
    """What `tools/evaluate.py` computes, rows of unit length."""
    network, config = load_network(weights)
    loader = build.test_loader(config, tuple(ImageRecord(path, 1, 1) for path in files))
    network = network.to(build.device(config))
    values = embed(network, loader, flips=(False, True))[feature, flip].values.astype(np.float64)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("feature", ["input", "output"])
@pytest.mark.parametrize("flip", [False, True])
def test_the_features_are_those_of_an_evaluation(weights: Path, files: list[str], feature: str, flip: bool) -> None:
    embedder = Embedder.load(weights, device="cpu", feature=feature, flip=flip)
    found = embedder.embed(files, batch_size=8)
    expected = evaluated(weights, files, feature, flip)
    assert found.dtype == np.float32 and found.shape == (21, embedder.dim) == (21, 64 if feature == "input" else 24)
    assert expected.std(0).max() > 1e-3
    assert np.abs(found - expected).max() < 1e-6


def test_preprocessing_comes_from_the_checkpoint(tmp_path: Path, files: list[str]) -> None:
    pairs = ("INPUT.SIZE", "[48, 40]", "INPUT.RESIZE", "bicubic", "INPUT.MEAN", "[0.1, 0.2, 0.3]")
    weights = checkpoint(tmp_path / "other.pth", *pairs, "TEST.FEATURE", "output")
    embedder = Embedder.load(weights, device="cpu")
    assert embedder.size == (48, 40) and embedder.feature == "output"
    assert np.abs(embedder.embed(files) - evaluated(weights, files, "output", False)).max() < 1e-6
    bilinear = checkpoint(tmp_path / "bilinear.pth", *pairs[:2], *pairs[4:], "TEST.FEATURE", "output")
    assert np.abs(Embedder.load(bilinear, device="cpu").embed(files) - embedder.embed(files)).max() > 1e-5


def test_every_kind_of_image_is_the_same_image(embedder: Embedder, files: list[str]) -> None:
    arrays = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    expected = embedder.embed(files)
    mixed = [
        *(Path(file) for file in files[:5]),
        *(Image.open(file) for file in files[5:10]),
        *arrays[10:15],
        *(torch.from_numpy(array.copy()).permute(2, 0, 1) for array in arrays[15:]),
    ]
    assert np.abs(embedder.embed(mixed, batch_size=4) - expected).max() < 1e-6
    assert np.array_equal(embedder.embed(iter(files), batch_size=64), expected)

    first = [array for array in arrays if array.shape == arrays[1].shape]
    same = np.stack([arrays[1], arrays[1][::-1]])
    assert np.abs(embedder.embed(same)[0] - expected[1]).max() < 1e-6, first
    tensor = torch.from_numpy(same).permute(0, 3, 1, 2)
    assert np.abs(embedder.embed(tensor) - embedder.embed(same)).max() < 1e-6
    # Resizing floating values rounds nothing on the way, so those differ by less than a gray level.
    assert np.abs(embedder.embed(tensor / 255) - embedder.embed(same)).max() < 0.02
    fitting = torch.from_numpy(np.stack([arrays[0], arrays[3]])).permute(0, 3, 1, 2)
    assert np.abs(embedder.embed(fitting / 255) - expected[[0, 3]]).max() < 1e-5


def test_an_image_in_any_mode(embedder: Embedder, tmp_path: Path) -> None:
    rgb = Image.fromarray(picture(1))
    gray = rgb.convert("L")
    transparent = rgb.convert("RGBA")
    transparent.putalpha(Image.fromarray(picture(2)).convert("L"))
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 256 + 77)
    given = {
        "RGB": (rgb, rgb),
        "RGBA": (transparent, rgb),
        "L": (gray, Image.merge("RGB", [gray] * 3)),
        "LA": (gray.convert("LA"), Image.merge("RGB", [gray] * 3)),
        "1": (gray.convert("1"), gray.convert("1").convert("RGB")),
        "P": (rgb.convert("P"), rgb.convert("P").convert("RGB")),
        "CMYK": (rgb.convert("CMYK"), rgb.convert("CMYK").convert("RGB")),
        "I;16": (deep, Image.merge("RGB", [gray] * 3)),
    }
    for mode, (image, same) in given.items():
        assert image.mode == mode
        expected = embedder.embed([np.asarray(same)])
        assert np.abs(embedder.embed([image]) - expected).max() < 1e-6, mode
    for mode in ("RGBA", "L", "LA", "P", "I;16"):
        given[mode][0].save(tmp_path / "image.png")
        assert np.abs(embedder.embed([tmp_path / "image.png"]) - embedder.embed([given[mode][1]])).max() < 1e-6, mode
    with pytest.raises(InputError, match="image 0 of 1: floating-point pixels"):
        embedder.embed([Image.fromarray(np.ones((9, 9), np.float32))])


def test_a_rotation_that_exif_asks_for_is_not_made(embedder: Embedder, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(picture(3)).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(picture(3)).save(tmp_path / "plain.png")
    found = embedder.embed([tmp_path / "turned.png", tmp_path / "plain.png"])
    assert np.abs(found[0] - found[1]).max() < 1e-6


def test_a_single_pixel_and_no_image_at_all(embedder: Embedder) -> None:
    found = embedder.embed([np.full((1, 1, 3), 7, np.uint8)])
    assert found.shape == (1, 64) and np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    for nothing in ([], (), torch.zeros(0, 3, 8, 4), np.zeros((0, 8, 4, 3), np.uint8), iter([])):
        found = embedder.embed(nothing)
        assert found.shape == (0, 64) and found.dtype == np.float32


def _huge(folder: Path) -> Path:
    """A header of 100 megapixels in front of nothing: decoding it would be another error."""
    return _written(folder / "huge.png", png(10_000, 10_000))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: folder / "none.jpg", "none.jpg: no such image"),
    "broken": (lambda folder: _written(folder / "broken.jpg", b"\xff\xd8\xff\xe0 no picture"), "unreadable"),
    "folder": (lambda folder: folder, "not a file"),
    "huge": (_huge, "10000 x 10000 pixels, above the limit"),
    "opened and huge": (lambda folder: Image.open(_huge(folder)), "above the limit"),
    "float array": (lambda _: np.ones((9, 9, 3)), r"float64 \(9, 9, 3\)"),
    "gray array": (lambda _: np.ones((9, 9), np.uint8), r"uint8 \(9, 9\)"),
    "four channels": (lambda _: np.ones((9, 9, 4), np.uint8), r"\(9, 9, 4\)"),
    "empty array": (lambda _: np.ones((0, 9, 3), np.uint8), r"\(0, 9, 3\)"),
    "float tensor": (lambda _: torch.ones(3, 9, 9), r"float32 \(3, 9, 9\); stack"),
    "number": (lambda _: 7, "unsupported type int; pass a path"),
}


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_is_reported_with_its_place(
    kind: str, embedder: Embedder, files: list[str], tmp_path: Path
) -> None:
    make, message = BAD[kind]
    images = [*files[:3], make(tmp_path), files[3]]
    with pytest.raises(InputError, match=rf"image 3 of 5: .*{message}") as error:
        embedder.embed(images, batch_size=2)
    assert "\n" not in str(error.value)
    broken: dict[int, str] = {}
    found = embedder.embed(images, batch_size=2, broken=broken)
    assert list(broken) == [3] and "image 3 of 5" in broken[3]
    assert not found[3].any()
    assert np.abs(found[[0, 1, 2, 4]] - embedder.embed(files[:4])).max() < 1e-6


def test_single_images_and_wrong_arrays_are_rejected(embedder: Embedder, files: list[str]) -> None:
    for one in (files[0], Path(files[0]), Image.open(files[0]), 5):
        with pytest.raises(InputError, match="give a list"):
            embedder.embed(one)  # type: ignore[arg-type]
    wrong = {
        r"\(N, H, W, 3\) uint8": picture(0),
        r"not float32 \(3, 8, 4\)": torch.zeros(3, 8, 4),
        r"not int64 \(2, 3, 8, 4\)": torch.zeros(2, 3, 8, 4, dtype=torch.int64),
        "have no pixels": torch.zeros(2, 3, 0, 4),
        r"image 1 of 2: .* 0 to 255": torch.stack([torch.zeros(3, 8, 4), torch.arange(96).view(3, 8, 4) * (255 / 95)]),
        "image 0 of 1": torch.full((1, 3, 8, 4), float("nan")),
    }
    for message, images in wrong.items():
        with pytest.raises(InputError, match=message):
            embedder.embed(images)
    with pytest.raises(InputError, match="batch size 0"):
        embedder.embed(files, batch_size=0)


def test_a_feature_without_direction_and_one_that_is_no_number(tmp_path: Path, files: list[str]) -> None:
    content = load_checkpoint(checkpoint(tmp_path / "a.pth"))
    weight = content["model"]["eigenlayer.weight"]
    save_checkpoint(tmp_path / "zero.pth", content | {"model": content["model"] | {"eigenlayer.weight": 0 * weight}})
    with pytest.warns(UserWarning, match="2 of 2 feature rows are zero"):
        assert not Embedder.load(tmp_path / "zero.pth", device="cpu", feature="output").embed(files[:2]).any()
    large = content["model"] | {"eigenlayer.weight": torch.full_like(weight, 3e38)}  # finite, unlike its sums
    save_checkpoint(tmp_path / "large.pth", content | {"model": large})
    with pytest.raises(InputError, match=r"image 0 of 2: .* NaN or infinity"):
        Embedder.load(tmp_path / "large.pth", device="cpu", feature="output").embed(files[:2])
    broken = content["model"] | {"eigenlayer.weight": weight * float("inf")}
    save_checkpoint(tmp_path / "nan.pth", content | {"model": broken})
    with pytest.raises(InputError, match=r"nan.pth: 1 of \d+ tensors hold NaN or infinity, the first is eigenlayer"):
        Embedder.load(tmp_path / "nan.pth", device="cpu", feature="output")


def test_few_images_are_in_memory_at_once(
    embedder: Embedder, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of any length: of 4,000 files the last ones are not decoded when the first batch is embedded."""
    decoded, most_ahead, original = [0], [0], cache_module.decode_image

    def counted(*arguments: object) -> np.ndarray:
        decoded[0] += 1
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("reid.data.loading.user_images.decode_image", counted)
    done = [0]

    def instead(self: Engine, batches: Iterable[torch.Tensor]) -> Iterator[Embedding]:
        for batch in batches:
            most_ahead[0] = max(most_ahead[0], decoded[0] - done[0])
            done[0] += len(batch)
            yield Embedding(torch.ones(len(batch), 64), torch.ones(len(batch), 64))

    monkeypatch.setattr(Engine, "embed_batches", instead)
    assert embedder.embed(files * 20, batch_size=8).shape == (420, 64)
    assert decoded[0] == 420 and most_ahead[0] <= 8 * 6


def test_the_model_id_is_of_what_vectors_depend_on(tmp_path: Path, weights: Path) -> None:
    first = Embedder.load(weights, device="cpu").model_id
    assert len(first) == 64 and int(first, 16)
    content = load_checkpoint(weights)

    def of(changed: dict[str, torch.Tensor], *pairs: str, **how: object) -> str:
        config = parse_config(content["config"], pairs).dump()
        save_checkpoint(tmp_path / "a.pth", {**content, "model": content["model"] | changed, "config": config})
        return Embedder.load(tmp_path / "a.pth", device="cpu", **how).model_id  # type: ignore[arg-type]

    classifier = {"classifier.weight": torch.ones(5, 24)}
    assert of(classifier) == of({}, "MODEL.DROPOUT", "0.1", "SEED", "4", "MODEL.DEVICE", "cpu") == first
    others = [
        of({"eigenlayer.weight": content["model"]["eigenlayer.weight"] * 2}),
        of({}, "INPUT.SIZE", "[64, 48]"),
        of({}, "INPUT.RESIZE", "bicubic"),
        of({}, "INPUT.MEAN", "[0.4, 0.5, 0.46]"),
        of({}, "MODEL.EIGENLAYER.RELU", "True"),
        of({}, feature="output"),
        of({}, flip=True),
    ]
    assert len({first, *others}) == 8
    save_safetensors(tmp_path / "a.safetensors", content)
    assert Embedder.load(tmp_path / "a.safetensors", device="cpu").model_id == first


def test_a_calibration_belongs_to_a_model_id(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept:
        def __init__(self, model_id: str) -> None:
            self.model_id = model_id

        @staticmethod
        def from_plain(plain: dict[str, str]) -> Kept:
            return Kept(plain["model_id"])

    monkeypatch.setattr(reid.inference.embedder, "Calibration", Kept)
    assert Embedder.load(weights, device="cpu").calibration is None
    content = load_checkpoint(weights)
    kept = {"model_id": Embedder.load(weights, device="cpu").model_id}
    save_checkpoint(tmp_path / "a.pth", content | {"calibration": kept})
    assert Embedder.load(tmp_path / "a.pth", device="cpu").calibration is not None
    assert Embedder.load(tmp_path / "a.pth", device="cpu", flip=True).calibration is None
    save_safetensors(tmp_path / "a.safetensors", load_checkpoint(tmp_path / "a.pth"))
    assert Embedder.load(tmp_path / "a.safetensors", device="cpu").calibration is not None


def test_another_codebase_is_loaded_at_once(tmp_path: Path, files: list[str]) -> None:
    foreign = foreign_models.osnet()
    torch.save({"state_dict": foreign.state, "epoch": 60}, tmp_path / "model.pth.tar-60")
    embedder = Embedder.load(tmp_path / "model.pth.tar-60", device="cpu")
    assert embedder.size == (256, 128) and embedder.dim == 512
    pixels = torch.rand(3, 3, 256, 128)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = functional.normalize(foreign.embed((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)))
    assert np.abs(embedder.embed(pixels) - expected.numpy()).max() < 1e-5


def test_files_that_cannot_be_loaded(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"some.weight": torch.ones(3)}, tmp_path / "unknown.pth")
    for file, message in (
        ("none.pth", "no such"),
        ("none.safetensors", "no such"),
        ("unknown.pth", "unknown family"),
        (str(_written(tmp_path / "text.pth", b"hello")), "corrupt or not a checkpoint"),
    ):
        with pytest.raises(InputError, match=message):
            Embedder.load(tmp_path / file)
    with pytest.raises(InputError, match="did you mean output"):
        Embedder.load(weights, feature="ouput")
    with pytest.raises(InputError, match="unknown device"):
        Embedder.load(weights, device="quantum")
    monkeypatch.setattr(reid.inference.embedder, "DEMO", tmp_path / "demo.safetensors")
    with pytest.raises(InputError, match="make model"):
        Embedder.load("demo")
    save_safetensors(tmp_path / "demo.safetensors", load_checkpoint(weights))
    with pytest.raises(InputError, match=r"the demo model .* was changed") as caught:
        Embedder.load("demo")
    digest = compute_file_digest(tmp_path / "demo.safetensors")
    assert digest in str(caught.value)
    monkeypatch.setattr(reid.inference.embedder, "DEMO_DIGEST", digest)
    assert Embedder.load("demo", device="cpu").model_id == Embedder.load(weights, device="cpu").model_id


@pytest.mark.parametrize(
    "pairs",
    [
        ("MODEL.BACKBONE", "osnet_x0_25"),
        ("MODEL.BACKBONE", "resnet18"),
        ("MODEL.BACKBONE", "resnet18", "MODEL.NORM.NAME", "ibn_a", "MODEL.STEM", "no_relu"),
        ("MODEL.BACKBONE", "resnet18", "MODEL.NORM.NAME", "ibn_b", "MODEL.STEM", "ceil"),
        ("MODEL.BACKBONE", "resnet18", "MODEL.NORM.NAME", "weight"),
        ("MODEL.BACKBONE", "resnet18", "MODEL.NORM.NAME", "group"),
        ("MODEL.BACKBONE", "small_local", "INPUT.SIZE", "[128, 64]"),
    ],
)
def test_folding_changes_nothing_but_rounding(pairs: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    config = parse_config("", ["MODEL.WEIGHTS", "none", *pairs])
    trunk = foreign_models.randomize_norms(build.network(config, num_classes=3).backbone)
    folded = fold_norms(trunk)
    images = torch.randn(3, 3, 128, 64)
    with torch.inference_mode():
        expected, found = trunk(images), folded(images)
    assert (expected - found).abs().max() < 1e-5 * expected.abs().max()
    left = sum(type(module) is torch.nn.BatchNorm2d for module in folded.modules())
    if "MODEL.NORM.NAME" not in pairs and "small_local" not in pairs:
        assert not left and any(type(module) is torch.nn.BatchNorm2d for module in trunk.modules())


def test_the_package_offers_it_without_loading_it() -> None:
    code = "import reid, sys; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert reid.Embedder is Embedder
    with pytest.raises(AttributeError):
        _ = reid.Embeder  # type: ignore[attr-defined]
    assert isinstance(ReidNetwork, type)
