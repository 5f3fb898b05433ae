"""Measure the correlation of a network's weight vectors and, given a dataset, its effect on retrieval."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from yacs.config import CfgNode

from reid.config import build
from reid.data import split_table
from reid.diagnostics.changes import compare_layers
from reid.diagnostics.dataset import DatasetDiagnosisOptions, compare_embeddings, diagnose_dataset
from reid.diagnostics.frames import to_csv
from reid.diagnostics.identities import classifier_name, identity_images, similar_identities
from reid.diagnostics.spectral import describe_spectrum
from reid.diagnostics.survey import embedding_tables, find_layer, find_layers, first_to_look_at, network_groups, survey
from reid.diagnostics.weights import Layer, diagnose_layer
from reid.errors import InputError, one_line
from reid.inference.conversion import load_any
from reid.inference.engines.engine import Engine, open_engine
from reid.io.atomic import write_json, write_text
from reid.io.weight_files import read_weights
from reid.model.network import ReidNetwork
from reid.model.parametrization import plain_state
from reid.model.precision import autocast_dtype
from reid.records import ImageRecord, Split
from reid.report.diagnosis import render
from reid.report.diagnosis_changes import changes_tables, render_changes
from reid.report.diagnosis_tables import layer_table, replacement_table, survey_table
from reid.report.pages import check_available, distinct_names, page_folder
from reid.report.tables import Table, render_tables
from reid.training.provenance import provenance


@dataclass(frozen=True)
class _Weights:
    """The tensors of a file and, for a checkpoint of this project, the network and its configuration."""

    source: str
    tensors: dict[str, Tensor]
    config_text: str | None
    model: ReidNetwork | None
    config: CfgNode | None
    groups: dict[str, int]


@dataclass(frozen=True)
class _Dataset:
    config: CfgNode
    split: Split
    same_as_training: bool


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    check_available()
    if arguments.against:
        _compare(arguments)
        return
    weights = _read_weights(arguments, arguments.weights)
    layers = _find_layers(weights, arguments)
    chosen = [find_layer(weights.tensors, layers, arguments.layer, weights.source)] if arguments.layer else []
    if not chosen:
        _require_layers(weights, layers)
    dataset = _load_dataset(weights, arguments)
    diagnosis: dict[str, Any] = {
        "weights": arguments.weights.name,
        "tensors": len(weights.tensors),
        "config": weights.config_text,
        "provenance": {**provenance(command=(*arguments.program, *arguments.arguments)), "seed": arguments.seed},
    }
    spectra: dict[str, Any] = {}
    if not arguments.layer:
        diagnosis["survey"] = survey(layers, seed=arguments.seed)
        spectra = {row["name"]: row["spectral"] for row in diagnosis["survey"]}
        diagnosis["look"] = first_to_look_at(diagnosis["survey"])
        chosen = _final_layers(weights, layers, diagnosis["survey"])
    for layer in chosen:
        if layer.name not in spectra:
            spectra[layer.name] = describe_spectrum(layer, seed=arguments.seed)
    diagnosis["layers"] = [
        {**diagnose_layer(layer, seed=arguments.seed), "spectral": spectra[layer.name]} for layer in chosen
    ]
    images = _add_identities(diagnosis["layers"], weights, dataset)
    if weights.model and dataset:
        diagnosis["dataset"] = _diagnose_dataset(weights.model, dataset)
    output = arguments.output or _default_output(arguments)
    _finish(arguments, diagnosis, output, _tables(diagnosis), images)


def _compare(arguments: argparse.Namespace) -> None:
    """Compare two files of weights, the later one with the earlier."""
    if arguments.layer:
        raise InputError("--layer and --against cannot be combined; --against compares all layers")
    names = distinct_names([arguments.weights, arguments.against])
    weights, reference = (_read_weights(arguments, path) for path in (arguments.weights, arguments.against))
    found = [_find_layers(side, arguments) for side in (weights, reference)]
    for side, layers in zip((weights, reference), found, strict=True):
        _require_layers(side, layers)
    dataset = _load_dataset(weights, arguments)
    changes = compare_layers(found[0], found[1])
    if dataset and weights.model and reference.model:
        # The network before may have another structure than the configuration names, by which exports are kept.
        trained = build.evaluation_config(reference.config, arguments.config_file, arguments.overrides)
        earlier = dataclasses.replace(dataset, config=_preprocessed_as(trained, dataset.config))
        after, before = (
            (_open_engine(network, images, keep=False), build.loaders(images.config, images.split))
            for network, images in ((weights.model, dataset), (reference.model, earlier))
        )
        changes["dataset"] = dataset.split.name
        changes["features"] = compare_embeddings(after, before)
    content = {
        "weights": names[0],
        "against": names[1],
        "config": weights.config_text,
        "provenance": {**provenance(command=(*arguments.program, *arguments.arguments)), "seed": arguments.seed},
        "changes": changes,
    }
    output = arguments.output or page_folder("diagnosis", arguments.weights, arguments.against)
    _finish(arguments, content, output, changes_tables(content))


def _require_layers(weights: _Weights, layers: list[Layer]) -> None:
    if not layers:
        raise InputError(
            f"{weights.source}: contains no weight of a linear or convolution layer ({len(weights.tensors)} tensors)"
        )


def _default_output(arguments: argparse.Namespace) -> Path:
    folder = page_folder("diagnosis", arguments.weights)
    return folder.with_name(f"{folder.name}_{arguments.layer.replace('/', '_')}") if arguments.layer else folder


def _read_weights(arguments: argparse.Namespace, path: Path) -> _Weights:
    (tensors, config_text, notes), groups = read_weights(path)
    source = str(path)
    # A dataset needs a network; without one, the layers of any file are listed under their own names.
    if config_text is not None or arguments.config_file or arguments.overrides:
        content = load_any(path)
        # The survey names the layers that are not finite.
        model, config = build.network_from_checkpoint(content, source=source, finite=False)
        return _Weights(source, plain_state(model), content["config"], model, config, network_groups(model))
    for note in notes:
        print(one_line(f"{source}: {note}"))
    return _Weights(source, tensors, None, None, None, groups)


def _find_layers(weights: _Weights, arguments: argparse.Namespace) -> list[Layer]:
    groups = dict(_parse_groups(entry) for entry in arguments.groups)
    layers = find_layers(weights.tensors, network=weights.groups, groups=groups, source=weights.source)
    # The modules of a network of this project are known.
    tables = [] if weights.model else embedding_tables(weights.tensors, layers)
    if tables and not arguments.layer:
        more = f" and {len(tables) - 5} more" if len(tables) > 5 else ""
        print(
            f"{weights.source}: taken for embedding tables and left out: {', '.join(tables[:5])}{more}; "
            f"to see a linear layer among them: --layer {tables[0].removesuffix('.weight')}"
        )
    return layers


def _load_dataset(weights: _Weights, arguments: argparse.Namespace) -> _Dataset | None:
    if weights.config is None or not (arguments.config_file or arguments.overrides):
        return None
    config = build.evaluation_config(weights.config, arguments.config_file, arguments.overrides)
    build.use_threads(config)
    split = build.split(config)
    print(split_table(split), flush=True)
    return _Dataset(config, split, _is_same_dataset(config, weights.config))


def _preprocessed_as(trained: CfgNode, config: CfgNode) -> CfgNode:
    """The configuration with the preprocessing of another network."""
    own = config.clone()
    own.defrost()
    for name in ("SIZE", "RESIZE", "MEAN", "STD"):
        own.INPUT[name] = trained.INPUT[name]
    own.freeze()
    return own


def _final_layers(weights: _Weights, layers: list[Layer], rows: list[dict[str, Any]]) -> list[Layer]:
    """The Eigenlayer and the classifier of a network of this project, unless their weights are invalid."""
    invalid = {row["name"] for row in rows if row["broken"]}
    names = ("eigenlayer.weight", "classifier.weight") if weights.model else ()
    return [layer for layer in layers if layer.name in names and layer.name not in invalid]


def _add_identities(
    layers: list[dict[str, Any]], weights: _Weights, dataset: _Dataset | None
) -> dict[int, list[ImageRecord]] | None:
    """Add the most similar identities to the classifier's entry, and return images of them."""
    images = None
    for layer in layers:
        if weights.model and layer["name"] == classifier_name(weights.model):
            split = dataset.split if dataset and dataset.same_as_training else None
            layer["identities"] = similar_identities(weights.tensors[layer["name"]], split)
            images = identity_images(split, layer["identities"]["pairs"]) if split else None
    return images


