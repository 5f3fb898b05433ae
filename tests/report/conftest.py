"""Most tests of pages read their words and numbers; those that look at charts ask for `drawn_charts`."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _blank(blank_charts: None) -> None:
    """Draw no charts."""
