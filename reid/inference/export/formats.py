"""Serialization of a traced network to ONNX and .pt2, and running the serialized network."""

from __future__ import annotations

import importlib
import io
import warnings
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from reid import __version__
from reid.errors import InputError, install_command
from reid.inference.export.verification import Runner
from reid.threads import thread_count

OPSET = 18
MAX_ONNX_BYTES = 2**31 - 2**20  # protocol buffers end at 2 GiB
FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
METADATA_FILE = "metadata.json"

_REQUIREMENTS = {
    "onnx": {"onnx": (1, 23), "onnxscript": (0, 7), "onnxruntime": (1, 31), "jinja2": (3, 1)},
    "torch": {"jinja2": (3, 1)},
}


def check_available(format: str) -> None:
    """Check that the libraries for a format are installed and recent enough.

    Args:
        format: "onnx" or "torch".

    Raises:
        InputError: If libraries of the extra `export` are missing, fail to import or are too old.
    """
    problems = []
    for name, minimum in _REQUIREMENTS[format].items():
        try:
            importlib.import_module(name)
            installed = version(name)
        except (ImportError, PackageNotFoundError) as error:
            problems.append(f"{name} ({'missing' if isinstance(error, ModuleNotFoundError) else error})")
            continue
        if tuple(int(part) for part in installed.split(".")[:2] if part.isdigit()) < minimum:
            problems.append(f"{name} {'.'.join(map(str, minimum))} or newer ({installed} is installed)")
    if problems:
        raise InputError(f"an export needs {', '.join(problems)}: {install_command('export')}")


def to_onnx(program: ExportedProgram, metadata: dict[str, str]) -> bytes:
    """Convert a traced network to an ONNX model from `images` to `embeddings` with a dynamic batch size.

    Args:
        program: Value returned by `trace_network`.
        metadata: Stored as `metadata_props`.

    Returns:
        The serialized model, of opset `OPSET`.

    Raises:
        InputError: If ONNX cannot express the network, or it is too large for one file.
    """
    import onnx

    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > MAX_ONNX_BYTES:
        raise InputError(
            f"{size / 2**30:.1f} GiB of weights do not fit into one ONNX file of 2 GiB: use --format torch"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["embeddings"],
                verbose=False,
            )
        assert exported is not None
        model = exported.model_proto
        onnx.checker.check_model(model)
    except (torch.onnx.OnnxExporterError, onnx.checker.ValidationError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"this network cannot be exported to ONNX: {reason}; try --format torch") from error
    _name_batch_axis(model)
    _strip_debug_info(model)
    model.producer_name, model.producer_version, model.graph.name = "reid", __version__, "reid"
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def to_torch(program: ExportedProgram, metadata: str) -> bytes:
    """Serialize a traced network with `torch.export.save`.

    Args:
        program: Value returned by `trace_network`.
        metadata: Stored as the extra file `METADATA_FILE`.

    Returns:
        The content of a .pt2 file.
    """
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA_FILE: metadata})
    return buffer.getvalue()


def load_onnx(data: bytes) -> Runner:
    """Load an ONNX model into ONNX Runtime on the CPU, with as many threads as PyTorch uses.

    Args:
        data: Value returned by `to_onnx`.

    Returns:
        A function that runs the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["embeddings"], {"images": images.numpy()})[0]


def load_torch(data: bytes) -> Runner:
    """Load a .pt2 file.

    Args:
        data: Value returned by `to_torch`.

    Returns:
        A function that runs the program.
    """
    module = torch.export.load(io.BytesIO(data)).module()

    def run(images: Tensor) -> np.ndarray:
        with torch.no_grad():
            return module(images).numpy()

    return run


def _name_batch_axis(model: object) -> None:
    graph = model.graph  # type: ignore[attr-defined]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _strip_debug_info(model: object) -> None:
    """Remove source lines, paths and names of the exporting code, which make up half of the file."""
    graph = model.graph  # type: ignore[attr-defined]
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