def diagnosis_options(config: CfgNode, *, name: str) -> DatasetDiagnosisOptions:
    """Return the options with which the command diagnoses a dataset.

    Args:
        config: The configuration of the network and of the dataset.
        name: The name of the dataset.
    """
    return DatasetDiagnosisOptions(
        seed=config.SEED,
        name=name,
        loss_images=config.RRI.LOSS_IMAGES,
        label_smoothing=config.SOLVER.LABEL_SMOOTHING,
        order=config.RRI.ORDER,
    )


def _diagnose_dataset(model: ReidNetwork, dataset: _Dataset) -> dict[str, Any]:
    split = dataset.split
    engine = _open_engine(model, dataset, expected=len(split.train))
    options = diagnosis_options(dataset.config, name=split.name)
    return diagnose_dataset(model, build.loaders(dataset.config, split), options=options, engine=engine)


def _open_engine(model: ReidNetwork, dataset: _Dataset, *, expected: int = 0, keep: bool = True) -> Engine:
    """The engine for query and gallery, and for as many images more as expected."""
    device, split = build.device(dataset.config), dataset.split
    dtype = autocast_dtype(dataset.config.TEST.PRECISION, device)
    engine = open_engine(model.to(device), dataset.config, dtype=dtype, keep=keep)
    engine.expect(expected + len(split.query) + len(split.gallery))
    return engine


