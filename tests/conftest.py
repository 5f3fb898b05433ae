"""Fixtures of all tests: real data, where REID_DATA, REID_WEIGHTS or a folder beside has it; charts; Ctrl-C."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Several threads cost more than they bring on these small tensors, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# What tests write need not survive a power failure, and waiting for the disk takes minutes; which calls are made is
# tested by tests/fault/power_loss.py, which records them.
def _without_waiting(descriptor: int) -> None:
    os.fstat(descriptor)


os.fsync = _without_waiting

BLANK = '<svg xmlns="http://www.w3.org/2000/svg"><g/></svg>'
SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds `Market-1501-v15.09.15.zip`."""
    folder = Path(os.environ.get("REID_DATA") or SHARED / "data")
    if not (folder / "Market-1501-v15.09.15.zip").is_file():
        pytest.skip("needs Market-1501-v15.09.15.zip in the folder REID_DATA")
    return folder


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The folder that holds `osnet_x0_25_imagenet.pth`."""
    folder = Path(os.environ.get("REID_WEIGHTS") or SHARED / "weights")
    if not (folder / "osnet_x0_25_imagenet.pth").is_file():
        pytest.skip("needs osnet_x0_25_imagenet.pth in the folder REID_WEIGHTS")
    return folder


@pytest.fixture(scope="module")
def milvus_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A local file of Milvus Lite for --store; it takes a second to open, so tests use collections of their own."""
    pytest.importorskip("pymilvus", reason="needs the extra milvus")
    lite = pytest.importorskip("milvus_lite.server_manager", reason="needs the extra milvus")
    from reid.search.milvus.connection import connect

    yield f"milvus:{tmp_path_factory.mktemp('milvus') / 'index.db'}"
    connect.cache_clear()
    lite.server_manager_instance.release_all()


@pytest.fixture
def drawn_charts() -> None:
    """For tests in folders with `blank_charts` that look at the drawing of a chart."""


@pytest.fixture
def blank_charts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are made but not drawn, which takes most of the time of a page, unless a test has `drawn_charts`."""
    if "drawn_charts" not in request.fixturenames:
        monkeypatch.setattr("reid.report.figures._draw", lambda figure, name: BLANK)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where a shell started the tests in the background, which ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)
