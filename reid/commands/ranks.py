"""Show queries with their top-ranked images, for one checkpoint or two side by side: `ranked_lists.html`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from reid.config import build
from reid.data import split_table
from reid.diagnostics.comparison import is_gain_of_rri
from reid.diagnostics.embedding_map import check_method
from reid.diagnostics.retrieval import CheckpointFeatures, check_sizes, describe_retrieval
from reid.errors import InputError
from reid.evaluation.retrieval import choose_features, network_features
from reid.inference.conversion import load_any
from reid.inference.engines.engine import open_engine
from reid.io.atomic import write_json
from reid.io.feature_files import load_npz
from reid.model.precision import autocast_dtype
from reid.report.pages import check_available, distinct_names, page_folder, write_page
from reid.report.ranked_lists import render
from reid.report.tables import difference_text, percent


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    if arguments.features and (arguments.overrides or arguments.config_file):
        raise InputError("--features takes no configuration; remove --config-file and KEY VALUE")
    check_sizes(arguments.queries, arguments.top)
    check_available()
    if arguments.map != "none":
        check_method(arguments.map)
    paths = [path for path in (arguments.weights or arguments.features, arguments.against) if path]
    names, gain = distinct_names(paths), (False, "two sets of features")
    if arguments.features:
        dataset, sides = arguments.features.name, [_read(path, name) for path, name in zip(paths, names, strict=True)]
    else:
        contents = [load_any(path) for path in paths]
        if len(paths) == 2:
            gain = is_gain_of_rri(paths[0], contents[0], paths[1], contents[1])
        embedded = [_embed(*named, arguments) for named in zip(paths, contents, names, strict=True)]
        dataset, sides = embedded[0][0], [side for _, side in embedded]
    method = None if arguments.map == "none" else arguments.map
    content = describe_retrieval(dataset, sides, queries=arguments.queries, top=arguments.top, method=method, gain=gain)
    output = arguments.output or page_folder("ranks", *paths)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "ranked_lists.json", content)
    page = write_page(output / "ranked_lists.html", render(content))
    scores = [side["scores"] for side in content["sides"]]
    for side, score in zip(content["sides"], scores, strict=True):
        print(f"{side['name']}: rank-1 {percent(score['rank1'])}, mAP {percent(score['mAP'])}")
    if found := content["comparison"]:
        changes = [difference_text(scores[0], scores[1], key, found["intervals"]) for key in ("rank1", "mAP")]
        print(f"{found['name']}: rank-1 {changes[0]}, mAP {changes[1]}, 95 % intervals; {found['reason']}")
        print(f"top-1 results fixed: {found['repaired']}, broken: {found['broken']}")
    print(f"wrote {output / 'ranked_lists.json'}, {page} ({page.stat().st_size / 2**20:.1f} MiB)")


def _read(path: Path, name: str) -> CheckpointFeatures:
    query, gallery, feature = load_npz(path)
    return CheckpointFeatures(name, query, gallery, feature)


def _embed(
    path: Path, content: dict[str, Any], name: str, arguments: argparse.Namespace
) -> tuple[str, CheckpointFeatures]:
    """Return the name of the dataset and the features selected by `TEST`."""
    model, trained = build.network_from_checkpoint(content, source=str(path))
    config = build.evaluation_config(trained, arguments.config_file, arguments.overrides)
    build.use_threads(config)
    device = build.device(config)
    split = build.split(config)
    print(f"{name} on {split_table(split)}", flush=True)
    query, gallery = (build.test_loader(config, images) for images in (split.query, split.gallery))
    test, dtype = config.TEST, autocast_dtype(config.TEST.PRECISION, device)
    engine = open_engine(model.to(device), config, dtype=dtype)
    engine.expect((len(split.query) + len(split.gallery)) * (1 + test.FLIP))
    features = network_features(engine, query, gallery, flips=(test.FLIP,))
    pair = choose_features(features, feature=test.FEATURE, normalized=test.NORMALIZED, flip=test.FLIP)
    return split.name, CheckpointFeatures(name, *pair, test.FEATURE, test.NORMALIZED, test.FLIP)
