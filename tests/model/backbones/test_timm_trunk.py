"""Networks of timm as backbones: the same features as in timm, everything trained, and what cannot work is refused."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import randomize_norms
from torch import Tensor, nn
from untrained import save_untrained

from reid.config import build
from reid.config.loading import parse_config
from reid.errors import InputError
from reid.inference.conversion import load_network, pack_checkpoint
from reid.inference.embedder import Embedder
from reid.io.checkpoint import load_checkpoint
from reid.io.safetensors_files import save_safetensors
from reid.model.backbones.timm_trunk import timm_trunk
from reid.model.folding import fold_norms
from reid.model.normalization import normalize, synchronize_batch_norms
from reid.model.pretrained import load_pretrained

timm = pytest.importorskip("timm")
SIZE = (64, 32)
NETWORKS = ("resnet18", "convnext_atto", "mobilenetv4_conv_small", "vit_tiny_patch16_224")


def images(count: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))


def of_timm(name: str, **options: Any) -> Any:
    """The network as timm builds it, for images of `SIZE`, with statistics as after a training."""
    if timm.get_pretrained_cfg(name).fixed_input_size:
        options = {"img_size": SIZE, **options}
    torch.manual_seed(0)
    return randomize_norms(timm.create_model(name, **options)).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_maps_are_those_of_timm_and_all_parameters_are_trained(name: str) -> None:
    theirs = of_timm(name)
    trunk = timm_trunk(f"timm:{name}", weights=theirs.state_dict(), image_size=SIZE).eval()
    maps = trunk(images())
    [expected] = theirs.forward_intermediates(images(), indices=1, intermediates_only=True, norm=True)
    if name.startswith("mobilenet"):  # its intermediates end before its last stage
        expected = theirs.forward_features(images())
    assert maps.shape == (2, trunk.out_channels, *expected.shape[2:]) and torch.equal(maps, expected)
    maps.square().sum().backward()
    assert [name for name, parameter in trunk.named_parameters() if parameter.grad is None] == []
    folded = fold_norms(trunk)
    assert torch.allclose(folded(images()), maps, atol=1e-4 * maps.abs().max().item())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet", "levit_128s"])
def test_its_own_pooling_gives_what_timm_gives_without_a_classifier(name: str) -> None:
    theirs = of_timm(name, num_classes=0)
    trunk = timm_trunk(f"timm:{name}", weights=theirs.state_dict(), image_size=SIZE, pooled=True).eval()
    with torch.no_grad():
        assert torch.equal(trunk(images())[:, :, 0, 0], theirs(images()))


def test_position_embeddings_are_resized_as_timm_does(tmp_path: Path) -> None:
    file = tmp_path / "vit.pth"
    torch.save(of_timm("test_vit", img_size=(160, 160)).state_dict(), file)
    trunk = timm_trunk(
        "timm:test_vit", weights=load_pretrained("timm:test_vit", str(file)), image_size=SIZE, pooled=True
    )
    theirs = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay={"file": str(file)}, img_size=SIZE
    ).eval()
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(images()), pre_logits=True)
        assert torch.allclose(trunk.eval()(images())[:, :, 0, 0], expected, atol=1e-6)
    with pytest.raises(InputError, match=r"timm:test_vit takes images of 64 x 32, not 32 x 32; set INPUT.SIZE"):
        trunk(images(size=(32, 32)))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet81", SIZE, "no network 'resnet81'; did you mean timm:resnet18"),
        ("resnet18.imagenet", SIZE, "unknown tag of timm's pretrained resnet18 'imagenet'.*a1_in1k"),
        ("hf-hub:timm/resnet18", SIZE, "no network 'hf-hub:timm/resnet18'"),
        ("test_convnext", (16, 16), "timm:test_convnext cannot process images of 16 x 16 .*set INPUT.SIZE"),
        ("vit_tiny_patch16_224", (65, 32), "sides are multiples of 16, not 65 x 32; set INPUT.SIZE"),
        ("levit_128s", SIZE, "which are no map; set MODEL.POOLING.NAME own"),
    ],
)
def test_what_cannot_work_is_refused(name: str, size: tuple[int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        timm_trunk(f"timm:{name}", image_size=size)


def test_other_weights_are_refused() -> None:
    with pytest.raises(InputError, match=r"x.pth: not the weights of timm:test_resnet, .* missing"):
        timm_trunk("timm:test_resnet", weights=of_timm("test_vit").state_dict(), image_size=SIZE, source="x.pth")


def test_timm_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"^timm:resnet18 needs the library timm .*pip install .*timm"):
        timm_trunk("timm:resnet18", image_size=SIZE)


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> nn.Module:
        raise OSError("no route\nto host")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(InputError, match=r"pretrained weights of timm:resnet18 \(no route to host\); give the path"):
        load_pretrained("timm:resnet18", "imagenet")


def test_normalizations_that_include_the_activation_keep_it() -> None:
    trunk = timm_trunk("timm:test_efficientnet", image_size=SIZE)
    with pytest.raises(InputError, match="its normalizations include the activations, which group would drop"):
        normalize(trunk, "group", network="timm:test_efficientnet", pretrained=False)
    activations = sum(isinstance(module, nn.SiLU) for module in trunk.modules())
    synchronize_batch_norms(synchronize_batch_norms(trunk))
    assert sum(isinstance(module, nn.SiLU) for module in trunk.modules()) == activations > 0
    assert not any(isinstance(module, nn.BatchNorm2d) for module in trunk.modules())
    plain = timm_trunk("timm:test_resnet", image_size=SIZE)
    normalize(plain, "group", groups=4, network="timm:test_resnet", pretrained=False)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    with pytest.raises(InputError, match="IBN-Net is defined for ResNets"):
        normalize(
            timm_trunk("timm:test_resnet", image_size=SIZE), "ibn_a", network="timm:test_resnet", pretrained=False
        )


def test_weights_of_efficientnet_pytorch_are_renamed() -> None:
    """That package has the same layers; blocks without an expansion begin with `_depthwise_conv`."""
    theirs = of_timm("tf_efficientnet_b0").state_dict()
    renamed, number = {}, -1
    for name, value in theirs.items():
        layer = name.removesuffix(f".{name.rpartition('.')[2]}")
        if name.startswith("blocks."):
            _, stage, _, layer = layer.split(".", 3)
            first = "conv_dw" if stage == "0" else "conv_pw"
            number += (layer, name.rpartition(".")[2]) == (first, "weight")
            order = ["_depthwise_conv", "_bn1", "_se_reduce", "_se_expand", "_project_conv", "_bn2"]
            parts = ["conv_dw", "bn1", "se.conv_reduce", "se.conv_expand", "conv_pw", "bn2"]
            if stage != "0":
                order = ["_expand_conv", "_bn0", *order]
                parts = ["conv_pw", "bn1", "conv_dw", "bn2", "se.conv_reduce", "se.conv_expand", "conv_pwl", "bn3"]
            package = f"_blocks.{number}.{order[parts.index(layer)]}"
        else:
            package = {"bn1": "_bn0", "bn2": "_bn1", "classifier": "_fc"}.get(layer, f"_{layer}")
        renamed[f"{package}.{name.rpartition('.')[2]}"] = value
    assert len(renamed) == len(theirs) and number == 15
    items = list(renamed.items())
    random.Random(0).shuffle(items)
    trunk = timm_trunk("timm:tf_efficientnet_b0", weights=dict(items), image_size=SIZE)
    assert all(torch.equal(value, theirs[name]) for name, value in trunk.network.state_dict().items())
    with pytest.raises(InputError, match=r"x.pth: the weights of an EfficientNet that pads as TensorFlow does"):
        timm_trunk("timm:efficientnet_b0", weights=renamed, image_size=SIZE, source="x.pth")


def pairs(name: str, *more: str) -> list[str]:
    fixed = ("MODEL.WEIGHTS", "none", "MODEL.EIGENLAYER.DIM", "8", "INPUT.SIZE", str(list(SIZE)))
    return ["MODEL.BACKBONE", name, *fixed, *more]


def checkpoint(path: Path, *more: str) -> Path:
    config = parse_config("", pairs("timm:test_vit", *more))
    return save_untrained(path, config, **build.library_versions(config))


@pytest.mark.parametrize("more", [(), ("MODEL.POOLING.NAME", "own")])
def test_a_checkpoint_is_read_and_embeds(tmp_path: Path, more: tuple[str, ...]) -> None:
    file = checkpoint(tmp_path / "vit.pth", *more)
    network, _ = load_network(file)
    embedder = Embedder.load(file, device="cpu")
    pixels = torch.rand(3, 3, *SIZE)
    mean, std = torch.tensor(embedder.config.INPUT.MEAN), torch.tensor(embedder.config.INPUT.STD)
    with torch.no_grad():
        expected = network.embed((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)).input
    assert torch.allclose(torch.from_numpy(embedder.embed(pixels)), nn.functional.normalize(expected, dim=1), atol=1e-5)


def test_a_checkpoint_says_which_version_wrote_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = load_checkpoint(checkpoint(tmp_path / "vit.pth"))
    assert content["timm"] == timm.__version__
    save_safetensors(tmp_path / "vit.safetensors", pack_checkpoint(content, source="vit.pth"))
    packed = load_checkpoint(tmp_path / "vit.safetensors")
    assert packed["timm"] == timm.__version__
    monkeypatch.setattr(timm, "__version__", "99.0")
    build.network_from_checkpoint(packed, source="vit.pth")
    del packed["model"]["backbone.network.pos_embed"]
    with pytest.raises(InputError, match=r"missing .*; timm [\d.]+ wrote it, and 99.0 is installed"):
        build.network_from_checkpoint(packed, source="vit.pth")


def test_other_normalization_than_that_of_the_weights_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    weights = dict(of_timm("vit_tiny_patch16_224").state_dict())
    build.network(parse_config("", pairs("timm:vit_tiny_patch16_224")), num_classes=3, weights=weights)
    assert "expect INPUT.MEAN [0.5, 0.5, 0.5] and INPUT.STD [0.5, 0.5, 0.5]" in caplog.text
