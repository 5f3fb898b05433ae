"""Correlation and spectra of a network's weights over a training: from any loop, Lightning, or Transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from reid.decorrelation.layers import check_weight
from reid.diagnostics.frames import to_frame
from reid.diagnostics.survey import find_name, network_groups, survey_layer
from reid.diagnostics.weights import Layer
from reid.errors import InputError, install_command
from reid.io.json_yaml import flatten

if TYPE_CHECKING:
    import pandas

# What is drawn over the steps; the rows hold all numbers.
SCALARS = (
    *("correlation", "ratio", "severest_pair", "effective_rank", "largest_cosine", "dead_vectors"),
    *("spectral.alpha", "spectral.stable_rank", "spectral.num_spikes"),
)


class ScalarWriter(Protocol):
    """What takes scalars by step, such as `torch.utils.tensorboard.SummaryWriter`."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int, /) -> None:
        """Add a number.

        Args:
            tag: Its name.
            scalar_value: The number.
            global_step: Its step.
        """
        ...


class CorrelationMonitor:
    """Measures how correlated the weight vectors of a network are, whenever `log` is called.

        monitor = CorrelationMonitor(model)
        for epoch in range(epochs):
            ...  # train
            monitor.log()
        monitor.to_frame()

    Weights are only read, and no global random number is drawn, so a training is the same with and without a monitor.
    What computes a weight, such as a parametrization, is read in evaluation mode; with the hooks of the old
    `nn.utils.weight_norm` and `spectral_norm` the weight is that of the last forward pass.

    Args:
        model: Any network; its linear and convolution layers and the projections of its `nn.MultiheadAttention` are
            measured, with their groups.
        layers: Names of the modules or weights to measure; None for all. Names in a wrapped network begin with those of
            its wrapper, such as "module." or "_orig_mod.".
        spectra: Whether to measure `spectral.describe_spectrum` too, which takes most of the time.
        writer: Also gets the numbers of `SCALARS`, as "NUMBER/LAYER".

    Attributes:
        rows: The rows of all calls of `log`, in order.

    Raises:
        InputError: If a name is unknown, there is nothing to measure, or a weight is not an ordinary tensor: not
            initialized, quantized, or sharded over processes.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str] | None = None,
        *,
        spectra: bool = True,
        writer: ScalarWriter | None = None,
    ) -> None:
        known = network_groups(model)
        source = type(model).__name__
        chosen = known if layers is None else [find_name(known, name, list(known), source) for name in layers]
        if not chosen:
            raise InputError("CorrelationMonitor: there is no linear or convolution layer to measure")
        self._layers = {name: (model.get_submodule(name.rpartition(".")[0]), known[name]) for name in chosen}
        for name, (module, _) in self._layers.items():
            if (weight := dict(module.named_parameters(recurse=False)).get(name.rpartition(".")[2])) is not None:
                check_weight(weight, f"layer {name.rpartition('.')[0]}".rstrip())
        self._spectra, self._writer = spectra, writer
        self.rows: list[dict[str, Any]] = []

    def log(self, step: int | None = None) -> list[dict[str, Any]]:
        """Measure the weights as they are now.

        Args:
            step: Number of the epoch or step; None for the one after that of the last call, 0 at first.

        Returns:
            A row per layer, as `survey.survey_layer` returns it, with "step".
        """
        if step is None:
            step = self.rows[-1]["step"] + 1 if self.rows else 0
        rows: list[dict[str, Any]] = []
        for name, (module, groups) in self._layers.items():
            layer = Layer(name, _read(module, name.rpartition(".")[2]).cpu(), groups, "network")
            rows.append({"step": step, **survey_layer(layer, spectra=self._spectra)})
        self.rows += rows
        if self._writer is not None:
            for tag, value in scalars(rows).items():
                self._writer.add_scalar(tag, value, step)
        return rows

    def to_frame(self) -> pandas.DataFrame:
        """Convert all rows to a data frame.

        Returns:
            A row per layer and step, indexed by both, with columns such as `spectral.alpha`.

        Raises:
            InputError: If nothing has been measured, or pandas is not installed.
        """
        if not self.rows:
            raise InputError("CorrelationMonitor: nothing has been measured yet; call log() first")
        return to_frame({"survey": self.rows}).set_index("step", append=True)


def scalars(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Select the numbers to draw over the steps.

    Args:
        rows: Value returned by `CorrelationMonitor.log`.

    Returns:
        The numbers of `SCALARS` by "NUMBER/LAYER"; those that a layer does not have are left out.
    """
    flat = [dict(flatten(row)) for row in rows]
    found = {f"{key}/{row['name']}": row.get(key) for row in flat for key in SCALARS}
    return {tag: float(value) for tag, value in found.items() if value is not None}


def lightning_callback(monitor: CorrelationMonitor) -> Any:
    """Create a callback of Lightning that measures after every training epoch and logs the scalars.

    Args:
        monitor: Monitor of the module that is trained, or of a part of it.

    Returns:
        A `lightning.Callback`. Only the process of rank 0 measures.

    Raises:
        InputError: If Lightning is not installed.
    """
    try:
        from lightning import Callback, LightningModule, Trainer
    except ImportError:
        raise InputError(f"lightning_callback needs the extra: {install_command('lightning')}") from None

    class Monitoring(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.is_global_zero:
                pl_module.log_dict(scalars(monitor.log(trainer.current_epoch)), rank_zero_only=True)

    return Monitoring()


def transformers_callback(monitor: CorrelationMonitor) -> Any:
    """Create a callback of Hugging Face's `Trainer` that measures after every epoch.

    Args:
        monitor: Monitor of the model that is trained, or of a part of it.

    Returns:
        A `transformers.TrainerCallback`. Only the process of rank 0 measures; the scalars are added to the trainer's
        `state.log_history`, which its checkpoints keep.

    Raises:
        InputError: If Transformers is not installed.
    """
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise InputError(f"transformers_callback needs the extra: {install_command('transformers')}") from None

    class Monitoring(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                found = scalars(monitor.log(state.global_step))
                state.log_history.append({**found, "epoch": state.epoch, "step": state.global_step})

    return Monitoring()


@torch.no_grad()
def _read(module: nn.Module, name: str) -> Tensor:
    """The weight that a layer applies."""
    parametrizations = getattr(module, "parametrizations", nn.ModuleDict())
    training = parametrizations.training
    parametrizations.eval()  # in training mode, reading a spectrally normalized weight changes its estimate
    try:
        return getattr(module, name).detach()
    finally:
        parametrizations.train(training)
