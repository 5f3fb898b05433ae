"""A page to try a model: choose an image and see who in an index is most like it. For this machine's browser."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

from reid import Embedder
from reid.errors import InputError, run_command
from reid.search import gallery, serve


def main() -> None:
    arguments = _arguments()
    serve.check_available()
    from reid.search.serve.access import check_token
    from reid.search.serve.app import make_app
    from reid.search.serve.server import address, bind, is_loopback, run

    token = secrets.token_urlsafe(24) if arguments.token == "" else arguments.token
    if token is not None:
        check_token(token)
    with bind(arguments.host, arguments.port) as listening:
        loopback = is_loopback(listening)
        if token is None and not loopback:
            raise InputError(
                f"--host {arguments.host}: other machines can reach it, so it needs a token: add --token, which makes "
                "one, or --token T"
            )
        notes = gallery.read_notes(arguments.index)
        embedder = Embedder.load(
            arguments.weights or notes["weights"], device=arguments.device, feature=notes["feature"], flip=notes["flip"]
        )
        app = make_app(embedder, arguments.index, token=token, loopback=loopback, prior=arguments.prior)
        where = address(listening)
        print(f"{where}?token={token}" if token else where, flush=True)
        if not loopback:
            print("not encrypted: on a network that others share, put it behind what is, such as ssh -L", flush=True)
        print("Ctrl-C ends it", flush=True)
        run(app, listening)
    print("ended")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, default=Path("index"), metavar="PATH", help="a folder (default: index)")
    parser.add_argument("--weights", metavar="FILE", help="where the checkpoint lies now (default: where it lay)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (8000)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)")
    parser.add_argument(
        "--token", nargs="?", const="", metavar="T", help="ask for it; without a value, one is made and printed"
    )
    parser.add_argument("--prior", type=float, metavar="P", help="share of pairs of one person, for the probability")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(run_command(main))
