"""Checkpoints of other codebases: what they compute is what the converted network computes."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign_models as models
import pytest
import torch
from foreign_models import Foreign, State
from torch import Tensor
from torch.nn import functional

from reid.config import build
from reid.errors import InputError
from reid.inference.conversion import convert_checkpoint, load_any
from reid.io.checkpoint import save_checkpoint
from reid.io.safetensors_files import save_safetensors
from reid.model.foreign import FAMILIES, convert
from reid.model.network import ReidNetwork

# What is written, the architecture that is recognized, the feature that is compared, KEY VALUE pairs.
CASES: dict[str, tuple[Callable[[], Foreign], str, str, str, tuple[str, ...]]] = {
    "torchreid resnet18": (models.torchreid_resnet, "torchreid", "resnet18", "input", ()),
    "torchreid resnet50": (lambda: models.torchreid_resnet("resnet50"), "torchreid", "resnet50", "input", ()),
    "torchreid resnet50_fc512": (
        lambda: models.torchreid_resnet("resnet50", fc512=True),
        "torchreid",
        "resnet50_fc512",
        "input",
        (),
    ),
    "torchreid resnet18_ibn_a": (
        lambda: models.torchreid_resnet(ibn=True),
        "torchreid",
        "resnet18_ibn_a",
        "input",
        (),
    ),
    "torchreid osnet_x0_25": (lambda: models.osnet(0.25), "torchreid", "osnet_x0_25", "input", ()),
    "torchreid osnet_x0_5": (lambda: models.osnet(0.5), "torchreid", "osnet_x0_5", "input", ()),
    "torchreid osnet_x0_75": (lambda: models.osnet(0.75), "torchreid", "osnet_x0_75", "input", ()),
    "torchreid osnet_x1_0": (lambda: models.osnet(1.0), "torchreid", "osnet_x1_0", "input", ()),
    "fast-reid": (models.fastreid, "fast-reid", "resnet18", "input", ()),
    "fast-reid SBS": (
        lambda: models.fastreid("resnet50", ibn=True, gem=True),
        "fast-reid",
        "resnet50_ibn_a",
        "input",
        (),
    ),
    "fast-reid, older names": (
        lambda: models.fastreid(neck="bnneck", classifier="classifier.weight"),
        "fast-reid",
        "resnet18",
        "input",
        (),
    ),
    "fast-reid without BNNeck": (lambda: models.fastreid(neck="", pixels=False), "fast-reid", "resnet18", "input", ()),
    "fast-reid reduced": (lambda: models.fastreid(reduced=64), "fast-reid", "resnet18", "output", ()),
    "reid-strong-baseline": (models.strong_baseline, "reid-strong-baseline", "resnet18", "input", ()),
    "reid-strong-baseline ibn": (
        lambda: models.strong_baseline(ibn=True),
        "reid-strong-baseline",
        "resnet18_ibn_a",
        "input",
        (),
    ),
    "reid-strong-baseline without neck": (
        lambda: models.strong_baseline(neck=False),
        "reid-strong-baseline",
        "resnet18",
        "input",
        (),
    ),
    "layumi": (models.layumi, "layumi", "resnet18", "output", ()),
    "layumi without linear layer": (lambda: models.layumi(bottleneck=0), "layumi", "resnet18", "output", ()),
    "layumi stride 1": (
        lambda: models.layumi(stride=1),
        "layumi",
        "resnet18",
        "output",
        ("MODEL.LAST_STRIDE", "1"),
    ),
}
SMALL = {
    "torchreid": lambda: models.osnet(0.25),
    "fast-reid": lambda: models.fastreid(gem=True),
    "reid-strong-baseline": models.strong_baseline,
    "layumi": models.layumi,
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 96, 48, generator=torch.Generator().manual_seed(3))


def compared(network: ReidNetwork, feature: str, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return functional.normalize(getattr(network.embed(images), feature))


@pytest.mark.parametrize("name", CASES)
def test_embeddings_are_those_of_the_origin(name: str, images: Tensor, tmp_path: Path) -> None:
    make, family, architecture, feature, overrides = CASES[name]
    foreign = make()
    torch.save({"state_dict": {f"module.{key}": value for key, value in foreign.state.items()}}, tmp_path / "f.pth")
    content, found = convert_checkpoint(tmp_path / "f.pth", overrides=overrides)
    assert (found.family, found.architecture, found.num_classes) == (family, architecture, 7)
    network, config = build.network_from_checkpoint(content, source="converted")
    assert config.TEST.FEATURE == found.feature == feature
    with torch.inference_mode():
        expected = functional.normalize(foreign.embed(images))
    assert expected.std(0).max() > 1e-3, "images that come out the same prove nothing"
    assert (compared(network, feature, images) - expected).abs().max() < 1e-5


def test_the_logits_are_theirs_too(images: Tensor) -> None:
    foreign = models.torchreid_resnet()
    found = convert(foreign.state, source="f")
    pairs = ["MODEL.BACKBONE", "resnet18", "MODEL.EIGENLAYER.DIM", "512", "MODEL.WEIGHTS", "none"]
    network = build.network(build.config_from_overrides(pairs, source="f"), num_classes=7)
    network.load_state_dict(found.tensors)
    with torch.inference_mode():
        values = foreign.embed(images)
        expected = values @ foreign.state["classifier.weight"].T + foreign.state["classifier.bias"]
        assert torch.allclose(network.eval()(images), expected, atol=1e-4)


def test_each_family_brings_its_own_preprocessing() -> None:
    found = {name: convert(make().state, source="f") for name, make in SMALL.items()}
    assert {name: one.recognized.resize for name, one in found.items()} == {
        "torchreid": "bilinear",
        "fast-reid": "bicubic",
        "reid-strong-baseline": "bilinear",
        "layumi": "bicubic",
    }
    for one in found.values():
        assert one.recognized.size == (256, 128)
        assert one.recognized.mean == pytest.approx((0.485, 0.456, 0.406))
        assert one.recognized.std == pytest.approx((0.229, 0.224, 0.225))
    state = models.fastreid().state | {"pixel_mean": torch.full((3,), 127.5), "pixel_std": torch.full((3,), 255.0)}
    one = convert(state, source="f").recognized
    assert one.mean == (0.5, 0.5, 0.5) and one.std == (1.0, 1.0, 1.0)


def test_a_shift_of_the_last_norm_is_kept(images: Tensor) -> None:
    foreign = models.strong_baseline()
    shift = torch.linspace(-1, 1, 512)
    foreign.state["bottleneck.bias"] = shift
    found = convert(foreign.state, source="f")
    assert found.feature == "output" and "shift" in found.differences[0]
    assert torch.equal(found.tensors["eigenlayer.bias"], shift)


def test_wrappers_do_not_change_what_is_recognized(tmp_path: Path) -> None:
    osnet = models.osnet().state
    counters = {name: value.reshape(1) for name, value in osnet.items() if name.endswith("num_batches_tracked")}
    for number, content in enumerate(
        (
            {"state_dict": {f"model.{name}": value for name, value in (osnet | counters).items()}},
            {"n_averaged": torch.tensor(3), **{f"module.{name}": value for name, value in osnet.items()}},
        )
    ):
        torch.save(content, tmp_path / f"{number}.pth")
        content, found = convert_checkpoint(tmp_path / f"{number}.pth")
        assert (found.family, found.architecture) == ("torchreid", "osnet_x0_25")
        assert len(found.notes) == number and found.notes == tuple(content["origin"]["differences"][:number])
    assert "its fc, a linear layer" in found.differences[0] and "no linear layer" not in found.differences[0]
    torch.save({"model": {f"model.{name}": value for name, value in models.layumi().state.items()}}, tmp_path / "l.pth")
    assert convert_checkpoint(tmp_path / "l.pth")[1].family == "layumi"


def test_loading_says_what_was_recognized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = models.osnet().state
    torch.save({"state_dict": state, "ema_state_dict": state}, tmp_path / "f.pth")
    load_any(tmp_path / "f.pth")
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "f.pth: osnet_x0_25 of torchreid, 7 classes, converted on loading" in told
    assert "state_dict is taken, not ema_state_dict" in told


def test_a_whole_network_as_pretrained_backbone_names_the_command(tmp_path: Path) -> None:
    torch.save(models.torchreid_resnet().state, tmp_path / "f.pth")
    pairs = ["MODEL.BACKBONE", "resnet18", "MODEL.WEIGHTS", str(tmp_path / "f.pth")]
    config = build.config_from_overrides(pairs, source="a training")
    with pytest.raises(InputError, match=r"resnet18 of torchreid: .*`svdnet convert .*f\.pth OUT\.pth`"):
        build.network(config, num_classes=3, weights=build.pretrained(config))


def test_without_a_classifier(images: Tensor) -> None:
    state = {key: value for key, value in models.osnet().state.items() if not key.startswith("classifier.")}
    found = convert(state, source="f")
    assert found.num_classes == 1 and any("no classifier" in line for line in found.differences)


def test_an_exponent_that_is_no_tensor_can_be_given(tmp_path: Path) -> None:
    torch.save(models.fastreid().state, tmp_path / "f.pth")
    pairs = ("MODEL.POOLING.NAME", "gem", "MODEL.POOLING.P", "4.0", "MODEL.POOLING.P_LEARNABLE", "False")
    content, _ = convert_checkpoint(tmp_path / "f.pth", overrides=pairs)
    assert content["model"]["pooling.p"].item() == 4
    with pytest.raises(InputError, match="missing"):
        convert_checkpoint(tmp_path / "f.pth", overrides=("MODEL.EIGENLAYER.BIAS", "True"))


def test_a_training_starts_from_it(images: Tensor, tmp_path: Path) -> None:
    """All before the Eigenlayer is taken over, from a .pth and from a .safetensors, and the rest is new."""
    torch.save(models.fastreid(gem=True).state, tmp_path / "f.pth")
    content = load_any(tmp_path / "f.pth")
    save_checkpoint(tmp_path / "ours.pth", content)
    save_safetensors(tmp_path / "ours.safetensors", content)
    for file in ("ours.pth", "ours.safetensors"):
        pairs = [
            *("MODEL.BACKBONE", "resnet18", "MODEL.LAST_STRIDE", "1", "MODEL.STEM", "ceil", "MODEL.NECK", "bnneck"),
            *("MODEL.POOLING.NAME", "gem", "MODEL.EIGENLAYER.DIM", "16", "MODEL.WEIGHTS", str(tmp_path / file)),
        ]
        config = build.config_from_overrides(pairs, source="a training")
        network = build.network(config, num_classes=3, weights=build.pretrained(config)).eval()
        start, _ = build.network_from_checkpoint(content, source="ours")
        assert torch.equal(compared(network, "input", images), compared(start, "input", images))
        assert network.eigenlayer.weight.shape == (16, 512)
        bare = build.config_from_overrides([*pairs, "MODEL.NECK", "none"], source="a training")
        with pytest.raises(InputError, match=r"bnneck"):
            build.network(bare, num_classes=3, weights=build.pretrained(bare))


def test_the_error_for_an_unknown_family_lists_tensors_and_families() -> None:
    state = {"visual.blocks.0.weight": torch.ones(3, 4), "visual.norm.bias": torch.ones(3)}
    with pytest.raises(InputError) as raised:
        convert(state, source="vit.pth")
    message = str(raised.value)
    assert "vit.pth" in message and "visual.blocks.0.weight (3, 4)" in message and "\n" not in message
    for name in FAMILIES:
        assert name in message
    with pytest.raises(InputError, match="did you mean torchreid"):
        convert(state, source="vit.pth", family="torchread")


def test_there_is_nothing_to_convert_in_our_own(tmp_path: Path) -> None:
    torch.save(models.osnet().state, tmp_path / "f.pth")
    save_checkpoint(tmp_path / "ours.pth", load_any(tmp_path / "f.pth"))
    with pytest.raises(InputError, match="nothing to convert"):
        convert_checkpoint(tmp_path / "ours.pth")


@pytest.mark.parametrize("family", SMALL)
def test_what_is_missing_or_misshapen_is_one_line(family: str) -> None:
    state = SMALL[family]().state
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    broken: list[State] = []
    for number in range(0, len(names), max(1, len(names) // 5)):
        kept = dict(state)
        kept.pop(names[number])
        broken.append(kept)
        broken.append(state | {names[number]: torch.ones(5, 5, 5)})
    half = len(names) // 2
    broken += [{name: state[name] for name in part} for part in (names[:half], names[half:], names[::2])]
    broken.append(state | {"another.tensor": torch.ones(3)})
    for one in broken:
        try:
            found = convert(one, source="f.pth")
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 1500, error
        else:  # pixel values have a default, and no classifier is needed
            left = set(state) - set(one)
            assert left <= {"pixel_mean", "pixel_std", "heads.weight", "heads.pool_layer.p", "classifier.weight"}, left
            assert found.family == family


def test_another_depth_is_an_error(images: Tensor) -> None:
    state = models.torchreid_resnet().state
    with pytest.raises(InputError, match=r"\(1, 2, 2, 2\) basic blocks .* resnet50"):
        convert({name: value for name, value in state.items() if "layer1.1" not in name}, source="f")
    wide = models.osnet().state | {"conv1.conv.weight": torch.ones(20, 3, 7, 7)}
    with pytest.raises(InputError, match=r"\(20, 3, 7, 7\) is not supported"):
        convert(wide, source="f")
    with pytest.raises(InputError, match="instance normalization"):
        convert(models.osnet().state | {"conv2.0.IN.weight": torch.ones(64)}, source="f")


def clone_of(variable: str) -> Path:
    if not os.environ.get(variable):
        pytest.skip(f"needs a clone in {variable}")
    return Path(os.environ[variable])


def loaded(name: str, path: Path, package: str = "") -> Any:
    """A single file of a clone as a module, without the package around it."""
    spec = importlib.util.spec_from_file_location(f"{package}.{name}" if package else name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def check_clone(network: torch.nn.Module, embed: Callable[[Tensor], Tensor], images: Tensor, path: Path) -> None:
    models.randomize_norms(network)
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, path)
    content = load_any(path)
    ours, config = build.network_from_checkpoint(content, source="converted")
    with torch.inference_mode():
        expected = functional.normalize(embed(images))
    assert (compared(ours, config.TEST.FEATURE, images) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "resnet50_fc512", "osnet_x0_25", "osnet_x0_5", "osnet_x0_75", "osnet_x1_0"]
)
def test_a_clone_of_torchreid(name: str, images: Tensor, tmp_path: Path) -> None:
    clone = clone_of("REID_TORCHREID")
    module = loaded("theirs", clone / "torchreid" / "models" / f"{'osnet' if 'osnet' in name else 'resnet'}.py")
    network = getattr(module, name)(num_classes=9, pretrained=False).eval()
    check_clone(network, network, images, tmp_path / "model.pth.tar-3")


@pytest.mark.parametrize("ibn", [False, True])
@pytest.mark.parametrize("pool", ["FastGlobalAvgPool", "GeneralizedMeanPoolingP"])
def test_a_clone_of_fastreid(ibn: bool, pool: str, images: Tensor, tmp_path: Path) -> None:
    clone = clone_of("REID_FASTREID") / "fastreid"
    norms = loaded("norms", clone / "layers" / "batch_norm.py")
    pooling = loaded("pooling", clone / "layers" / "pooling.py")
    source = (clone / "modeling" / "backbones" / "resnet.py").read_text(encoding="utf-8")
    # Without its package: the classes are between its imports and the functions that read its configuration.
    body = source[source.index("class BasicBlock") : source.index("def init_pretrained_weights")]
    theirs = types.ModuleType("theirs")
    identity = torch.nn.Identity
    theirs.__dict__.update(
        nn=torch.nn, torch=torch, math=__import__("math"), IBN=norms.IBN, get_norm=norms.get_norm, SELayer=identity
    )
    exec(compile(body, "resnet.py", "exec"), theirs.__dict__)
    backbone = theirs.ResNet(1, "BN", ibn, False, False, theirs.Bottleneck, [3, 4, 6, 3], [0, 0, 0, 0])
    network = torch.nn.Module()
    network.backbone, network.heads = backbone, torch.nn.Module()
    network.heads.pool_layer = getattr(pooling, pool)()
    network.heads.bottleneck = torch.nn.Sequential(norms.get_norm("BN", 2048, bias_freeze=True))
    network.heads.weight = torch.nn.Parameter(torch.randn(9, 2048))
    network.eval()
    models.randomize_norms(network)
    network.heads.bottleneck[0].bias.data.zero_()
    path = tmp_path / "model_final.pth"
    torch.save({"model": network.state_dict()}, path)
    ours, config = build.network_from_checkpoint(load_any(path), source="converted")
    with torch.inference_mode():
        expected = network.heads.bottleneck(network.heads.pool_layer(network.backbone(images)))[..., 0, 0]
    assert (compared(ours, config.TEST.FEATURE, images) - functional.normalize(expected)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["resnet50", "resnet50_ibn_a"])
def test_a_clone_of_strong_baseline(name: str, images: Tensor, tmp_path: Path) -> None:
    clone = clone_of("REID_STRONG_BASELINE") / "modeling"
    for package, folder in (("theirs", clone), ("theirs.backbones", clone / "backbones")):
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(folder)]
    module = loaded("baseline", clone / "baseline.py", "theirs")
    network = module.Baseline(9, 1, "", "bnneck", "after", name, "self").eval()
    models.randomize_norms(network)
    network.bottleneck.bias.data.zero_()
    path = tmp_path / "resnet50_model_120.pth"
    torch.save(network.state_dict(), path)
    ours, config = build.network_from_checkpoint(load_any(path), source="converted")
    with torch.inference_mode():
        expected = functional.normalize(network(images))
    assert (compared(ours, config.TEST.FEATURE, images) - expected).abs().max() < 1e-5


def test_a_clone_of_layumi(images: Tensor, tmp_path: Path) -> None:
    clone = clone_of("REID_LAYUMI")
    source = (clone / "model.py").read_text(encoding="utf-8")
    body = source[source.index("def weights_init_kaiming") : source.index("# Define the swin_base")]
    theirs = types.ModuleType("theirs")
    models_stub = types.SimpleNamespace(resnet50=lambda pretrained: models.torchvision.models.resnet50(weights=None))
    theirs.__dict__.update(nn=torch.nn, torch=torch, init=torch.nn.init, models=models_stub)
    exec(compile(body, "model.py", "exec"), theirs.__dict__)
    network = theirs.ft_net(9).eval()

    def embed(images: Tensor) -> Tensor:
        last, network.classifier.classifier = network.classifier.classifier, torch.nn.Sequential()
        values = network(images)
        network.classifier.classifier = last
        return values

    check_clone(network, embed, images, tmp_path / "net_last.pth")
