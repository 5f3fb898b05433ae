"""Trace, serialize and verify a network in one call."""

from __future__ import annotations

import json

from torch import Tensor

from reid.inference.export.formats import load_onnx, load_torch, to_onnx, to_torch
from reid.inference.export.metadata import ModelMetadata
from reid.inference.export.tracing import reference_output, trace_network
from reid.inference.export.verification import TOLERANCES, check_output
from reid.model.network import ReidNetwork


def export_network(
    network: ReidNetwork, metadata: ModelMetadata, pixels: Tensor, *, format: str
) -> tuple[bytes, float]:
    """Serialize a network and compare the result with PyTorch.

    Args:
        network: On the CPU, in evaluation mode.
        metadata: Interface of the export and the metadata to embed.
        pixels: (N, 3, H, W) uint8 RGB images on which the outputs are compared.
        format: "onnx" or "torch".

    Returns:
        The content of the file, and the largest relative difference (see `max_relative_difference`).

    Raises:
        InputError: If the network cannot be exported, or the difference exceeds `TOLERANCES`.
    """
    program, properties = trace_network(network, metadata.interface), metadata.to_properties()
    if format == "onnx":
        data = to_onnx(program, properties)
        run = load_onnx(data)
    else:
        data = to_torch(program, json.dumps(properties, indent=1))
        run = load_torch(data)
    reference = reference_output(network, pixels, metadata.interface)
    return data, check_output(run, pixels, reference, metadata.interface, tolerance=TOLERANCES[format])
