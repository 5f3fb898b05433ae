"""Make an index of a folder of crops, or bring it up to date: only what is new or changed is embedded."""

from __future__ import annotations

import argparse
import fnmatch
import shlex
import sys
import time
from pathlib import Path

from reid import Embedder
from reid.errors import InputError, Interrupted, one_line, run_command, stop_signals
from reid.search import gallery

SHOWN = 20  # names of a kind


def main() -> None:
    arguments = _arguments()
    if arguments.remove or arguments.restore or arguments.compact or arguments.check:
        _care(arguments)
        return
    folder = arguments.folder.expanduser().resolve()
    notes = gallery.read_notes(arguments.index) if gallery.is_index(arguments.index) else {}
    if notes and notes["root"] != str(folder) and not arguments.moved:
        raise InputError(
            f"{arguments.index}: is the index of {notes['root']}, and this is {folder}: choose another --index or, "
            "where the folder has only moved, add --moved"
        )
    if not (arguments.weights or notes):
        raise InputError("a new index needs --weights: a checkpoint, or demo, the model in the box")
    pattern = arguments.pattern if arguments.pattern is not None else notes.get("pattern", "")
    names = gallery.read_names(folder, pattern)
    weights = arguments.weights or notes["weights"]
    embedder = Embedder.load(
        weights,
        device=arguments.device,
        feature=arguments.feature or notes.get("feature"),
        flip=arguments.flip or notes.get("flip", False),
    )
    kept = {
        "root": str(folder),
        "weights": weights if weights == "demo" else str(Path(weights).expanduser().resolve()),
        "feature": embedder.feature,
        "flip": embedder.flip,
        "pattern": pattern,
    }
    start = time.perf_counter()
    with gallery.Gallery.open_or_create(
        arguments.index, model_id=embedder.model_id, dim=embedder.dim, shard=arguments.shard, notes=kept
    ) as index:
        index.note(**kept)
        try:
            with stop_signals() as stop:
                done = gallery.update(
                    index,
                    names,
                    embedder.embed,
                    skip_broken=arguments.broken == "skip",
                    reread=arguments.reread,
                    hold=stop.held,
                )
        except KeyboardInterrupt:
            again = shlex.join(["python", *sys.argv])
            raise Interrupted(f"interrupted; what was embedded is in the index; go on with: {again}") from None
        _tell(done, arguments.index, time.perf_counter() - start)
        _faiss(index, arguments)


def _tell(done: gallery.Update, index: Path, seconds: float) -> None:
    for title, names in (
        ("broken", [f"{path}: {why}" for path, why in done.broken.items()]),
        ("does not fit the pattern, indexed without labels", done.unfit),
        ("changed while it was read, left for the next time", done.unsettled),
    ):
        for name in names[:SHOWN]:
            print(f"{title}: {one_line(name)}")
        if len(names) > SHOWN:
            print(f"{title}: {len(names) - SHOWN:,} more")
    total = done.unchanged + done.added + done.changed
    counts = {"new": done.added, "changed": done.changed, "unchanged": done.unchanged, "forgotten": done.vanished}
    counts |= {"relabelled": done.relabeled, "removed before": done.removed, "broken": len(done.broken)}
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    print(f"{index}: {total:,} images ({told}); {done.embedded:,} embedded, {seconds:.1f} s")


def _faiss(index: gallery.Gallery, arguments: argparse.Namespace) -> None:
    """Build a FAISS index where the gallery is large enough and it has none of its present state."""
    beyond = index.notes().get("faiss_beyond") if arguments.faiss_beyond is None else arguments.faiss_beyond
    index.note(faiss_beyond=beyond)
    snapshot = gallery.read_snapshot(index.folder)
    rows = len(snapshot.living())
    if beyond is None or rows <= beyond or gallery.is_current(snapshot):
        return
    start = time.perf_counter()
    note = gallery.build_faiss(index)
    print(f"{note['summary']}; built in {time.perf_counter() - start:.1f} s")


def _care(arguments: argparse.Namespace) -> None:
    """What needs no model."""
    with gallery.Gallery.open(arguments.index) as index:
        for patterns, removed in ((arguments.remove, True), (arguments.restore, False)):
            if patterns:
                paths = [path for path, (_, _, gone) in index.crops().items() if gone != removed]
                chosen = {path for pattern in patterns for path in fnmatch.filter(paths, pattern)}
                if not chosen:
                    raise InputError(
                        f"{arguments.index}: no image that fits {' or '.join(patterns)}; paths are below DIR"
                    )
                index.mark(chosen, removed=removed)
                print(f"{len(chosen):,} images {'removed; they stay so' if removed else 'restored'}")
        if arguments.compact:
            print(f"{index.compact():,} rows of features without an image dropped")
        if arguments.check:
            damaged = index.damaged()
            if damaged:
                raise InputError(
                    f"{arguments.index}: the features of {len(damaged):,} images are not what was written, the first: "
                    f"{damaged[0]}; put features/ back from a copy, or index again elsewhere"
                )
            print(f"{arguments.index}: all features are as they were written")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="DIR", type=Path, help="crops, in folders of any depth")
    parser.add_argument("--index", type=Path, default=Path("index"), metavar="PATH", help="a folder (default: index)")
    parser.add_argument("--weights", metavar="FILE", help="a checkpoint, or demo (default: those it was made with)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--feature", choices=("input", "output"), help="of the Eigenlayer (default: the checkpoint's)")
    parser.add_argument("--flip", action="store_true", help="mean of a crop and its mirror image")
    known = ", ".join(gallery.PATTERNS)
    parser.add_argument("--pattern", help=f"{known}, or such as {{identity}}/cam{{camera}}_{{time}}")
    parser.add_argument("--broken", choices=("skip", "error"), default="skip", help="images that cannot be read")
    parser.add_argument("--reread", action="store_true", help="look into files of unchanged size and time too")
    parser.add_argument("--moved", action="store_true", help="the folder has another path than when it was indexed")
    parser.add_argument("--shard", type=int, metavar="N", help="rows of features a file (65536)")
    parser.add_argument(
        "--faiss-beyond", type=int, metavar="N", help="build a FAISS index beyond N images, now and later"
    )
    parser.add_argument("--remove", nargs="+", metavar="GLOB", help="only take out images, for good: 'cam3/*'")
    parser.add_argument("--restore", nargs="+", metavar="GLOB", help="only take removed images in again")
    parser.add_argument("--compact", action="store_true", help="only drop the features of images that are gone")
    parser.add_argument("--check", action="store_true", help="only compare all features with their checksums")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(run_command(main))
