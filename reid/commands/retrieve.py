"""Retrieve landmarks: describe the images of revisited Oxford / Paris with a checkpoint and score the ranking."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from yacs.config import CfgNode

from reid.config import build
from reid.data import read_revisited_images
from reid.data.loading.whole_images import WholeImage
from reid.evaluation.features import DescriptorOptions, check_any_size, extract_whole
from reid.evaluation.protocols import score_landmarks, whitening_features
from reid.evaluation.whitening import WhiteningOptions
from reid.inference.conversion import load_network
from reid.io.atomic import write_json
from reid.io.feature_files import save_matrix_folder, save_training_features
from reid.model.precision import autocast_dtype
from reid.records import Features
from reid.report.tables import evaluation_tables, render_tables


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    options = None
    if arguments.whiten:
        options = WhiteningOptions(arguments.whiten, dim=arguments.whiten_dim, ridge=arguments.whiten_ridge)
    data = read_revisited_images(arguments.root, arguments.dataset)
    print(f"{data.name}: {len(data.query):,} queries, {len(data.gallery):,} images", flush=True)
    start = time.perf_counter()
    model, trained = load_network(arguments.weights)
    check_any_size(model)
    config = build.evaluation_config(trained, None, arguments.overrides)
    build.use_threads(config)
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
    print(render_tables(evaluation_tables(content), arguments.format, content), file=arguments.result)
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