def _finish(
    arguments: argparse.Namespace,
    content: dict[str, Any],
    output: Path,
    tables: list[Table],
    images: dict[int, list[ImageRecord]] | None = None,
) -> None:
    """Write the files of a diagnosis or a comparison, and print its tables."""
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "diagnosis.json", content)
    if "survey" in content or "changes" in content:
        write_text(output / "diagnosis.csv", to_csv(content))
    page = render_changes(content) if "changes" in content else render(content, images or {})
    write_text(output / "diagnosis.html", page)
    print(render_tables(tables, arguments.format, content), file=arguments.result)
    print(f"wrote {output / 'diagnosis.json'}, {output / 'diagnosis.html'}")


def _tables(diagnosis: dict[str, Any]) -> list[Table]:
    tables = [survey_table(diagnosis["survey"])] if "survey" in diagnosis else []
    tables += map(layer_table, diagnosis["layers"])
    return tables + ([replacement_table(diagnosis["dataset"])] if "dataset" in diagnosis else [])


def _parse_groups(entry: str) -> tuple[str, int]:
    name, _, groups = entry.rpartition("=")
    if not name or not (groups.isascii() and groups.isdecimal()):
        raise InputError(f"--groups {entry!r}: expected NAME=G, such as layer1.0.conv2=32")
    return name, int(groups)


def _is_same_dataset(config: CfgNode, trained: CfgNode) -> bool:
    """Whether the rows of the classifier are the identities of the dataset."""
    irrelevant = ("ROOT", "FOLDER_ROOT", "CACHE", "STRICT", "TOLERANCE")
    return all(config.DATASETS[key] == trained.DATASETS[key] for key in config.DATASETS if key not in irrelevant)
