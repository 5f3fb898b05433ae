"""Score a checkpoint, or features saved before, after the Market-1501 protocol."""

from __future__ import annotations

import argparse
from pathlib import Path

from reid import build
from reid.data import banner
from reid.errors import InputError, run_command
from reid.features import load_features, save_features
from reid.model.precision import autocast_dtype
from reid.records import score_list
from reid.report.tables import score_table
from reid.retrieval import network_features, score
from reid.run import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", type=Path, help="a checkpoint of a run")
    source.add_argument("--features", type=Path, help="features in a .npz, as --save-features writes them")
    parser.add_argument("--config-file", type=Path, help="take DATASETS and TEST of this file")
    parser.add_argument("--output", type=Path, help="folder for evaluation.json (default: beside the checkpoint)")
    parser.add_argument("--save-features", action="store_true", help="also write features_{input,output}.npz there")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="such as DATASETS.ROOT data TEST.FLIP True")
    arguments = parser.parse_args()
    if arguments.features:
        if arguments.overrides or arguments.config_file or arguments.save_features:
            raise InputError("--features takes no configuration: leave --config-file, --save-features, KEY VALUE out")
        query, gallery, feature = load_features(arguments.features)
        name, scores = arguments.features.name, score({(feature, False): (query, gallery)})
    else:
        model, trained = build.load_network(arguments.weights)
        config = build.evaluation_config(trained, arguments.config_file, arguments.overrides)
        device = build.device(config)
        dtype = autocast_dtype(config.TEST.PRECISION, device)
        split = build.split(config)
        print(banner(split), flush=True)
        parts = [build.test_loader(config, images) for images in (split.query, split.gallery)]
        flips = (False, True) if config.TEST.FLIP else (False,)
        features = network_features(model.to(device), parts[0], parts[1], flips=flips, dtype=dtype)
        name, scores = split.name, score(features)
    output = arguments.output or (arguments.weights.parent if arguments.weights else arguments.features.with_suffix(""))
    output.mkdir(parents=True, exist_ok=True)
    if arguments.save_features:
        for feature in ("input", "output"):
            query, gallery = features[feature, False]
            save_features(output / f"features_{feature}.npz", query, gallery, feature=feature)
    write_json(output / "evaluation.json", {"dataset": name, "scores": score_list(scores)})
    print(score_table(name, score_list(scores)))
    print(f"written: {output / 'evaluation.json'}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
