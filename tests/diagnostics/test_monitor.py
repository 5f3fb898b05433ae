"""Correlation over a training: plain loops, Lightning, Transformers and TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from reid.decorrelation import correlation_metric, decorrelate_
from reid.diagnostics.monitor import CorrelationMonitor, lightning_callback, scalars, transformers_callback
from reid.diagnostics.survey import find_layers, network_groups, survey
from reid.errors import InputError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(128, 24)
    )


def train(model: nn.Module, monitor: CorrelationMonitor | None, steps: int = 3) -> list[float]:
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(torch.randn(4, 3, 8, 8)), torch.randint(24, (4,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if monitor:
            monitor.log()
    return losses


def test_the_rows_are_those_of_a_survey() -> None:
    model = network()
    (*rows,) = CorrelationMonitor(model).log()
    expected = {row["name"]: row for row in survey(find_layers(model.state_dict(), network=network_groups(model)))}
    assert [row["name"] for row in rows] == ["0.weight", "2.weight", "4.weight"]
    assert {row["name"]: row for row in rows} == {name: {"step": 0, **row} for name, row in expected.items()}
    assert rows[1]["groups"] == 2 and rows[0]["spectral"]["num_evals"] > 0


def test_a_monitored_training_is_the_same() -> None:
    model, other = network(), network()
    monitor = CorrelationMonitor(model)
    assert train(model, monitor) == train(other, None)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert [row["step"] for row in monitor.rows] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_decorrelation_is_seen() -> None:
    model = network()
    monitor = CorrelationMonitor(model, ["4"], spectra=False)
    with torch.no_grad():
        model[4].weight += 0.2  # a shared direction
    (before,) = monitor.log(7)
    assert before["correlation"] == pytest.approx(correlation_metric(model[4].weight.detach().double().T))
    decorrelate_(model[4])
    (after,) = monitor.log()
    assert (before["step"], after["step"], after["spectral"]) == (7, 8, None)
    assert before["correlation"] < 0.2 and after["correlation"] == pytest.approx(1, abs=1e-5)


def test_the_weight_that_the_layer_applies_is_measured() -> None:
    linear = parametrizations.orthogonal(nn.Linear(16, 8))
    (row,) = CorrelationMonitor(linear, spectra=False).log()
    assert row["name"] == "weight" and row["correlation"] == pytest.approx(1, abs=1e-5)


def test_projections_of_attention_are_measured() -> None:
    model = nn.TransformerEncoderLayer(16, 2, 32)
    names = [row["name"] for row in CorrelationMonitor(model, spectra=False).log()]
    expected = ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"]
    assert names == expected == [layer.name for layer in find_layers(model.state_dict())]
    apart = nn.MultiheadAttention(16, 2, kdim=8, vdim=4)
    (query, *_) = CorrelationMonitor(apart, ["q_proj_weight"], spectra=False).log()
    assert (query["d_in"], query["k"]) == (16, 16)
    assert set(network_groups(apart)) == {layer.name for layer in find_layers(apart.state_dict())}


def test_names_are_checked() -> None:
    with pytest.raises(InputError, match=r"Sequential: no layer '5'; it has 3 weights"):
        CorrelationMonitor(network(), ["5"])
    for model, layers in ((nn.BatchNorm2d(3), None), (network(), [])):
        with pytest.raises(InputError, match="no linear or convolution layer"):
            CorrelationMonitor(model, layers)
    with pytest.raises(InputError, match="the weight of the layer 1 has no numbers yet"):
        CorrelationMonitor(nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3)))
    with pytest.raises(InputError, match=r"nothing has been measured yet; call log\(\) first"):
        CorrelationMonitor(network()).to_frame()


def test_an_estimate_of_the_spectral_norm_is_left_alone() -> None:
    layer = parametrizations.spectral_norm(nn.Linear(16, 8)).train()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    CorrelationMonitor(layer, spectra=False).log()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert layer.parametrizations.training


def test_data_frame() -> None:
    pytest.importorskip("pandas")
    monitor = CorrelationMonitor(network(), ["0.weight", "4.weight"])
    monitor.log()
    monitor.log()
    frame = monitor.to_frame()
    assert list(frame.index) == [("0.weight", 0), ("4.weight", 0), ("0.weight", 1), ("4.weight", 1)]
    assert frame.loc[("4.weight", 1), "spectral.stable_rank"] == monitor.rows[3]["spectral"]["stable_rank"]


def test_broken_weights_have_no_numbers() -> None:
    model = nn.Linear(4, 3)
    nn.init.constant_(model.weight, torch.nan)
    (row,) = CorrelationMonitor(model).log()
    assert "12 of 12 entries are NaN" in row["broken"] and scalars([row]) == {}


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        monitor = CorrelationMonitor(network(), ["4"], writer=writer)
        monitor.log(3)
        monitor.log(5)
    events = EventAccumulator(str(tmp_path)).Reload()
    found = [(event.step, event.value) for event in events.Scalars("correlation/4.weight")]
    assert found == [(row["step"], pytest.approx(row["correlation"])) for row in monitor.rows]
    assert "spectral.stable_rank/4.weight" in events.Tags()["scalars"]


def test_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lightning = pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 4)

        def training_step(self, batch: Any) -> torch.Tensor:
            return nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    model = Module()
    monitor = CorrelationMonitor(model, ["layer"], spectra=False)
    data = torch.utils.data.TensorDataset(torch.randn(8, 16), torch.randint(4, (8,)))
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[lightning_callback(monitor)],
    )
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=4))
    assert [row["step"] for row in monitor.rows] == [0, 1]
    last = monitor.rows[-1]["correlation"]
    assert float(trainer.callback_metrics["correlation/layer.weight"]) == pytest.approx(last)
    assert last == pytest.approx(correlation_metric(model.layer.weight.detach().double().T))


def test_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    # From a clone, it takes the folder `datasets` for the package of that name.
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=2
    )
    model = transformers.BertForSequenceClassification(config)
    monitor = CorrelationMonitor(model, ["classifier", "bert.pooler.dense"], spectra=False)
    data = [{"input_ids": torch.randint(20, (6,)), "labels": torch.tensor(n % 2)} for n in range(8)]
    arguments = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=2, per_device_train_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=data, callbacks=[transformers_callback(monitor)]
    )
    trainer.train()
    assert [row["step"] for row in monitor.rows] == [2, 2, 4, 4]
    logged = [entry for entry in trainer.state.log_history if "correlation/classifier.weight" in entry]
    assert [entry["correlation/classifier.weight"] for entry in logged] == [
        row["correlation"] for row in monitor.rows if row["name"] == "classifier.weight"
    ]
