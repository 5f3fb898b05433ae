"""Exported networks in ONNX Runtime and OpenVINO, on the CPU in float32."""

from __future__ import annotations

import contextlib
import importlib
import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid.errors import InputError, install_command

PART = 16
"""Images that one thread embeds at a time: with more, activations leave the cache."""

# An idle thread of ONNX Runtime waits actively for this long, so that a busy machine does not come to a standstill.
_SPIN_MICROSECONDS = 200

Session = Callable[[np.ndarray], np.ndarray]
"""(B, 3, H, W) float32 to (B, D) float32; several threads may call it at once."""


def _load_onnxruntime(data: bytes, threads: int, callers: int) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_MICROSECONDS))
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def _compile_openvino(data: bytes, options: dict[str, object]) -> Any:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(data), "CPU", options)
    # The first inference of a process completes the setup of OpenVINO's Python module. Two threads that make it at once
    # may wait for each other forever.
    shape = [side.get_length() if side.is_static else 1 for side in compiled.input(0).partial_shape]
    compiled.create_infer_request().infer({"images": np.zeros(shape, np.float32)})[0].copy()
    return compiled


def _load_openvino(data: bytes, threads: int, callers: int) -> Session:
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads * callers,
        "NUM_STREAMS": callers,
        "ENABLE_CPU_PINNING": False,  # the core may be busy with other work
    }
    # OpenVINO gives the thread that compiles a stack of its own for signals and frees it together with the network.
    # On the main thread Ctrl-C would then end the process with a segmentation fault.
    with ThreadPoolExecutor(1) as compiler:
        compiled = compiler.submit(_compile_openvino, data, options).result()
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(callers):
        requests.put(compiled.create_infer_request())

    def run(images: np.ndarray) -> np.ndarray:
        request = requests.get()
        try:
            return request.infer({"images": images})[0].copy()
        finally:
            requests.put(request)

    return run


_LOADERS: dict[str, Callable[[bytes, int, int], Session]] = {
    "onnxruntime": _load_onnxruntime,
    "openvino": _load_openvino,
}
_EXTRAS = {"onnxruntime": "export", "openvino": "openvino"}


def installed_versions() -> dict[str, str]:
    """List the engines besides PyTorch that are installed.

    Returns:
        Version by name.
    """
    found = {}
    for engine in _LOADERS:
        with contextlib.suppress(PackageNotFoundError):
            found[engine] = f"{version(engine)}, onnx {version('onnx')}"
    return found


def check_installed(engine: str) -> None:
    """Check that an engine can be imported.

    Args:
        engine: Name of an engine besides PyTorch.

    Raises:
        InputError: If it cannot; the message names the extra to install.
    """
    try:
        for module in (engine, "onnx"):  # with the latter PyTorch exports
            importlib.import_module(module)
    except Exception as error:  # a library that does not fit this machine may raise anything
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported ({error})"
        raise InputError(f"engine {engine} {reason}: {install_command(_EXTRAS[engine])}, or use torch") from None


class ParallelSession:
    """An exported network in an engine.

    Every thread embeds parts of a batch on its own, which is faster than several threads for every layer, and does not
    suffer from threads that wait for each other. Fewer images than threads share them.

    Args:
        engine: Name of the engine.
        data: The network as ONNX, from `images` (B, 3, H, W) to features (B, D).
        threads: Number of threads.
    """

    def __init__(self, engine: str, data: bytes, threads: int) -> None:
        load = _LOADERS[engine]
        self._threads = threads
        self._parts = load(data, 1, threads)
        self._few = self._parts if threads == 1 else load(data, threads, 1)
        self._pool = ThreadPoolExecutor(threads, "network")

    def submit(self, images: Tensor) -> list[Future[np.ndarray]]:
        """Start to embed a batch.

        Args:
            images: (B, 3, H, W) float32 on the CPU.

        Returns:
            The features of consecutive images, to be concatenated.
        """
        pixels = images.detach().contiguous().numpy()
        if len(pixels) < self._threads:
            return [self._pool.submit(self._few, pixels)]
        size = min(PART, -(-len(pixels) // self._threads))
        return [self._pool.submit(self._parts, pixels[at : at + size]) for at in range(0, len(pixels), size)]

    def embed(self, images: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            images: (B, 3, H, W) float32 on the CPU.

        Returns:
            (B, D) float32.
        """
        return join(self.submit(images))


def join(parts: list[Future[np.ndarray]]) -> Tensor:
    """Wait for a batch.

    Args:
        parts: Value returned by `ParallelSession.submit`.

    Returns:
        (B, D) float32.
    """
    return torch.from_numpy(np.concatenate([part.result() for part in parts]))
