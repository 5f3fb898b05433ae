"""Serve a page on this machine to search an index with an image of a person."""

from __future__ import annotations

import argparse
import os
import secrets
import sys

from reid import Embedder
from reid.commands.parsers.choices import TOKEN_VARIABLE
from reid.errors import InputError
from reid.io.reading import read_file
from reid.report.pages import check_available
from reid.search import gallery, stores

_MAX_TOKEN_BYTES = 4096


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    check_available(("fastapi", "uvicorn", "python_multipart", "jinja2"), extra="serve", what="the page")
    from reid.search.serve.app import make_app
    from reid.search.serve.authentication import check_token
    from reid.search.serve.server import bind, is_loopback, page_url, run
    from reid.search.serve.work_queue import is_working

    token = _token(arguments)
    if token is not None:
        check_token(token)
    with bind(arguments.host, arguments.port) as listener:
        loopback = is_loopback(listener)
        if token is None and not loopback:
            raise InputError(
                f"--host {arguments.host}: other machines can reach it, so it needs a token; add --token to generate "
                "one, or --token-file FILE"
            )
        place = stores.find_place(arguments.index, arguments.store)
        metadata = stores.read_metadata(place)
        gallery.check_tool_entries(place, metadata)
        embedder = Embedder.load(
            arguments.weights or metadata["weights"],
            device=arguments.device,
            engine=arguments.engine,
            feature=metadata["feature"],
            flip=metadata["flip"],
        )
        embedder.prepare()
        app = make_app(embedder, place, token=token, loopback=loopback, prior=arguments.prior)
        if arguments.token:
            line = "--token T: other users of this machine can see T in the list of processes; use --token-file or"
            print(f"{line} the environment variable {TOKEN_VARIABLE}", file=sys.stderr)
        url = page_url(listener)
        # The owner of a token kept elsewhere enters it in the page; what is printed may end up in a log.
        print(f"{url}?token={token}" if arguments.token is not None else url, flush=True)
        if not loopback:
            print("not encrypted: on a shared network, use a tunnel such as ssh -L instead", flush=True)
        print("press Ctrl-C to stop", flush=True)
        run(app, listener)
    print("stopped", flush=True)
    if is_working():
        os._exit(0)  # its result is of no use anymore, and an interpreter that ends may crash under it


def _token(arguments: argparse.Namespace) -> str | None:
    """Return the token that clients must present, None for no authentication."""
    if arguments.token == "":
        return secrets.token_urlsafe(24)
    if arguments.token is not None:
        return str(arguments.token)
    if arguments.token_file is not None:
        return read_file(arguments.token_file, max_bytes=_MAX_TOKEN_BYTES).decode("utf-8", "replace").strip()
    return os.environ.get(TOKEN_VARIABLE)
