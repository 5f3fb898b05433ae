"""A sample index, and a client that sends requests as a browser on this machine does."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import served

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("httpx", reason="needs httpx")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette recommends another client
    from fastapi.testclient import TestClient

Client = Callable[..., Any]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> served.SampleIndex:
    """12 images of 4 identities and 3 cameras; must not be changed."""
    return served.build_sample_index(tmp_path_factory.mktemp("served"))


@pytest.fixture
def own(tmp_path: Path) -> served.SampleIndex:
    """A smaller index of 2 identities and 2 cameras, which a test may change."""
    return served.build_sample_index(tmp_path, identities=2, cameras=2)


@pytest.fixture
def client() -> Client:
    """`client(sample, **options of make_app)`; its requests come from the page http://127.0.0.1:8000.

    quiet: an exception in the app becomes a response, as for a browser, and does not fail the test.
    """
    from reid.search.serve.app import make_app

    def call(sample: served.SampleIndex, embedder: Any = None, *, quiet: bool = False, **options: Any) -> Any:
        app = make_app(embedder or sample.embedder, sample.index, **options)
        return TestClient(
            app, base_url="http://127.0.0.1:8000", follow_redirects=False, raise_server_exceptions=not quiet
        )

    return call
