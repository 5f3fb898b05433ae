"""A step and an epoch of them: accumulation, clipping, losses read now and then, and losses that are no numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_run import callbacks, same_plan

from reid.errors import Diverged
from reid.losses.objective import LossWeights, Objective
from reid.model.network import ReidNetwork
from reid.svdnet import step0
from reid.training.epoch import READ_EVERY, EpochBatches, train_epoch
from reid.training.optimizer import Solver, make_optimizer
from reid.training.schedule import Schedule, StagePlan
from reid.training.state import EpochProgress, TrainState
from reid.training.step import evaluated_in, tf32_products, train_step

Make = Callable[[], ReidNetwork]
PLAIN = Solver(momentum=0.0, weight_decay=0.0)


def weights(model: ReidNetwork) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def stepped(model: ReidNetwork, batches: list[Any], lr: float = 0.1, **options: Any) -> Any:
    optimizer, solver = make_optimizer(model, PLAIN, lr), dataclasses.replace(PLAIN, **options)
    return train_step(TrainState("rri", model), batches, len(batches), optimizer, solver)


def test_two_half_batches_are_one_whole(make_model: Make, loader: Any) -> None:
    whole, halves = make_model().eval(), make_model().eval()  # no dropout, and statistics that stay
    images, labels = loader.images[:20], loader.labels[:20]
    stepped(whole, [(images, labels)])
    losses = stepped(halves, [(images[:10], labels[:10]), (images[10:], labels[10:])])
    assert [loss.images for loss in losses] == [10, 10]
    start = make_model().state_dict()
    for name, tensor in whole.named_parameters():
        assert torch.allclose(tensor, halves.state_dict()[name], atol=1e-6), name
        assert not torch.equal(tensor, start[name]), name


def test_a_clipped_step_is_as_long_as_its_limit(make_model: Make, loader: Any) -> None:
    def length(clip: float) -> float:
        model = make_model()
        before = weights(model)
        stepped(model, [(loader.images, loader.labels)], clip=clip)
        return sum(float((p.detach() - before[n]).square().sum()) for n, p in model.named_parameters()) ** 0.5

    free = length(0.0)
    assert length(free / 0.1 / 4) == pytest.approx(free / 4, rel=1e-4)
    assert length(10 * free / 0.1) == free


def test_a_skipped_batch_leaves_nothing_behind(make_model: Make, loader: Any) -> None:
    model, alone = make_model().train(), make_model().train()
    before = weights(model)
    bad = loader.images[:10].clone()
    bad[3] = float("nan")
    (loss,) = stepped(model, [(bad, loader.labels[:10])], nonfinite="skip")
    assert not loss.used
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    # Beside a good one: the step is that of the good one, at its share of the mean.
    model.dropout.p = alone.dropout.p = 0.0
    good = (loader.images[10:20], loader.labels[10:20])
    used = [loss.used for loss in stepped(model, [(bad, loader.labels[:10]), good], lr=0.2, nonfinite="skip")]
    stepped(alone, [good], lr=0.1)
    assert used == [False, True]
    for name, tensor in alone.state_dict().items():
        assert torch.allclose(tensor, model.state_dict()[name], atol=1e-6), name


def test_a_gradient_that_is_no_number_skips_the_step(make_model: Make, loader: Any) -> None:
    model = make_model()
    before = weights(model)
    model.eigenlayer.weight.register_hook(lambda grad: grad * float("inf"))
    (loss,) = stepped(model, [(loader.images, loader.labels)], nonfinite="skip")
    assert not loss.used
    # Running statistics too.
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_fused_is_the_same_step(make_model: Make, loader: Any, optimizer: str) -> None:
    ends = []
    for fused in (False, True):
        model = make_model().eval()
        solver = Solver(optimizer=optimizer, fused=fused)
        made = make_optimizer(model, solver, 0.01)
        for _ in range(3):
            train_step(TrainState("rri", model), [(loader.images, loader.labels)], 1, made, solver)
        ends.append(weights(model))
    assert all(torch.allclose(tensor, ends[1][name], atol=1e-6) for name, tensor in ends[0].items())


def test_tf32_holds_inside_only() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    with tf32_products(True):
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before
    with tf32_products(False):
        assert torch.backends.cuda.matmul.allow_tf32 == before


def epoch(model: ReidNetwork, loader: Any, **functions: Any) -> EpochProgress:
    torch.manual_seed(5)
    optimizer = make_optimizer(model, PLAIN, 0.05)
    state = TrainState("rri", model, Objective(LossWeights(center=0.1), num_classes=5, width=12))
    stage = StagePlan("step0", 0, Schedule(epochs=1, lr=(0.05,)))
    return train_epoch(state, EpochBatches(loader, 1), optimizer, stage, PLAIN, callbacks(**functions))


def test_an_evaluation_in_float32_is_not_one_in_tf32() -> None:
    conv = getattr(torch.backends.cudnn, "conv", None)

    def allowed() -> bool:
        return conv.fp32_precision == "tf32" if conv else torch.backends.cudnn.allow_tf32

    before = allowed()
    with evaluated_in(torch.device("cuda"), None):
        assert not allowed()
    assert allowed() == before
    with evaluated_in(torch.device("cpu"), torch.bfloat16):
        assert torch.is_autocast_enabled("cpu") and allowed() == before


def test_when_the_loss_is_read_changes_nothing(make_model: Make, loader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    for every in (1, 4):
        monkeypatch.setitem(READ_EVERY, "cpu", every)
        read.append(dataclasses.replace(epoch(make_model(), loader), seconds=0))
    often, seldom = read
    assert often == seldom
    assert set(often.parts) == {"identity", "center"}
    assert often.images == 50


@pytest.mark.parametrize("read_every", [1, 4])
def test_a_loss_that_is_no_number_is_named_before_anything_is_saved(
    make_model: Make, loader: Any, read_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(READ_EVERY, "cpu", read_every)
    saved: list[int] = []
    third = loader.batch_paths(1, 2)
    loader.images[int(third[7].removesuffix(".jpg"))] = float("inf")
    with pytest.raises(Diverged) as caught:
        epoch(
            make_model(),
            loader,
            should_save=lambda state: len(saved) < 2,
            save=lambda state: saved.append(state.progress.batches),
        )
    message = str(caught.value)
    assert "at batch 3 of 5" in message
    assert f"whose 10 images are {', '.join(third[:3])}, ..." in message
    assert saved == [1, 2]


def test_skipped_batches_are_counted_in_the_log(make_model: Make, loader: Any) -> None:
    loader.images[7] = float("inf")
    entries: list[dict[str, Any]] = []
    state = TrainState("rri", make_model())
    solver, schedule = Solver(nonfinite="skip"), Schedule(epochs=2, lr=(0.05,))
    row = step0.run(state, loader, same_plan(schedule, solver), callbacks(on_epoch_end=lambda s, e: entries.append(e)))
    assert [entry["skipped"] for entry in entries] == [1, 1]
    assert row.train_loss > 0
    loader.images[:] = float("inf")
    with pytest.raises(Diverged, match="all 5 batches were skipped"):
        step0.run(TrainState("rri", make_model()), loader, same_plan(schedule, solver), callbacks())


def test_fewer_batches_than_promised(make_model: Make, loader: Any) -> None:
    whole = loader.epoch
    loader.epoch = lambda seed, descriptors, start, **shared: whole(seed, descriptors, start + 1, **shared)
    with pytest.raises(ValueError, match="expected 5 batches, got 4"):
        epoch(make_model(), loader)
