"""A web page to try a model: a local server that answers searches in an index.

A request passes, in this order, `connections` (idle ones are limited), `security` (allowed hosts and origins),
`authentication` (a token, if one is set), `uploads` and `request` (a bounded upload, kept in memory), `work_queue` (one
search at a time) and `service`. Of the disk it can see only what `live_index` reads for the index.
"""

from __future__ import annotations

from reid.report.pages import check_available as _check

REQUIRED_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "jinja2")


def check_available() -> None:
    """Check that the packages of the extra `serve` are installed.

    Raises:
        InputError: If one is missing.
    """
    _check(REQUIRED_PACKAGES, extra="serve", what="the page")
