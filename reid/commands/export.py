"""Export a checkpoint to ONNX or torch.export, verify it against PyTorch, and write a model card."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from reid import Embedder
from reid.config import build
from reid.decorrelation import correlation_metric
from reid.errors import InputError
from reid.inference.conversion import without_paths
from reid.inference.export.card import render_card
from reid.inference.export.exporter import export_network
from reid.inference.export.files import check_output_path, write_export
from reid.inference.export.formats import FORMATS, check_available
from reid.inference.export.interface import TRACKER_SIZE, ExportInterface
from reid.inference.export.metadata import ModelMetadata, model_id_with_preprocessing
from reid.inference.export.sample_images import read_crops, synthetic_crops
from reid.inference.export.scores import find_scores, read_scores
from reid.inference.identity import compute_model_id

OVERRIDABLE = ("INPUT.SIZE", "INPUT.MEAN", "INPUT.STD")


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    output = arguments.output
    format = _format(arguments)
    check_available(format)
    check_output_path(output, force=arguments.force)
    measured = read_scores(arguments.scores) if arguments.scores else None
    embedder = Embedder.load(str(arguments.weights), device="cpu", feature=arguments.feature, flip=arguments.flip)
    config = build.evaluation_config(embedder.config, None, arguments.overrides)
    metadata = _metadata(arguments, embedder, config, embedder.origin)
    interface = metadata.interface
    if arguments.check:
        pixels = read_crops(arguments.check, interface.size, resize=interface.resize)
    else:
        pixels = synthetic_crops(interface.size)
    data, difference = export_network(embedder.network, metadata, pixels, format=format)
    images = f"{len(pixels)} {'crops' if arguments.check else 'synthetic images'}"
    verification = f"Largest difference from PyTorch on {images}, relative to a feature's length: {difference:.1e}."
    # Scores measured with other preprocessing do not apply to this file.
    if measured is None and metadata.model_id == embedder.model_id:
        model_id = compute_model_id(embedder.network, embedder.config)
        measured = find_scores(arguments.weights, metadata.correlation, model_id)
    card = render_card(output, metadata, measured, format=format, verification=verification)
    card_file = write_export(output, data, card, force=arguments.force)
    print(verification)
    _print_size(interface, build.preprocessing(embedder.config)["size"])
    print(f"wrote {output} ({len(data) / 1e6:.1f} MB), {card_file}")


def _format(arguments: argparse.Namespace) -> str:
    """Determine the format and check it and the overrides."""
    suffix = arguments.output.suffix
    format: str = arguments.format or next((name for name, end in FORMATS.items() if end == suffix), "onnx")
    if FORMATS[format] != suffix:
        raise InputError(f"--output {arguments.output} must end in {FORMATS[format]} for --format {format}")
    if wrong := [key for key in arguments.overrides[::2] if key not in OVERRIDABLE]:
        raise InputError(f"{wrong[0]}: an export does not change the network; only {', '.join(OVERRIDABLE)} can be set")
    return format


def _metadata(
    arguments: argparse.Namespace, embedder: Embedder, config: CfgNode, origin: dict[str, Any] | None
) -> ModelMetadata:
    images = build.preprocessing(config)
    changed = images != build.preprocessing(embedder.config)
    return ModelMetadata(
        interface=ExportInterface(
            size=images["size"],
            mean=images["mean"],
            std=images["std"],
            feature=embedder.feature,
            normalized=not arguments.no_normalize,
            flip=embedder.flip,
            preprocessing=arguments.preprocessing,
            resize=images["resize"],
        ),
        dim=embedder.dim,
        model_id=model_id_with_preprocessing(embedder.model_id, images) if changed else embedder.model_id,
        correlation=correlation_metric(embedder.network.eigenlayer.vectors.detach()),
        config=without_paths(embedder.config).dump(),
        backbone=config.MODEL.BACKBONE,
        pooling=config.MODEL.POOLING.NAME,
        weights=Path(config.MODEL.WEIGHTS).name,
        # The content of a user's folder, and the training data of other codebases, are known to the user only.
        trained_on=() if origin else tuple(name for name in config.DATASETS.NAME.split("+") if name != "folder"),
        origin=f"{origin['family']}, {origin['architecture']}" if origin else "",
        license=arguments.license,
        data=arguments.data,
        calibration=embedder.calibration.to_plain() if embedder.calibration and not changed else {},
    )


def _print_size(interface: ExportInterface, trained: tuple[int, int]) -> None:
    size, tracker = (f"{height} x {width}" for height, width in (interface.size, TRACKER_SIZE))
    if interface.size != trained:
        print(
            f"warning: the input size is {size}, and the network was trained at {trained[0]} x {trained[1]}: "
            "measure its scores again"
        )
    if interface.size != TRACKER_SIZE:
        print(
            f"the input size is {size} (height x width); trackers such as boxmot feed {tracker}: resize the crops, or "
            f"export with INPUT.SIZE '{list(TRACKER_SIZE)}' and measure the effect on the scores"
        )
