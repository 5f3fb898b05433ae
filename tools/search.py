"""Who is this? The most similar images of an index, in the terminal and as a page."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np

from reid import Embedder
from reid.errors import InputError, run_command
from reid.io.atomic import write_json
from reid.report.pages import check_available
from reid.report.search_page import answer_table, write_page
from reid.search import gallery


def main() -> None:
    arguments = _arguments()
    if arguments.output:
        check_available()
    snapshot = gallery.read_snapshot(arguments.index)
    if not snapshot.crops:
        raise InputError(f"{arguments.index}: holds no image yet")
    # Told before the model is loaded.
    among = snapshot.chosen(arguments.camera or (), _period(arguments.time))
    notes = snapshot.notes
    embedder = Embedder.load(
        arguments.weights or notes["weights"], device=arguments.device, feature=notes["feature"], flip=notes["flip"]
    )
    gallery.check_model(snapshot, embedder.model_id, embedder.dim)
    crops = [str(path) for path in arguments.crops]
    rows = embedder.embed(crops)
    zero = np.flatnonzero(~rows.any(axis=1))
    if len(zero):
        raise InputError(f"{crops[zero[0]]}: the model sees nothing in it (its feature is zero)")
    asked = [[path] for path in crops]
    if arguments.mean:
        rows, asked = gallery.mean_query(rows), [crops]
    without = []
    if arguments.exclude_same_file:
        without = [{hashlib.sha256(Path(path).read_bytes()).digest() for path in paths} for paths in asked]
    nearest, how = gallery.choose_search(snapshot, arguments.faiss_beyond)
    found = gallery.find(snapshot, rows, arguments.top, among=among, without=without, nearest=nearest)
    content = {
        "index": str(arguments.index),
        "root": notes["root"],
        "model_id": embedder.model_id,
        "images": int(among.sum()),
        "search": how if among.all() else "exact",
        **gallery.describe_calibration(embedder.calibration, arguments.prior),
        "queries": [
            {
                "paths": paths,
                "answers": [
                    {**answer, "file": str(Path(notes["root"]) / answer["path"])}
                    for answer in gallery.plain_answers(answers, embedder.calibration, arguments.prior)
                ],
            }
            for paths, answers in zip(asked, found, strict=True)
        ],
    }
    print(answer_table(content))
    if arguments.json:
        write_json(arguments.json, content)
        print(f"written: {arguments.json}")
    if arguments.output:
        print(f"written: {write_page(arguments.output, content)}; it holds pictures, so mind who sees it")


def _period(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    first, dots, last = text.partition("..")
    if not dots or not (first or last):
        raise InputError(f"--time is FROM..TO, either end may be left out, not {text!r}")
    return gallery.parse_period(first, last)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crops", metavar="CROP", nargs="+", type=Path, help="images to look for, each a query")
    parser.add_argument("--index", type=Path, default=Path("index"), metavar="PATH", help="a folder (default: index)")
    parser.add_argument("--weights", metavar="FILE", help="where the checkpoint lies now (default: where it lay)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--top", type=int, default=10, metavar="K", help="answers to each (10)")
    parser.add_argument("--camera", nargs="+", metavar="C", help="answers of these cameras only")
    parser.add_argument(
        "--time", metavar="FROM..TO", help="answers of this time only: numbers or dates as in the names"
    )
    parser.add_argument(
        "--exclude-same-file", action="store_true", help="leave out images equal to a query, byte by byte"
    )
    parser.add_argument("--mean", action="store_true", help="all crops show one person: one query, the mean of them")
    parser.add_argument("--prior", type=float, metavar="P", help="share of pairs of one person, for the probability")
    parser.add_argument("--faiss-beyond", type=int, metavar="N", help="use the FAISS index beyond N images")
    parser.add_argument("--output", type=Path, metavar="PAGE.html", help="also write a page with pictures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the answers as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(run_command(main))
