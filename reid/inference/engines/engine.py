"""The engine that embeds: chosen with the first batch of images, among those that compute the same as PyTorch."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from reid.errors import InputError, unknown_name
from reid.evaluation.features import ENGINES
from reid.inference.engines.export import export_path, exported_network
from reid.inference.engines.sessions import PART, ParallelSession, check_installed, installed_versions, join
from reid.inference.engines.speed import (
    Speed,
    describe_failure,
    measure_seconds,
    remember_speed,
    remembered_speed,
    speed_key,
)
from reid.inference.identity import compute_model_id
from reid.model.network import Embedding, ReidNetwork
from reid.threads import thread_count
from reid.training.epoch import evaluation_mode
from reid.training.step import evaluated_in

Size = tuple[int, int]

logger = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""Largest accepted difference of a feature from PyTorch's, relative to the largest feature of the batch."""

# For fewer images, no engine is measured: exporting and measuring take some seconds.
MIN_IMAGES = 512


class Engine:
    """Embeds images with PyTorch, or on the CPU in float32 with a faster engine.

    The engine is chosen with the first batch. "auto" takes the fastest one that is installed, once that saves more time
    on the images to come than preparing it takes. One that fails, or whose features differ from PyTorch's by more than
    `TOLERANCE` on the first batch, is replaced with a warning: by the next fastest with "auto", else by PyTorch.

    Args:
        network: Network; its mode is restored after each batch.
        engine: One of `reid.evaluation.features.ENGINES`.
        model_id: Name under which the export is kept in the cache; None to keep nothing.
        part: Images per forward pass of PyTorch, None for whole batches.
        dtype: Autocast type of PyTorch, None for float32.

    Attributes:
        name: Engine that has been chosen, "torch" before.

    Raises:
        InputError: If the engine is unknown or not installed.
    """

    def __init__(
        self,
        network: ReidNetwork,
        engine: str = "auto",
        *,
        model_id: str | None = None,
        part: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_engine(engine, dtype=dtype)
        self.name = "torch"
        self._network, self._requested, self._model_id = network, engine, model_id
        self._part, self._dtype = part, dtype
        self._expected = self._seen = 0
        # By image size. The session is None for PyTorch.
        self._chosen: dict[Size, ParallelSession | None] = {}
        self._speeds: dict[Size, Speed] = {}
        # While an engine is chosen.
        self._exports: dict[Size, bytes] = {}
        self._sessions: dict[tuple[str, Size], ParallelSession] = {}

    def expect(self, images: int) -> None:
        """Announce images, so that "auto" knows how many there will be.

        Args:
            images: Number of images to come.
        """
        self._expected = max(self._expected, self._seen + images)

    def embed_batches(self, batches: Iterable[Tensor]) -> Iterator[Embedding]:
        """Embed batches; while the caller works on one, the engine embeds the next.

        Args:
            batches: (B, 3, H, W) float32 images each, normalized.

        Yields:
            The features of each batch.
        """
        running: deque[list[Future[np.ndarray]]] = deque()
        for images in batches:
            self._seen += len(images)
            session = self._choose(images)
            if session is not None:
                running.append(session.submit(images))
            while running and (session is None or len(running) > 1):
                yield self._embedding(running.popleft())
            if session is None:
                yield self._run_torch(images)
        while running:
            yield self._embedding(running.popleft())

    @torch.inference_mode()
    def _run_torch(self, images: Tensor) -> Embedding:
        with evaluation_mode(self._network), evaluated_in(images.device, self._dtype):
            parts = [self._network.embed(part) for part in images.split(self._part or max(1, len(images)))]
        if len(parts) == 1:
            return parts[0]
        return Embedding(torch.cat([part.input for part in parts]), torch.cat([part.output for part in parts]))

    @torch.inference_mode()
    def _embedding(self, running: list[Future[np.ndarray]]) -> Embedding:
        features = join(running)
        with evaluation_mode(self._network.eigenlayer):
            return Embedding(features, self._network.eigenlayer(features))

    def _choose(self, images: Tensor) -> ParallelSession | None:
        """Return the session for images of this size, None for PyTorch."""
        height, width = images.shape[2:]
        size = int(height), int(width)
        if size in self._chosen or not len(images):
            return self._chosen.get(size)
        names = list(dict.fromkeys((self._requested, "torch")))
        if self._requested == "auto":
            try:
                names = self._by_speed(images, size)
            except Exception as error:  # as below
                logger.warning("%s; embedding with PyTorch", describe_failure("exporting the network", error))
                names = ["torch"]
        name, session = self._first_that_agrees(names, images, size)
        if names:
            self._chosen[size], self.name = session, name
            self._sessions.clear()
            self._exports.clear()
        return session

    def _first_that_agrees(self, names: list[str], images: Tensor, size: Size) -> tuple[str, ParallelSession | None]:
        """Open the engines in turn, of which the last is PyTorch, until one works and agrees with it."""
        for name, following in itertools.pairwise(names):
            try:
                return name, self._open(name, images, size)
            except Exception as error:  # a library that does not fit this machine or network may raise anything
                use = "PyTorch" if following == "torch" else following
                logger.warning("%s; embedding with %s", describe_failure(name, error), use)
        return "torch", None

    def _by_speed(self, images: Tensor, size: Size) -> list[str]:
        """Return the engines to try, PyTorch last; none while there are too few images to prepare one for."""
        path = self._export_path(size)
        exported = path is not None and path.is_file()
        expected = max(self._expected, self._seen)
        if expected < MIN_IMAGES and not exported:
            return []
        if size not in self._speeds:
            versions = installed_versions()
            key = speed_key(self._network, size, versions)
            speed = remembered_speed(key)
            if speed is None:
                if expected < MIN_IMAGES:
                    return []
                speed = self._measure(list(versions), images, size)
                remember_speed(key, speed)
            self._speeds[size] = speed
        speed = self._speeds[size]
        ranked = speed.ranked
        pays = ranked[0] == "torch" or speed.pays(expected, exported=exported)
        return ranked[: ranked.index("torch") + 1] if pays else []

    def _measure(self, engines: Sequence[str], images: Tensor, size: Size) -> Speed:
        """Measure PyTorch and the engines that work, which is remembered without those that fail."""
        start = time.perf_counter()
        functions: dict[str, Callable[[Tensor], object]] = {"torch": self._run_torch}
        self._export(size)
        for engine in engines:
            try:
                functions[engine] = self._session(engine, size).embed
            except Exception as error:
                logger.warning("%s; it is not used", describe_failure(engine, error))
        preparation = time.perf_counter() - start
        batch = images[torch.arange(PART * thread_count()) % len(images)]
        return Speed(measure_seconds(functions, batch), preparation)

    def _open(self, engine: str, images: Tensor, size: Size) -> ParallelSession:
        """Open an engine and compare it with PyTorch; InputError if it differs."""
        session = self._session(engine, size)
        batch = images[: PART * thread_count()]
        for part in (batch, batch[:1]):
            found, expected = session.embed(part), self._run_torch(part).input
            largest = float(expected.abs().max())
            difference = float((found - expected).abs().max()) / (largest or 1.0)
            if not difference <= TOLERANCE:
                raise InputError(f"{engine} differs from PyTorch by {difference:.1e} of the largest feature")
        return session

    def _session(self, engine: str, size: Size) -> ParallelSession:
        if (engine, size) not in self._sessions:
            self._sessions[engine, size] = ParallelSession(engine, self._export(size), thread_count())
        return self._sessions[engine, size]

    def _export(self, size: Size) -> bytes:
        if size not in self._exports:
            self._exports[size] = exported_network(self._network, size, self._export_path(size))
        return self._exports[size]

    def _export_path(self, size: Size) -> Path | None:
        return None if self._model_id is None else export_path(self._model_id, size)


def check_engine(engine: str, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
    """Check the name of an engine, that it is installed, and that it can compute what is asked for.

    Args:
        engine: One of `reid.evaluation.features.ENGINES`.
        device: Device of the network, if it is known.
        dtype: Autocast type, None for float32.

    Raises:
        InputError: If it is unknown, not installed, or cannot.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if engine in ("auto", "torch"):
        return
    check_installed(engine)
    if device is not None and device.type != "cpu":
        raise InputError(f"the engine {engine} runs on the CPU, not on {device}: use device cpu or engine torch")
    if dtype is not None:
        raise InputError(
            f"the engine {engine} computes in float32: use that precision (TEST.PRECISION), or the engine torch"
        )


def open_engine(
    network: ReidNetwork,
    config: CfgNode,
    *,
    engine: str | None = None,
    dtype: torch.dtype | None = None,
    keep: bool = True,
) -> Engine:
    """Open the engine of a configuration.

    Args:
        network: Network in its place.
        config: Frozen configuration; reads ENGINE, and INPUT and MODEL for the name of a kept export.
        engine: Replaces ENGINE.
        dtype: Autocast type, None for float32.
        keep: Whether to keep the export in the cache.

    Returns:
        The engine; PyTorch on a GPU and in lower precision, unless another one was chosen by name.

    Raises:
        InputError: If the engine is not installed or cannot compute this.
    """
    engine, device = engine or config.ENGINE, next(network.parameters()).device
    check_engine(engine, device, dtype)
    if device.type != "cpu" or dtype is not None:
        engine = "torch"
    model_id = compute_model_id(network, config) if keep and engine != "torch" else None
    return Engine(network, engine, model_id=model_id, dtype=dtype)
