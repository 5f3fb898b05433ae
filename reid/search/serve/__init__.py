"""A page to try a model: a server that answers searches in an index, for the browser of this machine.

From outside to inside, a request passes `guard` (who asks, and from which page), `access` (a token, where there is
one), `upload` (a body of bounded size, never on the disk), `turns` (one search at a time) and `search`. What it may see
of the disk is what `live` takes from the index.
"""

from __future__ import annotations

from reid.report.pages import check_available as _check

NEEDED = ("fastapi", "uvicorn", "python_multipart", "jinja2")


def check_available() -> None:
    """Raise InputError where the libraries of the extra `serve` are missing."""
    _check(NEEDED, extra="serve", what="the page")
