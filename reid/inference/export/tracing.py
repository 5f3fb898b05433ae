"""The network as an exportable module, traced by `torch.export`."""

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
from reid.inference.export.interface import ExportInterface
from reid.inference.export.local_connection import unfold_local_connections
from reid.model.network import ReidNetwork

# Entries that tracing adds to each node: source lines and paths, which should not be published.
_DEBUG_KEYS = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


class ExportedNetwork(nn.Module):
    """A copy of a network, reduced to what its embeddings need; tied weights are computed once.

    Args:
        network: The network to copy.
        interface: Inputs and outputs.
    """

    slope: Tensor | None
    offset: Tensor | None

    def __init__(self, network: ReidNetwork, interface: ExportInterface) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
        self.network.classifier = None
        if interface.feature == "input":
            self.network.eigenlayer = nn.Identity()  # type: ignore[assignment]
        for module in list(self.network.modules()):
            if parametrize.is_parametrized(module):
                _remove_parametrizations(module)
        unfold_local_connections(self.network)
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            # Each tensor is serialized on its own, so views and other memory formats are copied.
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
        self.interface = interface
        affine = interface.slope_and_offset()
        for name, values in zip(("slope", "offset"), affine or (None, None), strict=True):
            self.register_buffer(name, None if values is None else values.float().view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Compute embeddings.

        Args:
            images: (B, 3, H, W), as the interface defines them.

        Returns:
            (B, D) float32 embeddings.
        """
        values = images
        if self.slope is not None and self.offset is not None:
            values = values.float() * self.slope + self.offset
        if self.interface.flip:
            values = torch.cat((values, values.flip(-1)))
        features = getattr(self.network.embed(values), self.interface.feature)
        if self.interface.flip:
            features = features.view(2, images.shape[0], features.shape[1]).mean(0)
        return functional.normalize(features, dim=1) if self.interface.normalized else features


def _remove_parametrizations(module: nn.Module) -> None:
    """Replace parametrized tensors by parameters with their values.

    `parametrize.remove_parametrizations` would change the class, which a copy shares with the original module.
    """
    values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}  # type: ignore[union-attr]
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def trace_network(network: ReidNetwork, interface: ExportInterface) -> ExportedProgram:
    """Trace a network with `torch.export`, with a dynamic batch size.

    Args:
        network: The network to trace; a copy is traced.
        interface: Inputs and outputs.

    Returns:
        A program from `images` to embeddings, without debug information.

    Raises:
        InputError: If the network cannot be traced, or the images are too small for it.
    """
    module = ExportedNetwork(network, interface).eval()
    example = torch.zeros(2, 3, *interface.size, dtype=interface.dtype)
    try:
        with torch.no_grad():
            program = torch.export.export(module, (example,), dynamic_shapes={"images": {0: Dim("batch", min=1)}})
    except InputError:
        raise
    except Exception as error:  # tracing may raise anything
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"this network cannot be exported: torch.export: {type(error).__name__}: {reason}") from error
    for part in program.graph_module.modules():
        if isinstance(part, GraphModule):
            for node in part.graph.nodes:
                for key in _DEBUG_KEYS:
                    node.meta.pop(key, None)
    return program


@torch.inference_mode()
def reference_output(
    network: ReidNetwork, pixels: Tensor, interface: ExportInterface, *, batch_size: int = 64
) -> np.ndarray:
    """Compute in PyTorch what an exported file must return, with images normalized as in training.

    Args:
        network: The original network, on the CPU, in evaluation mode.
        pixels: (N, 3, H, W) uint8 RGB.
        interface: Outputs, and the mean and std of the training.
        batch_size: Images per forward pass.

    Returns:
        (N, D) float32 embeddings.
    """
    rows = []
    for batch in pixels.split(batch_size):
        images = normalize(batch, interface.mean, interface.std)
        features = getattr(network.embed(images), interface.feature)
        if interface.flip:
            features = (features + getattr(network.embed(images.flip(-1)), interface.feature)) / 2
        rows.append(features.double())
    values = torch.cat(rows)
    return (functional.normalize(values, dim=1) if interface.normalized else values).float().numpy()
