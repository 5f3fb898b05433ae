"""Serve a page on this machine to search an index with an image of a person."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

from reid import Embedder
from reid.errors import InputError
from reid.io.reading import read_file
from reid.search import gallery, serve

_VARIABLE = "REID_TOKEN"
_MAX_TOKEN_BYTES = 4096


def main() -> None:
    """Run the command with the arguments of the process."""
    arguments = _arguments()
    serve.check_available()
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
        metadata = gallery.read_metadata(arguments.index)
        gallery.check_tool_entries(arguments.index, metadata)
        embedder = Embedder.load(
            arguments.weights or metadata["weights"],
            device=arguments.device,
            feature=metadata["feature"],
            flip=metadata["flip"],
        )
        app = make_app(embedder, arguments.index, token=token, loopback=loopback, prior=arguments.prior)
        if arguments.token:
            line = "--token T: other users of this machine can see T in the list of processes; use --token-file or"
            print(f"{line} the environment variable {_VARIABLE}", file=sys.stderr)
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
    return os.environ.get(_VARIABLE)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--index", type=Path, default=Path("index"), metavar="PATH", help="index folder (default: index)"
    )
    parser.add_argument("--weights", metavar="FILE", help="the checkpoint, if it was moved since indexing")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for any free port (default: 8000)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)"
    )
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument(
        "--token",
        nargs="?",
        const="",
        metavar="T",
        help="require a token: generate and print one; a value T is visible to other users, so prefer --token-file",
    )
    tokens.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"require the token in a file (default: that in the environment variable {_VARIABLE}, if set)",
    )
    parser.add_argument(
        "--prior",
        type=float,
        metavar="P",
        help="share of matching pairs assumed in probabilities (default: that of the calibration)",
    )
    return parser.parse_args()
