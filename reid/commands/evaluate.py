"""Evaluate a checkpoint, or saved features of this or another codebase."""

from __future__ import annotations

import argparse
import time
from typing import Any

from reid.config import build
from reid.data import split_table
from reid.data.datasets.label_checks import label_counts
from reid.errors import InputError, check_count
from reid.evaluation.features import distinct_features
from reid.evaluation.protocols import (
    EvaluationOptions,
    evaluate_features,
    evaluate_landmarks,
    whitening_features,
    write_neighbors,
)
from reid.evaluation.retrieval import FeatureSets, VariantFeatures, embed, network_features, warn_of_equal_rows
from reid.evaluation.whitening import WhiteningOptions
from reid.inference.conversion import load_network
from reid.inference.engines.engine import open_engine
from reid.inference.export.metadata import model_id_with_preprocessing
from reid.inference.identity import compute_model_id
from reid.io.atomic import write_json
from reid.io.feature_files import read_features, read_multi_query, save_features, save_training_features
from reid.model.precision import autocast_dtype
from reid.ranking import RerankOptions
from reid.report.tables import evaluation_tables, render_tables


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    if arguments.ground_truth:
        _landmarks(arguments)
        return
    plain = ("metric", "protocol", "repeats", "seed", "roc", "expand", "augment", "neighbors", "alpha")
    rerank = RerankOptions(**{name: getattr(arguments, name) for name in vars(RerankOptions())})
    options = EvaluationOptions(
        **{name: getattr(arguments, name) for name in plain},
        rerank=rerank if arguments.rerank else None,
        whitening=_whitening(arguments),
    )
    if arguments.top_k is not None:
        check_count("--top-k", arguments.top_k)
    if arguments.whiten_from and not arguments.features:
        raise InputError(
            "--whiten-from requires --features; with --weights the training set of the configuration is used"
        )
    if arguments.features:
        if arguments.overrides or arguments.config_file or arguments.save_features:
            raise InputError("--features takes no configuration; remove --config-file, --save-features and KEY VALUE")
        query, gallery, feature = read_features(arguments.features)
        warn_of_equal_rows(query, gallery)
        header, features = {"dataset": arguments.features.name}, {(feature, False): (query, gallery)}
        pool = read_multi_query(arguments.features) if options.protocol == "multi-query" else None
        pools = {(feature, False): pool} if pool else None
        training = None
        if options.whitening:
            training = {(feature, False): whitening_features(arguments.whiten_from, arguments.features, feature)}
        default_output = arguments.features.with_suffix("") if arguments.features.is_file() else arguments.features
    else:
        header, features, pools, training = _embed(arguments, options)
        default_output = arguments.weights.parent
    output = arguments.output or default_output
    output.mkdir(parents=True, exist_ok=True)
    if arguments.save_features:
        for feature in {name: None for name, _ in features}:
            query, gallery = features[feature, False]
            save_features(output / f"features_{feature}.npz", query, gallery, feature=feature)
            if training:
                save_training_features(output / f"training_{feature}.npz", training[feature, False], feature=feature)
    start = time.perf_counter()
    if arguments.top_k is not None:
        for path in write_neighbors(output, features, arguments.top_k, metric=options.metric):
            print(f"wrote {path}")
    content = {**header, **evaluate_features(features, options, pools, training)}
    seconds = time.perf_counter() - start
    write_json(output / "evaluation.json", content)
    print(render_tables(evaluation_tables(content), arguments.format, content), file=arguments.result)
    print(f"evaluated in {seconds:.1f} s; wrote {output / 'evaluation.json'}")


def _landmarks(arguments: argparse.Namespace) -> None:
    """Evaluate features with the ground truth of revisited Oxford / Paris."""
    if not arguments.features or not arguments.features.is_dir():
        raise InputError("--ground-truth requires --features FOLDER with query.npy and gallery.npy, rows in its order")
    names = ("config_file", "save_features", "roc", "rerank", "expand", "augment")
    unused = [f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name)]
    unused += ["--top-k"] if arguments.top_k is not None else []
    unused += ["--protocol"] if arguments.protocol != EvaluationOptions().protocol else []
    unused += ["KEY VALUE"] if arguments.overrides else []
    if unused:
        raise InputError(
            f"--ground-truth is evaluated by the protocol of its benchmark alone; remove {', '.join(unused)}"
        )
    whitening = _whitening(arguments)
    training = whitening_features(arguments.whiten_from, arguments.features) if whitening else None
    content = evaluate_landmarks(
        arguments.features, arguments.ground_truth, metric=arguments.metric, whitening=whitening, training=training
    )
    output = arguments.output or arguments.features
    output.mkdir(parents=True, exist_ok=True)
    content = {"dataset": arguments.ground_truth.stem, **content}
    write_json(output / "evaluation.json", content)
    print(render_tables(evaluation_tables(content), arguments.format, content), file=arguments.result)
    print(f"wrote {output / 'evaluation.json'}")


def _whitening(arguments: argparse.Namespace) -> WhiteningOptions | None:
    if not arguments.whiten:
        if arguments.whiten_from:
            raise InputError("--whiten-from requires --whiten, the kind of whitening to fit")
        return None
    return WhiteningOptions(
        arguments.whiten, dim=arguments.whiten_dim, ridge=arguments.whiten_ridge, seed=arguments.seed
    )


def _embed(
    arguments: argparse.Namespace, options: EvaluationOptions
) -> tuple[dict[str, Any], FeatureSets, VariantFeatures | None, VariantFeatures | None]:
    """Return what describes the evaluation, its features, those to pool and those of the training set."""
    model, trained = load_network(arguments.weights)
    config = build.evaluation_config(trained, arguments.config_file, arguments.overrides)
    build.use_threads(config)
    device = build.device(config)
    model_id = compute_model_id(model, trained)
    if build.preprocessing(config) != build.preprocessing(trained):
        model_id = model_id_with_preprocessing(model_id, build.preprocessing(config))
    dtype = autocast_dtype(config.TEST.PRECISION, device)
    split = build.split(config)
    print(split_table(split), flush=True)
    parts = [build.test_loader(config, images) for images in (split.query, split.gallery)]
    flips = (False, True) if config.TEST.FLIP else (False,)
    model = model.to(device)
    names = distinct_features(model)
    engine = open_engine(model, config, dtype=dtype)
    engine.expect((len(split.query) + len(split.gallery)) * len(flips))
    features = network_features(engine, parts[0], parts[1], flips=flips, names=names)
    if len(names) == 1:
        print("the Eigenlayer is the identity: its output equals its input, which alone is scored")
    boxes = build.pool_loader(config, split) if options.protocol == "multi-query" else None
    pools = embed(engine, boxes, flips=flips, title="multi-query") if boxes else None
    training = None
    if options.whitening:
        images = build.test_loader(config, split.train)
        training = embed(engine, images, flips=flips, title="training set")
    header = {"dataset": split.name, "labels": label_counts(split), "engine": engine.name, "model_id": model_id}
    return header, features, pools, training
