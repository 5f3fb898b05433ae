"""Tell what distances of a model mean: thresholds for false-match rates, and the probability of being one person."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from reid import Embedder
from reid.config import build
from reid.data import banner
from reid.errors import InputError, run_command
from reid.inference.calibration import Calibration, calibrate
from reid.inference.calibration.fit import RATES, REPLICATES
from reid.io.atomic import write_json
from reid.io.checkpoint import load_checkpoint, save_checkpoint
from reid.io.feature_files import read_features
from reid.io.safetensors_files import save_safetensors
from reid.records import Features, ImageRecord
from reid.report.calibration import calibration_tables

_COMPARED = 4  # images whose features are computed again
_ALIKE = 0.999  # cosine of a feature and the same computed again


def main() -> None:
    arguments = _arguments()
    embedder = content = None
    read = (0, 0, 0)
    if arguments.weights:
        read = _stamp(arguments.weights) if arguments.weights.is_file() else read
        content = load_checkpoint(arguments.weights)
        embedder = Embedder.load(
            arguments.weights, device=arguments.device, feature=arguments.feature, flip=arguments.flip
        )
    if arguments.features:
        if arguments.overrides or arguments.config_file:
            raise InputError("--features takes no configuration: leave --config-file and KEY VALUE out")
        dataset = arguments.features.name
        query, gallery, name = read_features(arguments.features)
        if embedder:
            _check_origin(embedder, (query, gallery), name, arguments.features)
    elif embedder and content:
        dataset, query, gallery = _embed(embedder, content, arguments)
    else:
        raise InputError("give --weights, --features, or both: features to calibrate on and the checkpoint they are of")
    found = calibrate(
        query,
        gallery,
        model_id=embedder.model_id if embedder else "",
        dataset=dataset,
        rates=arguments.rates,
        prior=arguments.prior,
        replicates=arguments.replicates,
        seed=arguments.seed,
    )
    print(calibration_tables(found.to_plain()))
    if arguments.output:
        write_json(arguments.output, found.to_plain())
        print(f"written: {arguments.output}")
    if content is not None:
        _store(arguments.weights, content, found, read)
        print(f"stored in {arguments.weights}: tools/search.py shows it")


def _embed(
    embedder: Embedder, content: dict[str, Any], arguments: argparse.Namespace
) -> tuple[str, Features, Features]:
    """The dataset's name and its query and gallery as the model will be used: one image after the other, by path."""
    config = build.evaluation_config(embedder.config, arguments.config_file, arguments.overrides)
    split = build.split(config)
    print(banner(split), flush=True)
    return split.name, _features(embedder, split.query), _features(embedder, split.gallery)


def _features(embedder: Embedder, images: tuple[ImageRecord, ...]) -> Features:
    paths = tuple(image.path for image in images)
    values = embedder.embed(paths, progress=True)
    identities, cameras = (np.array([getattr(i, name) for i in images]) for name in ("identity", "camera"))
    return Features(values, identities, cameras, paths)


def _check_origin(embedder: Embedder, sides: tuple[Features, Features], name: str, path: Path) -> None:
    """Raise InputError for features that are not those of the model."""
    width = sides[0].values.shape[1]
    if width != embedder.dim:
        raise InputError(
            f"{path}: features of {width} numbers, and the {embedder.feature} of the model has {embedder.dim}"
        )
    if {name, embedder.feature} == {"input", "output"}:
        raise InputError(f"{path}: features of the Eigenlayer's {name}; give --feature {name}")
    there = [place for place, file in enumerate(sides[0].paths) if Path(file).is_file()][:_COMPARED]
    if not there:
        print(f"{path}: names no images that are here, so it is taken on trust that its features are of this model")
        return
    held = np.asarray(sides[0].values[np.array(there)], dtype=np.float64)
    held /= np.linalg.norm(held, axis=1, keepdims=True)
    alike = (held * embedder.embed([sides[0].paths[place] for place in there])).sum(axis=1)
    if alike.min() < _ALIKE:
        file = sides[0].paths[there[int(alike.argmin())]]
        raise InputError(
            f"{path}: features of another model than the checkpoint: for {file} the two have a cosine of "
            f"{alike.min():.3f}"
        )


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _store(path: Path, content: dict[str, Any], found: Calibration, read: tuple[int, int, int]) -> None:
    write = save_safetensors if path.suffix == ".safetensors" else save_checkpoint
    if _stamp(path) != read:
        raise InputError(f"{path}: has changed since it was read, as by a training that goes on; calibrate it again")
    write(path, {**content, "calibration": found.to_plain()})


def _rates(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers with commas between are wanted, not {text!r}") from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, help="a checkpoint of this project, into which the calibration goes")
    parser.add_argument("--features", type=Path, help="labeled features instead of the checkpoint's dataset")
    parser.add_argument("--config-file", type=Path, help="take DATASETS of this file: data not trained on is best")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--feature", choices=("input", "output"), help="of the Eigenlayer (default: the checkpoint's)")
    parser.add_argument("--flip", action="store_true", help="mean of an image and its mirror image")
    parser.add_argument(
        "--rates", type=_rates, default=list(RATES), help="wanted false-match rates (0.01,0.001,0.0001)"
    )
    parser.add_argument("--prior", type=float, metavar="P", help="share of pairs of one person (default: the data's)")
    parser.add_argument("--replicates", type=int, default=REPLICATES, help=f"of the bootstrap ({REPLICATES})")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and the folds")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the calibration as JSON")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="such as DATASETS.ROOT data")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(run_command(main))
