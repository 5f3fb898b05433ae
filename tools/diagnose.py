"""Tell how correlated the weight vectors of a network are, and what that does to retrieval where a dataset is given."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from reid.config import build
from reid.data import banner
from reid.diagnostics.dataset import diagnose_dataset
from reid.diagnostics.identities import alike, classifier_name, pictures_of
from reid.diagnostics.survey import find_layer, find_layers, network_groups, survey
from reid.diagnostics.weights import diagnose
from reid.errors import InputError, run_command
from reid.io.atomic import write_json
from reid.io.state_dicts import read_state_dict
from reid.model.parametrization import plain_state
from reid.model.precision import autocast_dtype
from reid.report.diagnosis import write_diagnosis
from reid.report.diagnosis_tables import layer_table, replacement_table, survey_table
from reid.report.pages import check_available
from reid.training.provenance import provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True, type=Path, help="a checkpoint of a run, or any file of weights")
    parser.add_argument("--layer", help="look at one layer closely instead of surveying all")
    parser.add_argument("--config-file", type=Path, help="also take the dataset of this file (checkpoints of a run)")
    parser.add_argument("--output", type=Path, help="folder for diagnosis.{json,html} (default: diagnosis beside FILE)")
    parser.add_argument("--groups", action="append", default=[], metavar="NAME=G", help="a convolution has G groups")
    parser.add_argument("--seed", type=int, default=0, help="of the random matrices to compare with (0)")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="such as DATASETS.ROOT data")
    arguments = parser.parse_args()
    check_available()
    tensors, config_text = read_state_dict(arguments.weights)
    model = trained = config = split = None
    if config_text is not None:
        model, trained = build.load_network(arguments.weights)
        tensors = plain_state(model)
    elif arguments.config_file or arguments.overrides:
        raise InputError(
            f"{arguments.weights}: no checkpoint of this project, so no network to run on a dataset; leave "
            "--config-file and KEY VALUE out"
        )
    given = dict(_groups(entry) for entry in arguments.groups)
    source = str(arguments.weights)
    layers = find_layers(tensors, network=network_groups(model) if model else None, given=given, source=source)
    chosen = [find_layer(tensors, layers, arguments.layer, source)] if arguments.layer else []
    if not layers and not chosen:
        raise InputError(f"{source}: none of its {len(tensors)} tensors is the weight of a linear or convolution layer")
    if model and (arguments.config_file or arguments.overrides):
        config = build.evaluation_config(trained, arguments.config_file, arguments.overrides)
        split = build.split(config)
        print(banner(split), flush=True)

    told: dict[str, Any] = {"weights": arguments.weights.name, "tensors": len(tensors), "config": config_text}
    told["provenance"] = {**provenance(), "seed": arguments.seed}
    if not arguments.layer:
        told["survey"] = survey(layers)
        broken = {row["name"] for row in told["survey"] if row["broken"]}
        ends = ("eigenlayer.weight", "classifier.weight") if model else ()
        chosen = [layer for layer in layers if layer.name in ends and layer.name not in broken]
    told["layers"] = [diagnose(layer, seed=arguments.seed) for layer in chosen]
    images = None
    for layer in told["layers"]:
        if model and layer["name"] == classifier_name(model):
            known = split if config and _same_dataset(config, trained) else None
            layer["identities"] = alike(tensors[layer["name"]], known)
            images = pictures_of(known, layer["identities"]["pairs"]) if known else None
    if model and config and split:
        device = build.device(config)
        told["dataset"] = diagnose_dataset(
            model,
            build.loaders(config, split),
            device=device,
            dtype=autocast_dtype(config.TEST.PRECISION, device),
            seed=config.SEED,
            name=split.name,
            loss_images=config.RRI.LOSS_IMAGES,
            label_smoothing=config.SOLVER.LABEL_SMOOTHING,
            order=config.RRI.ORDER,
        )
    output = arguments.output or arguments.weights.parent / "diagnosis"
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "diagnosis.json", told)
    page = write_diagnosis(output, told, images=images)
    tables = [survey_table(told["survey"])] if "survey" in told else []
    tables += [*map(layer_table, told["layers"])] + ([replacement_table(told["dataset"])] if split else [])
    print("\n\n".join(tables))
    print(f"written: {output / 'diagnosis.json'}, {page}")


def _groups(entry: str) -> tuple[str, int]:
    name, _, groups = entry.rpartition("=")
    if not name or not groups.isdigit():
        raise InputError(f"--groups {entry!r}: expected NAME=G, such as layer1.0.conv2=32")
    return name, int(groups)


def _same_dataset(config: CfgNode, trained: CfgNode) -> bool:
    """Whether the classifier's rows are the identities of the dataset asked for."""
    places = ("ROOT", "FOLDER_ROOT", "CACHE", "STRICT")
    return all(config.DATASETS[key] == trained.DATASETS[key] for key in config.DATASETS if key not in places)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
