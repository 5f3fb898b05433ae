"""The network: shapes, the embedding record, ablations, what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from composed_network import compose
from torch import nn

from reid.errors import InputError
from reid.model.backbones import BACKBONES
from reid.model.backbones.osnet import OSNet, OSNetTrunk
from reid.model.network import ReidNetwork

IMAGES = torch.randn(4, 3, 64, 32, generator=torch.Generator().manual_seed(0))
D_IN = {
    "resnet18": 512,
    "resnet34": 512,
    "resnet50": 2048,
    "resnet101": 2048,
    "caffenet": 4096,
    "deepface": 4096,
    "small": 128,
}


def small(**options: object) -> ReidNetwork:
    torch.manual_seed(0)
    return compose("osnet_x0_25", 7, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BACKBONES)
def test_shapes(name: str) -> None:
    net = compose(name, 11).eval()
    size = getattr(net.backbone, "input_size", (64, 32))
    with torch.no_grad():
        embedding = net.embed(torch.randn(4, 3, *size))
        logits = net.classify(embedding.output)
    d_in = D_IN.get(name.split("_")[0], 512)  # every OSNet has its 512-wide fc block before the Eigenlayer
    assert embedding.input.shape == (4, d_in) and embedding.output.shape == (4, min(1024, d_in))
    assert logits.shape == (4, 11)
    assert isinstance(net.neck, nn.Identity) == name.startswith(("resnet", "small"))


@pytest.mark.parametrize(("backbone", "d_in"), [("resnet18", 1024), ("osnet_x0_25", 512)])
def test_average_max_pooling_doubles_the_pooled_width(backbone: str, d_in: int) -> None:
    net = compose(backbone, 3, pooling="average_max").eval()
    assert net.embed(IMAGES).input.shape == (4, d_in)


def test_options_reach_the_pooling_and_a_neck_takes_what_it_gives() -> None:
    net = small(pooling="netvlad", pooling_options={"clusters": 5, "init": "random"}).eval()
    assert net.pooling.width(128) == 5 * 128 and net.neck.in_features == 5 * 128
    assert net.embed(IMAGES).input.shape == (4, 512)
    assert small(pooling="gem", pooling_options={"p_per_channel": True}).pooling.p.shape == (128,)


def test_embedding_is_a_fixed_record_of_the_eigenlayer() -> None:
    net = small(eigenlayer={"k": 20}).eval()
    with torch.no_grad():
        embedding = net.embed(IMAGES)
        pooled = net.backbone(IMAGES).mean((2, 3))
        assert torch.allclose(embedding.input, net.neck(pooled), atol=1e-5)
        assert torch.allclose(embedding.output, embedding.input @ net.eigenlayer.vectors, atol=1e-5)
        assert net.classifier is not None
        expected = embedding.output @ net.classifier.weight.T + net.classifier.bias
        assert torch.allclose(net(IMAGES), expected, atol=1e-5)
        assert torch.allclose(net.classify(embedding.output), expected, atol=1e-5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        embedding.input = pooled  # type: ignore[misc]


def test_embedding_depends_on_the_image_alone_in_evaluation() -> None:
    net = small().eval()
    with torch.no_grad():
        whole, alone = net.embed(IMAGES), net.embed(IMAGES[2:3])
    assert torch.allclose(whole.output[2:3], alone.output, atol=1e-5)


def test_under_autocast_the_head_stays_float32() -> None:
    net = small().eval()
    seen = []
    net.backbone.register_forward_hook(lambda module, given, maps: seen.append(maps.dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        embedding, logits = net.embed(IMAGES), net(IMAGES)
    assert set(seen) == {torch.bfloat16}
    assert {embedding.input.dtype, embedding.output.dtype, logits.dtype} == {torch.float32}
    with torch.no_grad():
        assert torch.equal(embedding.output, net.eigenlayer(embedding.input))
        plain = net.embed(IMAGES)
    assert torch.nn.functional.cosine_similarity(plain.output, embedding.output).min() > 0.99


def test_dropout_sits_between_eigenlayer_and_classifier() -> None:
    net = small(dropout=0.5)
    net.backbone.eval()
    net.neck.eval()
    assert torch.equal(net.embed(IMAGES).output, net.embed(IMAGES).output)
    assert not torch.equal(net(IMAGES), net(IMAGES))
    assert torch.equal(net.eval()(IMAGES), net(IMAGES))


def test_eigenlayer_as_the_last_layer() -> None:
    net = small(classifier=None)
    assert net.classifier is None and net.eigenlayer.weight.shape == (7, 512)
    net.backbone.eval()
    net.neck.eval()
    assert not torch.equal(net(IMAGES), net(IMAGES))  # dropout comes before it
    net.eval()
    embedding = net.embed(IMAGES)
    assert torch.equal(net(IMAGES), embedding.output) and embedding.input.shape == (4, 512)


def test_eigenlayer_with_bias_and_relu() -> None:
    net = small(eigenlayer={"bias": True, "relu": True}).eval()
    output = net.embed(IMAGES).output
    assert net.eigenlayer.bias is not None and output.min() == 0 and output.max() > 0


def test_init_std_reaches_the_eigenlayer() -> None:
    assert small(eigenlayer={"init_std": 0.2}).eigenlayer.weight.std().item() == pytest.approx(0.2, rel=0.02)


def test_every_parameter_gets_a_gradient() -> None:
    net = small()
    net(IMAGES).logsumexp(1).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_given_weights_are_the_network_s() -> None:
    torch.manual_seed(1)
    bare = OSNet(0.25, num_classes=751)  # a checkpoint with another number of classes: those go anyway
    net = small(weights=bare.state_dict())
    assert torch.equal(net.backbone.state_dict()["conv1.conv.weight"], bare.conv1.conv.weight)
    assert torch.equal(net.neck.state_dict()["0.weight"], bare.fc[0].weight)
    assert "classifier" not in net.backbone._modules and "fc" not in net.backbone._modules
    with torch.no_grad():
        expected = bare.eval().fc(OSNetTrunk.forward(bare, IMAGES).mean((2, 3)))
        assert torch.allclose(net.eval().embed(IMAGES).input, expected, atol=1e-5)


def test_missing_and_unexpected_tensors_are_named() -> None:
    weights = dict(OSNet(0.25).state_dict())
    weights["backbone.conv1"] = weights.pop("conv5.bn.weight")
    message = r"run\.pth: .*of 567 tensors 1 missing \(conv5\.bn\.weight\); 1 unexpected \(backbone\.conv1\)"
    with pytest.raises(InputError, match=message):
        small(weights=weights, source="run.pth")


def test_an_unknown_name_is_answered_with_the_near_ones() -> None:
    with pytest.raises(InputError, match=r"unknown backbone 'resnet5'; did you mean .*resnet50"):
        compose("resnet5", 3)
    with pytest.raises(InputError, match=r"unknown pooling 'avg'; .*average"):
        small(pooling="avg")
    with pytest.raises(InputError, match="unknown backbone 'vit'; must be one of resnet18"):
        compose("vit", 3)


def test_a_last_layer_has_one_vector_a_class() -> None:
    with pytest.raises(InputError, match="K = 7, not 16"):
        small(classifier=None, eigenlayer={"k": 16})
    with pytest.raises(InputError, match="751 vectors in D_in = 512 dimensions cannot be orthogonal"):
        compose("osnet_x0_25", 751, classifier=None)
