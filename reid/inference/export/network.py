"""The network in the form in which it is exported, and traced by `torch.export`."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.nn import functional
from torch.nn.utils import parametrize

from reid.data.images.normalization import normalize
from reid.errors import InputError
from reid.inference.export.interface import Form
from reid.inference.export.local_connection import unfold_local_connections
from reid.model.network import ReidNetwork

# What tracing notes of every operation: lines and paths of the code, which are nobody's business.
_NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


class ExportedNetwork(nn.Module):
    """images as `form` has them -> embeddings (B, D) float32.

    It holds a copy of the network without what the feature does not need; tied weights are computed once and kept.
    """

    slope: Tensor | None
    offset: Tensor | None

    def __init__(self, network: ReidNetwork, form: Form) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
        self.network.classifier = None
        if form.feature == "input":
            self.network.eigenlayer = nn.Identity()  # type: ignore[assignment]
        for module in list(self.network.modules()):
            if parametrize.is_parametrized(module):
                _untie(module)
        unfold_local_connections(self.network)
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            # Saved as its own part of the file, so no view and no other order in memory.
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
        self.form = form
        affine = form.slope_and_offset()
        for name, values in zip(("slope", "offset"), affine or (None, None), strict=True):
            self.register_buffer(name, None if values is None else values.float().view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        values = images
        if self.slope is not None and self.offset is not None:
            values = values.float() * self.slope + self.offset
        if self.form.flip:
            values = torch.cat((values, values.flip(-1)))
        features = getattr(self.network.embed(values), self.form.feature)
        if self.form.flip:
            features = features.view(2, images.shape[0], features.shape[1]).mean(0)
        return functional.normalize(features, dim=1) if self.form.normalized else features


def _untie(module: nn.Module) -> None:
    """Keep what tied tensors come to, as parameters of this module alone.

    `remove_parametrizations` would change the class, which a copy shares with the module that it was made from.
    """
    values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}  # type: ignore[union-attr]
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def trace(network: ReidNetwork, form: Form) -> ExportedProgram:
    """The network as a program of `torch.export` from `images`, any number of them, to embeddings.

    Raises InputError for a network that cannot be traced, and for images too small for it.
    """
    module = ExportedNetwork(network, form).eval()
    example = torch.zeros(2, 3, *form.size, dtype=form.dtype)
    try:
        with torch.no_grad():
            program = torch.export.export(module, (example,), dynamic_shapes={"images": {0: Dim("batch", min=1)}})
    except InputError:
        raise
    except Exception as error:  # tracing fails in any way it likes
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"this network cannot be exported: torch.export: {type(error).__name__}: {reason}") from error
    for part in program.graph_module.modules():
        if isinstance(part, GraphModule):
            for node in part.graph.nodes:
                for note in _NOTES:
                    node.meta.pop(note, None)
    return program


@torch.inference_mode()
def expected(network: ReidNetwork, pixels: Tensor, form: Form, *, batch_size: int = 64) -> np.ndarray:
    """What the exported file must answer to pixels (N, 3, H, W) uint8 RGB: (N, D) float32.

    By the network itself in PyTorch, with images normalized as in training.
    """
    rows = []
    for batch in pixels.split(batch_size):
        images = normalize(batch, form.mean, form.std)
        features = getattr(network.embed(images), form.feature)
        if form.flip:
            features = (features + getattr(network.embed(images.flip(-1)), form.feature)) / 2
        rows.append(features.double())
    values = torch.cat(rows)
    return (functional.normalize(values, dim=1) if form.normalized else values).float().numpy()
