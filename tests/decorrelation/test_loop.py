"""SVDNet in a loop of one's own: the replacement in place, the restraint, and the rounds, on tiny networks."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations, prune, weight_norm

from reid.decorrelation import RRI, VARIANTS, correlation_metric, decorrelate_, restrained
from reid.errors import InputError

ROTATIONS = ("US", "rotate", "none")
Between = Callable[[Tensor], Tensor]


class Network(nn.Module):
    """trunk -> embedding -> between -> classifier; the weight vectors of the embedding share a direction."""

    def __init__(self, between: Between = nn.Identity(), *, bias: bool = False, k: int = 6) -> None:  # noqa: B008
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(5, 10), nn.Tanh())
        self.embedding = nn.Linear(10, k, bias=bias)
        with torch.no_grad():
            self.embedding.weight += torch.randn(10)
        self.between = between
        self.classifier = nn.Linear(k, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(self.between(self.embedding(self.trunk(inputs))))


INPUTS = torch.randn(32, 5, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(32) % 4


def train(model: nn.Module, steps: int = 3, optimizer: torch.optim.Optimizer | None = None) -> None:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(INPUTS), LABELS).backward()
        optimizer.step()


def distances(layer: nn.Linear) -> Tensor:
    inputs = torch.randn(8, layer.in_features, generator=torch.Generator().manual_seed(2)).to(layer.weight.dtype)
    outputs = layer(inputs)
    return (outputs[:, None] - outputs[None]).norm(dim=2)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_classifier_keeps_its_logits(variant: str, bias: bool) -> None:
    model = Network(bias=bias).double()
    before, layer, parameter = copy.deepcopy(model), model.embedding, model.embedding.weight
    if bias and variant not in ROTATIONS:
        with pytest.raises(InputError, match=f"variant {variant} divides by singular values"):
            decorrelate_(layer, model.classifier, variant=variant)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
        return
    report = decorrelate_(layer, model.classifier, variant=variant, seed=3)
    torch.testing.assert_close(model(INPUTS.double()), before(INPUTS.double()))
    assert layer.weight is parameter and layer.weight.requires_grad
    assert torch.equal(layer.weight, before.embedding.weight) == (variant == "none")
    if variant in ROTATIONS:
        torch.testing.assert_close(distances(layer), distances(before.embedding))
    assert report.correlation_before == pytest.approx(correlation_metric(before.embedding), abs=1e-12)
    assert report.correlation_after == pytest.approx(correlation_metric(layer), abs=1e-12)
    assert report.correlation_before < 0.6 and (report.correlation_after > 1 - 1e-9) == (
        variant not in ("rotate", "none")
    )
    values = torch.linalg.svdvals(before.embedding.weight).tolist()
    assert report.singular_values == pytest.approx(values)
    assert report.condition_number == pytest.approx(values[0] / values[-1])
    assert str(report).startswith(f"S(W) {report.correlation_before:.3f} -> {report.correlation_after:.3f} ({variant})")


def test_without_a_classifier_the_logits_change_and_the_distances_stay() -> None:
    model = Network(bias=True)
    before = copy.deepcopy(model)
    decorrelate_(model.embedding)
    assert torch.equal(model.classifier.weight, before.classifier.weight)
    assert not torch.allclose(model(INPUTS), before(INPUTS), atol=1e-2)
    torch.testing.assert_close(distances(model.embedding), distances(before.embedding))
    lengths = [layer(torch.ones(10)).norm() for layer in (model.embedding, before.embedding)]
    torch.testing.assert_close(*lengths)  # with a bias that had stayed these would differ


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 0.995), (torch.bfloat16, 0.96), (torch.float32, 0.9999)])
def test_the_report_is_of_the_stored_weight(dtype: torch.dtype, least: float) -> None:
    layer = Network(bias=True).embedding.to(dtype)
    report = decorrelate_(layer)
    assert layer.weight.dtype == layer.bias.dtype == dtype
    assert report.correlation_after == correlation_metric(layer)
    assert least < report.correlation_after < 1 and report.correlation_before < 0.6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["half", "autocast"])
def test_a_round_in_half_precision(dtype: torch.dtype) -> None:
    model = Network().to(dtype)

    def train() -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
                functional.cross_entropy(model(INPUTS.to(dtype)).float(), LABELS).backward()
            optimizer.step()

    for report in RRI(model, model.embedding, rounds=1):
        with restrained(model.embedding):
            train()
        assert correlation_metric(model.embedding) == report.correlation_after > 0.96
        train()
    assert model.embedding.weight.dtype == dtype and correlation_metric(model.embedding) != report.correlation_after


def test_numbers_beyond_the_dtype_change_nothing() -> None:
    layer = nn.Linear(4, 3, bias=False, dtype=torch.float16)
    layer.weight.data.fill_(60000)  # one singular value of 2e5, in a column of US of entries up to 1e5
    before = layer.weight.detach().clone()
    with pytest.raises(InputError, match=r"exceed the range of torch.float16; .*\.float\(\)"):
        decorrelate_(layer)
    assert torch.equal(layer.weight, before)


def changed(make: Callable[[nn.Linear], object]) -> nn.Module:
    layer = nn.Linear(6, 4)
    return result if isinstance(result := make(layer), nn.Module) else layer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda layer: nn.Sequential(layer, nn.ReLU()), "must be an nn.Linear, not a Sequential"),
        (lambda layer: nn.Conv2d(3, 2, 1), "must be an nn.Linear, not a Conv2d"),
        (nn.DataParallel, "wrapped in DataParallel; pass its inner module"),
        (parametrizations.weight_norm, "computed from other parameters"),
        (parametrizations.orthogonal, "computed from other parameters"),
        (weight_norm, "computed from other parameters"),
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), "computed from other parameters"),
        (lambda layer: nn.LazyLinear(4), "has no numbers yet"),
        (lambda layer: nn.Linear(6, 4, device="meta"), "has no numbers yet"),
    ],
)
def test_layers_without_a_weight_of_their_own_are_refused(make: Callable, message: str) -> None:
    layer = changed(make)
    for call in (decorrelate_, lambda layer: restrained(layer).__enter__(), lambda layer: RRI(layer, layer)):
        with pytest.raises(InputError, match=message) as raised:
            call(layer)
        assert "\n" not in str(raised.value)


def test_tensor_subclasses_are_refused() -> None:
    class Sharded(Tensor):
        pass

    layer = nn.Linear(6, 4)
    layer.weight = nn.Parameter(torch.randn(4, 6).as_subclass(Sharded))
    with pytest.raises(InputError, match="is a Sharded"):
        decorrelate_(layer)


def test_invalid_numbers_and_arguments_are_refused() -> None:
    wide = nn.Linear(3, 5, bias=False)
    with pytest.raises(InputError, match="5 weight vectors of 3 dimensions cannot all be orthogonal"):
        decorrelate_(wide)
    layer = nn.Linear(6, 4)
    before = copy.deepcopy(layer)
    with pytest.raises(InputError, match=r"classifier of shape \(3, 5\) does not fit the 4 outputs"):
        decorrelate_(layer, nn.Linear(5, 3))
    with pytest.raises(InputError, match="unknown decorrelation variant"):
        decorrelate_(layer, variant="SU")
    with pytest.raises(InputError, match=r"the classifier must be an nn\.Linear"):
        decorrelate_(layer, nn.Bilinear(4, 4, 2))  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), before.parameters(), strict=True))
    square = nn.Linear(4, 4)
    square.weight = layer.weight = nn.Parameter(torch.randn(4, 4))
    with pytest.raises(InputError, match="share their weight"):
        decorrelate_(layer, square)
    layer.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="1 of 16 entries"):
        decorrelate_(layer)


OPTIMIZERS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "AdamW": {"lr": 0.1, "weight_decay": 0.1, "foreach": True},
    "Adam": {"lr": 0.1, "weight_decay": 0.1, "amsgrad": True},
    "RMSprop": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_with_momentum_does_not_move_a_restrained_layer(name: str) -> None:
    model = Network(bias=True)
    layer = model.embedding
    optimizer = getattr(torch.optim, name)(model.parameters(), **OPTIMIZERS[name])
    train(model, 2, optimizer)  # the layer now has momentum, and a gradient that is left
    momentum = copy.deepcopy(optimizer.state[layer.weight])
    before, trunk = copy.deepcopy(layer), copy.deepcopy(model.trunk)
    with restrained(layer):
        optimizer.step()  # before any zero_grad: the old gradient is dropped
        train(model, 2, optimizer)
        assert layer.weight.grad is None
    assert torch.equal(layer.weight, before.weight) and torch.equal(layer.bias, before.bias)
    assert not torch.equal(model.trunk[0].weight, trunk[0].weight)
    assert layer.weight.requires_grad and layer.bias.requires_grad and layer.weight.grad is None
    assert all(torch.equal(value, momentum[key]) for key, value in optimizer.state[layer.weight].items())
    train(model, 1, optimizer)
    assert not torch.equal(layer.weight, before.weight)


def test_what_was_frozen_before_stays_frozen() -> None:
    layer = nn.Linear(4, 3)
    layer.bias.requires_grad_(False)
    with pytest.raises(KeyError), restrained(layer):
        raise KeyError
    assert layer.weight.requires_grad and not layer.bias.requires_grad


def unfreeze(model: Network) -> None:
    model.requires_grad_(True)
    train(model)


def overwrite_bias(model: Network) -> None:
    model.embedding.bias.data.neg_()


def widen(model: Network) -> None:
    model.embedding.double()


def reach_nan(model: Network) -> None:
    model.embedding.weight.data[0, 0] = torch.nan


@pytest.mark.parametrize(
    ("act", "moved"),
    [(unfreeze, "weight, bias"), (overwrite_bias, "bias"), (widen, "weight, bias"), (reach_nan, "weight")],
)
def test_a_restrained_layer_that_moved_is_named(act: Callable[[Network], None], moved: str) -> None:
    model = Network(bias=True)
    with pytest.raises(RuntimeError, match=rf"layer changed: {moved}\."), restrained(model.embedding):
        act(model)
    assert model.embedding.weight.requires_grad and model.embedding.weight.grad is None


def test_momentum_gathered_inside_is_named() -> None:
    """As with a rate that rises from 0: the layer would move at the first step after the restraint."""
    model = Network()
    layer = model.embedding
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    for steps in (0, 1):  # without momentum before, and with
        train(model, steps, optimizer)
        with (
            pytest.raises(RuntimeError, match=r"layer changed: momentum_buffer of weight\."),
            restrained(layer),
        ):
            layer.requires_grad_(True)
            train(model, 1, optimizer)
    with restrained(layer):
        train(model, 1, optimizer)


def test_the_rounds_decorrelate_measure_and_stop() -> None:
    model = Network()
    rri = RRI(model, model.embedding, rounds=4, tolerance=1.0)
    assert rri.stopped is None
    measured = []
    for report in rri:
        assert report.correlation_after == pytest.approx(1, abs=1e-5)
        with restrained(model.embedding):
            train(model)
        assert correlation_metric(model.embedding) == pytest.approx(report.correlation_after)
        train(model)
        measured.append(correlation_metric(model.embedding))
    # No rise of S(W) can exceed a tolerance of 1: settled as soon as there is one round to compare with.
    assert len(measured) == 2 and rri.history == pytest.approx(measured) and rri.stopped == "converged"
    assert not model._forward_hooks and not model.embedding._forward_hooks and not model._forward_pre_hooks

    for _ in (control := RRI(model, model.embedding, rounds=3, tolerance=None, variant="none")):
        weight = model.embedding.weight.detach().clone()
        train(model)
        assert not torch.equal(model.embedding.weight, weight)
    assert len(control.history) == 3 and control.stopped == "max_rounds"
    for _ in control:
        break
    assert control.history == [] and control.stopped is None and not model._forward_hooks


def correlate(layer: nn.Linear, inner: float) -> float:
    """Give all weight vectors this inner product with each other, and length 1."""
    gram = torch.full((6, 6), inner) + (1 - inner) * torch.eye(6)
    with torch.no_grad():
        layer.weight.zero_()[:, :6] = torch.linalg.cholesky(gram)
    return correlation_metric(layer)


def test_each_round_says_whether_the_correlation_has_settled(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "reid.decorrelation")
    model, ends = Network(), iter((0.5, 0.3, 0.31, 0.39))
    rri = RRI(model, model.embedding, tolerance=0.05, patience=2)
    reports, results, measured = [], [], []
    for report in rri:
        reports.append(report)
        if report.previous is not None:
            results.append(report.previous)
        measured.append(correlate(model.embedding, next(ends)))
    assert rri.last is not None and rri.stopped == "converged"
    results.append(rri.last)
    assert reports[0].previous is None and [result.number for result in results] == [1, 2, 3, 4]
    # 6 vectors of length 1: S(W) = 1 / (1 + 5 * inner).
    assert measured == pytest.approx([1 / 3.5, 1 / 2.5, 1 / 2.55, 1 / 2.95])
    assert [result.correlation for result in results] == measured == rri.history
    rises = [1 / 2.5 - 1 / 3.5, 1 / 2.55 - 1 / 2.5, 1 / 2.95 - 1 / 2.5]
    assert results[0].rise is None and [result.rise for result in results[1:]] == pytest.approx(rises, abs=1e-6)
    assert [result.progress for result in results] == [None, True, False, False]
    assert [result.settled for result in results] == [False, False, False, True]
    lines = [
        "round 1 ended at S(W) 0.286: not settled",
        "round 2 ended at S(W) 0.400, +0.114 on the best before: not settled",
        "round 3 ended at S(W) 0.392, -0.008 on the best before: no progress, not settled",
        "round 4 ended at S(W) 0.339, -0.061 on the best before: no progress, settled",
    ]
    assert caplog.messages == lines
    assert [str(report).partition("; ")[2] for report in reports] == ["", *lines[:3]]
    for _ in (rri := RRI(model, model.embedding, rounds=2, tolerance=None)):
        correlate(model.embedding, 0.9 if rri.last is None else 0.5)
    assert str(rri.last) == "round 2 ended at S(W) 0.286, +0.104 on the best before"


def test_the_logits_stay_at_each_decorrelation_with_the_classifier() -> None:
    model = Network(nn.Dropout(0.0), bias=True).double()
    logits = model(INPUTS.double())
    for _ in RRI(model, model.embedding, rounds=2, classifier=model.classifier):
        torch.testing.assert_close(model(INPUTS.double()), logits)
        with torch.no_grad():
            model.embedding.weight[0] += 1.0
        logits = model(INPUTS.double())


def test_random_rotations_differ_from_round_to_round() -> None:
    model, weights = Network(), []
    for _ in RRI(model, model.embedding, rounds=2, tolerance=None, variant="rotate"):
        weights.append(model.embedding.weight.detach().clone())
        model.embedding.weight.data = Network().embedding.weight.data.clone()  # the same start for both
    assert len(weights) == 2 and not torch.allclose(*weights)


def test_a_layer_that_relaxation_forgot_is_reported() -> None:
    model = Network()
    with pytest.raises(InputError, match="did not change in round 1, so Relaxation did not train it"):
        for _ in RRI(model, model.embedding):
            with restrained(model.embedding):
                optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
                train(model, 2, optimizer)
            train(model, 2, optimizer)


def in_half(inputs: Tensor) -> Tensor:
    return inputs.bfloat16().relu().float()


def in_place_on_a_view(inputs: Tensor) -> Tensor:
    return inputs[:, :, None].squeeze(2).relu_()


BENT: list[Between] = [
    *(nn.ReLU(), nn.ReLU(inplace=True), functional.gelu, nn.PReLU(), nn.SELU(), torch.relu, in_half),
    *(lambda f: f.view(-1, 2, 3).flatten(1).tanh(), lambda f: (2 - f[:, :, None]).relu()[:, :, 0]),
    *(nn.Sequential(nn.Dropout(0.5), nn.ReLU()), nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6), nn.ReLU())),
    *(nn.Sequential(nn.BatchNorm1d(6), nn.ReLU(True)), nn.Sequential(nn.BatchNorm1d(6).eval(), nn.ReLU6())),
    *(nn.Sequential(nn.LayerNorm(6), nn.Dropout(0.5), nn.GELU()), lambda f: functional.normalize(f).relu()),
    lambda f: f + f.tanh() * 0,  # a branch through an activation counts too
]


def test_a_change_in_place_that_hides_what_follows_is_refused() -> None:
    model = Network(in_place_on_a_view, bias=True)
    with pytest.raises(InputError, match="changed in place, which hides whether an activation follows"):
        for _ in RRI(model, model.embedding):
            with restrained(model.embedding):
                train(model)


@pytest.mark.parametrize("between", BENT)
@pytest.mark.parametrize("evaluated_first", [False, True])
def test_an_activation_behind_the_layer_is_refused(between: Between, evaluated_first: bool) -> None:
    model = Network(between, bias=True)
    with pytest.raises(InputError, match="an activation follows the layer"):
        for _ in RRI(model, model.embedding):
            if evaluated_first:
                with torch.no_grad():
                    model(INPUTS)  # which has no graph to look at
            with restrained(model.embedding):
                train(model)
    assert not model._forward_hooks and not model.embedding._forward_hooks


@pytest.mark.parametrize(
    "between",
    [
        *(nn.Dropout(0.5), nn.BatchNorm1d(6), functional.normalize, lambda f: f.bfloat16().float()[:, None].flatten(1)),
        nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 6), nn.ReLU()),  # a new layer, trained in Restraint
        lambda f: f * torch.sigmoid(f.mean(1, keepdim=True)),  # of the mean, no coordinate
    ],
)
def test_what_else_may_follow_the_layer(between: Between) -> None:
    model = Network(between)
    assert isinstance(model.trunk[1], nn.Tanh)  # an activation before the layer is nobody's business
    for _ in RRI(model, model.embedding, rounds=1):
        train(model)


@pytest.mark.parametrize("between", [nn.BatchNorm1d(6), nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6))])
def test_a_normalization_forbids_to_keep_the_logits(between: Between) -> None:
    model = Network(between)
    with pytest.raises(InputError, match="a normalization follows the layer"):
        for _ in RRI(model, model.embedding, classifier=model.classifier):
            train(model)


class Nested(Network):
    """Returns the features before `between`, after `returned`, as well."""

    def __init__(self, between: Between, returned: Between) -> None:
        super().__init__(between)
        self.returned = returned

    def forward(self, inputs: Tensor) -> dict:  # type: ignore[override]
        embedding = self.embedding(self.trunk(inputs))
        features = self.returned(embedding)
        return {"features": [features, None], "logits": (self.classifier(self.between(embedding)),)}


@pytest.mark.parametrize("between", [nn.ReLU(), nn.Sequential(nn.BatchNorm1d(6), nn.ReLU())])
def test_the_outputs_may_be_nested_and_the_network_called_piecewise(between: Between) -> None:
    for returned in (nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 6)):
        model = Nested(between, returned)
        with pytest.raises(InputError, match=r"activation follows the layer \(Relu\)"):
            for _ in RRI(model, model.embedding):
                model.embedding(model.trunk(INPUTS))  # not through the network: nothing to see, nothing kept
                model(INPUTS)


@pytest.mark.parametrize("returned", [nn.Identity(), lambda f: f.bfloat16()[:, None]])
@pytest.mark.parametrize("between", [nn.ReLU(), nn.Sequential(nn.BatchNorm1d(6), nn.ReLU())])
def test_an_activation_may_follow_where_the_output_itself_is_compared(between: Between, returned: Between) -> None:
    model = Nested(between, returned)
    for _ in RRI(model, model.embedding, rounds=1):
        functional.cross_entropy(model(INPUTS)["logits"][0], LABELS).backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()


def test_the_check_keeps_no_graph_of_a_network_that_is_called_piecewise() -> None:
    class Probe:
        def __call__(self, gradient: Tensor) -> None: ...

    model, probe = Network(), Probe()
    alive = weakref.ref(probe)
    for _ in RRI(model, model.embedding, rounds=1):
        hidden = model.trunk(INPUTS)
        hidden.register_hook(probe)  # lives as long as the graph
        model.classifier(model.embedding(hidden)).sum().backward()
        del hidden, probe
        assert alive() is None
        train(model)


def test_tied_and_foreign_layers_are_refused() -> None:
    model = Network(k=10)
    model.second = nn.Linear(10, 10)
    model.again = model.embedding  # a second name of the same layer shares nothing with another one
    assert RRI(model, model.embedding).history == []
    model.second.weight = model.embedding.weight
    with pytest.raises(InputError, match=r"the layer shares its weight or bias with second\.weight"):
        RRI(model, model.embedding)
    model.second.weight = nn.Parameter(model.embedding.weight.data)  # another object, the same memory
    with pytest.raises(InputError, match=r"the layer shares its weight or bias with second\.weight"):
        RRI(model, model.embedding)
    model.second = nn.Linear(10, model.classifier.out_features)
    model.second.weight = model.classifier.weight
    with pytest.raises(InputError, match=r"the classifier shares its weight or bias with second\.weight"):
        RRI(model, model.embedding, classifier=model.classifier)
    assert RRI(model, model.embedding).history == []
    outside = nn.Linear(10, 3)  # as in a loss with a classifier of its own
    assert RRI(model, model.embedding, classifier=outside).history == []
    with pytest.raises(InputError, match="not part of the network"):
        RRI(Network(), model.embedding)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"rounds": 0}, "rounds"), ({"patience": 0}, "patience"), ({"tolerance": -0.1}, "tolerance must be 0 or more")],
)
def test_arguments_out_of_range_are_refused(arguments: dict, message: str) -> None:
    model = Network()
    with pytest.raises(InputError, match=message):
        RRI(model, model.embedding, **arguments)


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_distributed_network_is_wrapped_anew_in_each_stage(one_process: None) -> None:
    model = Network()
    with pytest.raises(InputError, match=r"wrapped in DistributedDataParallel.*wrap that anew"):
        RRI(DistributedDataParallel(model), model.embedding)
    for report in RRI(model, model.embedding, rounds=1):
        with restrained(model.embedding):
            train(DistributedDataParallel(model))
        assert correlation_metric(model.embedding) == report.correlation_after
        train(DistributedDataParallel(model))
        assert correlation_metric(model.embedding) != report.correlation_after
