"""A traced network as the bytes of a file, and what those bytes answer."""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from reid import __version__
from reid.errors import InputError
from reid.inference.export.interface import Form
from reid.io.atomic import write_whole

OPSET = 18
LARGEST_ONNX = 2**31 - 2**20  # bytes; protocol buffers end at 2 GiB
FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
LIMITS = {"onnx": 1e-4, "torch": 1e-5}
"""The largest difference to PyTorch that a file may have: see `largest_difference`."""
METADATA = "metadata.json"

_NEEDED = {
    "onnx": {"onnx": (1, 23), "onnxscript": (0, 7), "onnxruntime": (1, 31), "jinja2": (3, 1)},
    "torch": {"jinja2": (3, 1)},
}

Answer = Callable[[Tensor], np.ndarray]


def check_available(format: str) -> None:
    """Raise InputError where libraries of the extra `export` are missing, broken or too old; asked before long work."""
    told = []
    for name, least in _NEEDED[format].items():
        try:
            importlib.import_module(name)
            found = version(name)
        except (ImportError, PackageNotFoundError) as error:
            told.append(f"{name} ({'missing' if isinstance(error, ModuleNotFoundError) else error})")
            continue
        if tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) < least:
            told.append(f"{name} {'.'.join(map(str, least))} or newer ({found} is installed)")
    if told:
        raise InputError(f"an export needs {', '.join(told)}: pip install 'reid[export]'")


def to_onnx(program: ExportedProgram, metadata: dict[str, str]) -> bytes:
    """An ONNX model of opset OPSET from `images` to `embeddings`, its first axis any number, with `metadata` inside.

    Raises InputError for a network that ONNX cannot express, or that is too large for one file.
    """
    import onnx

    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > LARGEST_ONNX:
        raise InputError(
            f"{size / 2**30:.1f} GiB of weights do not fit into one ONNX file of 2 GiB: take --format torch"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["embeddings"],
                verbose=False,
            )
        assert made is not None
        model = made.model_proto
        onnx.checker.check_model(model)
    except (torch.onnx.OnnxExporterError, onnx.checker.ValidationError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"this network cannot be exported to ONNX: {reason}; --format torch may do") from error
    _name_batch(model)
    _forget_notes(model)
    model.producer_name, model.producer_version, model.graph.name = "reid", __version__, "reid"
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def to_torch(program: ExportedProgram, metadata: str) -> bytes:
    """A .pt2 file of `torch.export.save`. metadata: what `torch.export.load` gives back as its extra file METADATA."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: metadata})
    return buffer.getvalue()


def onnx_answer(data: bytes) -> Answer:
    """What ONNX Runtime makes of the file on the CPU, on as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["embeddings"], {"images": images.numpy()})[0]


def torch_answer(data: bytes) -> Answer:
    """What the loaded .pt2 file makes of images."""
    module = torch.export.load(io.BytesIO(data)).module()

    def answer(images: Tensor) -> np.ndarray:
        with torch.no_grad():
            return module(images).numpy()

    return answer


def check_answer(answer: Answer, pixels: Tensor, wanted: np.ndarray, form: Form, *, limit: float) -> float:
    """The largest difference over pixels (N, 3, H, W) uint8, fed one, two and then more at a time.

    Raises InputError where it is above `limit`.
    """
    found = np.concatenate([answer(form.taken(part)) for part in _parts(pixels)])
    difference = largest_difference(found, wanted)
    if not difference <= limit:
        raise InputError(
            f"the exported network differs from PyTorch by {difference:.1e} of a feature's length on {len(pixels)} "
            f"images, more than {limit:.0e}: nothing was written"
        )
    return difference


def largest_difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Of any component, as a share of the length of the row that was wanted; (N, D) each. NaN where one is NaN."""
    if found.shape != wanted.shape:
        raise InputError(f"the exported network gives {found.shape}, and PyTorch {wanted.shape}")
    lengths = np.linalg.norm(wanted.astype(np.float64), axis=1, keepdims=True)
    return float((np.abs(found - wanted) / np.where(lengths > 0, lengths, 1)).max())


def write_export(path: Path, data: bytes, card: str, *, force: bool) -> Path:
    """Write the file and its card, `path` with .md behind, or neither; returns the card's path.

    Raises InputError where one of them is there, unless forced.
    """
    beside = card_path(path)
    check_free(path, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    write_whole(path, data)
    try:
        write_whole(beside, card.encode("utf-8", "replace"))
    except BaseException:
        if new:
            path.unlink(missing_ok=True)
        raise
    return beside


def card_path(path: Path) -> Path:
    """Where the card of an exported file lies."""
    return path.with_name(f"{path.name}.md")


def check_free(path: Path, *, force: bool) -> None:
    """Raise InputError where the file or its card would take the place of another."""
    for place in (path, card_path(path)):
        if place.is_dir():
            raise InputError(f"{place} is a folder: name the file to write, such as {place / 'model.onnx'}")
        if place.exists() and not force:
            raise InputError(f"{place} is there already; give another --output, or --force to replace it")


def _parts(pixels: Tensor) -> Iterator[Tensor]:
    start = 0
    for size in (1, 2):
        if start < len(pixels):
            yield pixels[start : start + size]
        start += size
    if start < len(pixels):
        yield from pixels[start:].split(17)


def _name_batch(model: object) -> None:
    graph = model.graph  # type: ignore[attr-defined]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _forget_notes(model: object) -> None:
    """Lines, paths and names of the code that made it: half the file, and nobody's business."""
    graph = model.graph  # type: ignore[attr-defined]
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
