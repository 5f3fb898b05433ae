"""Retrieve landmarks: describe the images of revisited Oxford / Paris with a checkpoint and score the ranking."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from yacs.config import CfgNode

from reid.config import build
from reid.data import read_revisited_images
from reid.data.loading.whole_images import LONGEST_SIDE, WholeImage
from reid.evaluation.features import COMBINATIONS, DescriptorOptions, check_any_size, extract_whole
from reid.evaluation.protocols import score_landmarks, whitening_features
from reid.evaluation.whitening import WHITENINGS, WhiteningOptions
from reid.io.atomic import write_json
from reid.io.feature_files import save_matrix_folder, save_training_features
from reid.model.precision import autocast_dtype
from reid.records import Features
from reid.report.tables import evaluation_tables


def main() -> None:
    """Run the command with the arguments of the process."""
    arguments = _arguments()
    options = None
    if arguments.whiten:
        options = WhiteningOptions(arguments.whiten, dim=arguments.whiten_dim, ridge=arguments.whiten_ridge)
    data = read_revisited_images(arguments.root, arguments.dataset)
    print(f"{data.name}: {len(data.query):,} queries, {len(data.gallery):,} images", flush=True)
    start = time.perf_counter()
    model, trained = build.load_network(arguments.weights)
    check_any_size(model)
    config = build.evaluation_config(trained, None, arguments.overrides)
    device = build.device(config)
    settings: dict[str, Any] = {
        "feature": config.TEST.FEATURE,
        "scales": arguments.scales,
        "combine": arguments.combine,
    }
    descriptor = DescriptorOptions(
        **settings, mirror=config.TEST.FLIP, dtype=autocast_dtype(config.TEST.PRECISION, device)
    )
    load = partial(build.whole_loader, config, longest_side=arguments.longest_side, batch_size=arguments.batch_size)
    model = model.to(device)

    def describe(images: tuple[WholeImage, ...], title: str) -> np.ndarray:
        return extract_whole(model, load(images), descriptor, title=title)

    # The whitening is fitted first, so that its errors are reported before the gallery takes hours.
    training = _training(arguments, config, describe) if options else None
    whitening = options.fit(training) if options and training else None
    query, gallery = describe(data.query, "query"), describe(data.gallery, "gallery")
    scores = score_landmarks(query, gallery, data.truth, whitening=whitening)
    size, flip = arguments.longest_side, config.TEST.FLIP
    content = {"dataset": data.name, **settings, "longest_side": size, "flip": flip, **scores}
    if options and whitening and training:
        content["whitening"] = options.describe(whitening, training)
    output = arguments.output or arguments.weights.parent
    output.mkdir(parents=True, exist_ok=True)
    if arguments.save_features:
        save_matrix_folder(output, query, gallery)
        if training:
            save_training_features(output / "training.npz", training, feature=config.TEST.FEATURE)
    write_json(output / "retrieval.json", content)
    print(evaluation_tables(content))
    print(f"extracted and scored in {time.perf_counter() - start:.1f} s; wrote {output / 'retrieval.json'}")


def _training(
    arguments: argparse.Namespace, config: CfgNode, describe: Callable[[tuple[WholeImage, ...], str], np.ndarray]
) -> Features:
    """Return the features to fit a whitening on: from a file, or of the checkpoint's own training set."""
    if arguments.whiten_from:
        return whitening_features(arguments.whiten_from, feature=config.TEST.FEATURE)
    images = build.split(config).train
    values = describe(tuple(WholeImage(image.path) for image in images), "training set")
    identities = np.array([image.identity for image in images], dtype=np.int64)
    return Features(values, identities, np.array([image.camera for image in images], dtype=np.int64))


def _scales(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        message = f"must be comma-separated numbers, such as 1,0.7071,0.5, not {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="a checkpoint of a run")
    parser.add_argument("--dataset", required=True, help="roxford5k, rparis6k, or a folder of the same layout")
    root = Path(os.environ.get("REID_DATA") or "datasets")
    parser.add_argument(
        "--root", type=Path, default=root, help="folder of the datasets (default: REID_DATA, else datasets/)"
    )
    parser.add_argument(
        "--longest-side",
        type=int,
        default=LONGEST_SIDE,
        metavar="N",
        help=f"shrink images to at most N pixels (default: {LONGEST_SIDE})",
    )
    parser.add_argument("--scales", type=_scales, default=[1.0], help="image scales, e.g. 1,0.7071,0.5 (default: 1)")
    parser.add_argument(
        "--combine",
        choices=COMBINATIONS,
        default="mean",
        help="how to combine the scales; gem uses GeM's exponent (default: mean)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="images of one size per batch (default: 1)"
    )
    parser.add_argument("--whiten", choices=WHITENINGS, default="", help="also evaluate whitened features")
    parser.add_argument("--whiten-dim", type=int, default=0, metavar="D", help="dimensions kept (default: all)")
    parser.add_argument(
        "--whiten-ridge",
        type=float,
        default=0.0,
        help="ridge of learned whitening, e.g. 1e-3 if pairs differ too little (default: 0)",
    )
    parser.add_argument(
        "--whiten-from", type=Path, metavar="FILE", help="training features (default: the checkpoint's training set)"
    )
    parser.add_argument("--output", type=Path, help="folder for retrieval.json (default: next to the checkpoint)")
    parser.add_argument("--save-features", action="store_true", help="also write query.npy and gallery.npy")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="configuration overrides, e.g. TEST.FEATURE output"
    )
    return parser.parse_args()
