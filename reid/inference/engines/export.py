"""The export that engines read: everything before the Eigenlayer, kept in the cache by `model_id`."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import warnings
from pathlib import Path

import torch

from reid.errors import InputError
from reid.inference.export.formats import OPSET
from reid.inference.export.interface import ExportInterface
from reid.inference.export.tracing import ExportedNetwork
from reid.io.atomic import make_folder
from reid.io.checksums import is_finished, write_with_checksum
from reid.model.folding import fold_norms
from reid.model.network import ReidNetwork
from reid.records import IMAGENET_MEAN, IMAGENET_STD

logger = logging.getLogger(__name__)


def engine_folder() -> Path:
    """Locate the folder of exports and measured speeds.

    Returns:
        The folder `engines` in that of the environment variable REID_CACHE, else in `~/.cache/reid`.
    """
    return Path(os.environ.get("REID_CACHE") or "~/.cache/reid").expanduser() / "engines"


def export_path(model_id: str, size: tuple[int, int]) -> Path:
    """Locate the export of a network.

    Args:
        model_id: Digest of the network.
        size: Height and width of its images.

    Returns:
        Path of the file, which need not exist.
    """
    return engine_folder() / f"{model_id}_{size[0]}x{size[1]}.onnx"


def exported_network(network: ReidNetwork, size: tuple[int, int], path: Path | None) -> bytes:
    """Return a network as ONNX, from the cache if it is there.

    Args:
        network: The network, on the CPU.
        size: Height and width of its images.
        path: File that holds the export or is written; a damaged one is replaced. None to keep nothing.

    Returns:
        ONNX from normalized `images` (B, 3, H, W) float32 to the Eigenlayer's input (B, D) float32.

    Raises:
        InputError: If the network cannot be exported.
    """
    if path is not None:
        with contextlib.suppress(OSError):
            if is_finished(path):
                return path.read_bytes()
    data = _export(network, size)
    if path is not None:
        try:
            make_folder(path.parent)
            write_with_checksum(path, data)
        except OSError as error:  # a full or read-only disk; the next process exports again
            logger.info("the export of the network is not kept: %s", error)
    return data


def _export(network: ReidNetwork, size: tuple[int, int]) -> bytes:
    """Export by TorchScript, which takes a second or two; `torch.export` takes twenty."""
    plain = copy.copy(network)
    plain._modules = {**network._modules, "backbone": fold_norms(network.backbone)}
    # Of this mean and std, the exported network normalizes nothing.
    interface = ExportInterface(size, IMAGENET_MEAN, IMAGENET_STD, feature="input", normalized=False)
    module = ExportedNetwork(plain, interface).eval()
    buffer = io.BytesIO()
    set_log_enabled = getattr(torch._C, "_jit_set_onnx_log_enabled", None)
    if set_log_enabled is not None:  # otherwise the whole graph of a network that cannot be exported is printed
        set_log_enabled(False)
    try:
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.zeros(2, 3, *size),),
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["features"],
                dynamic_axes={"images": {0: "batch"}, "features": {0: "batch"}},
            )
    except Exception as error:  # tracing may raise anything
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"this network cannot be exported to ONNX: {type(error).__name__}: {reason}") from error
    return buffer.getvalue()
