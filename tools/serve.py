"""Serve a page on this machine to search an index with an image of a person."""

from __future__ import annotations

from reid.command import run_command  # isort: split

import argparse
import secrets
from pathlib import Path

from reid import Embedder
from reid.errors import InputError
from reid.search import gallery, serve


def main() -> None:
    arguments = _arguments()
    serve.check_available()
    from reid.search.serve.app import make_app
    from reid.search.serve.authentication import check_token
    from reid.search.serve.server import bind, is_loopback, page_url, run

    token = secrets.token_urlsafe(24) if arguments.token == "" else arguments.token
    if token is not None:
        check_token(token)
    with bind(arguments.host, arguments.port) as listener:
        loopback = is_loopback(listener)
        if token is None and not loopback:
            raise InputError(
                f"--host {arguments.host}: other machines can reach it, so it needs a token; add --token to generate "
                "one, or --token T"
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
        url = page_url(listener)
        print(f"{url}?token={token}" if token else url, flush=True)
        if not loopback:
            print("not encrypted: on a shared network, use a tunnel such as ssh -L instead", flush=True)
        print("press Ctrl-C to stop", flush=True)
        run(app, listener)
    print("stopped")


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
    parser.add_argument(
        "--token", nargs="?", const="", metavar="T", help="require a token; without a value, generate and print one"
    )
    parser.add_argument(
        "--prior",
        type=float,
        metavar="P",
        help="share of matching pairs assumed in probabilities (default: that of the calibration)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(run_command(main))
