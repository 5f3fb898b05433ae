"""Export a checkpoint: an ONNX model or a program of torch.export, compared with PyTorch, with a model card beside."""

from __future__ import annotations

import argparse
from pathlib import Path

from yacs.config import CfgNode

from reid import Embedder
from reid.config import build
from reid.decorrelation import correlation_metric
from reid.errors import InputError, run_command
from reid.evaluation.features import FEATURES
from reid.inference.conversion import load_any
from reid.inference.embedder import DEMO
from reid.inference.export.card import render_card
from reid.inference.export.checked_export import checked_file
from reid.inference.export.files import FORMATS, check_available, check_free, write_export
from reid.inference.export.interface import PREPROCESSINGS, TRACKER_SIZE, Form
from reid.inference.export.metadata import UNKNOWN, Facts, id_with_other_images
from reid.inference.export.sample_images import drawn_crops, read_crops
from reid.inference.export.scores import find_scores, read_scores

MAY_CHANGE = ("INPUT.SIZE", "INPUT.MEAN", "INPUT.STD")


def main() -> None:
    arguments = _arguments()
    output, given = arguments.output, arguments.overrides[::2]
    format = arguments.format or next((name for name, end in FORMATS.items() if end == output.suffix), "onnx")
    if FORMATS[format] != output.suffix:
        raise InputError(f"--output {output} must end in {FORMATS[format]} for --format {format}")
    if wrong := [key for key in given if key not in MAY_CHANGE]:
        raise InputError(f"{wrong[0]}: an export leaves the network as it is; only {', '.join(MAY_CHANGE)} can be set")
    check_available(format)
    check_free(output, force=arguments.force)
    measured = read_scores(arguments.scores) if arguments.scores else None
    embedder = Embedder.load(str(arguments.weights), device="cpu", feature=arguments.feature, flip=arguments.flip)
    config = build.evaluation_config(embedder.config, None, arguments.overrides)
    content = load_any(DEMO if str(arguments.weights) == "demo" else arguments.weights)
    origin = content.get("origin")
    images, trained = build.preprocessing(config), build.preprocessing(embedder.config)
    form = Form(
        size=images["size"],
        mean=images["mean"],
        std=images["std"],
        feature=embedder.feature,
        normalized=not arguments.no_normalize,
        flip=embedder.flip,
        preprocessing=arguments.preprocessing,
        resize=images["resize"],
    )
    changed = images != trained
    facts = Facts(
        form=form,
        dim=embedder.dim,
        model_id=id_with_other_images(embedder.model_id, images) if changed else embedder.model_id,
        correlation=correlation_metric(embedder.network.eigenlayer.vectors.detach()),
        config=_without_paths(embedder.config).dump(),
        backbone=config.MODEL.BACKBONE,
        pooling=config.MODEL.POOLING.NAME,
        weights=Path(config.MODEL.WEIGHTS).name,
        # What a folder of the user's held, and what others trained on, only the user can say.
        trained_on=() if origin else tuple(name for name in config.DATASETS.NAME.split("+") if name != "folder"),
        origin=f"{origin['family']}, {origin['architecture']}" if origin else "",
        license=arguments.license,
        data=arguments.data,
        calibration=embedder.calibration.to_plain() if embedder.calibration and not changed else {},
    )
    pixels = read_crops(arguments.check, form.size, resize=form.resize) if arguments.check else drawn_crops(form.size)
    data, difference = checked_file(embedder.network, facts, pixels, format=format)
    what = f"{len(pixels)} {'crops' if arguments.check else 'drawn images'}"
    told = f"Largest difference to PyTorch on {what}, as a share of a feature's length: {difference:.1e}."
    if measured is None and not changed:  # scores of the same network under other images are none of this file
        measured = find_scores(arguments.weights, facts.correlation)
    card = render_card(output, facts, measured, format=format, checked=told)
    beside = write_export(output, data, card, force=arguments.force)
    print(told)
    _tell_size(form, trained["size"])
    print(f"written: {output} ({len(data) / 1e6:.1f} MB), {beside}")


def _tell_size(form: Form, trained: tuple[int, int]) -> None:
    size, tracker = (f"{height} x {width}" for height, width in (form.size, TRACKER_SIZE))
    if form.size != trained:
        print(f"warning: it takes {size}, and the network was trained at {trained[0]} x {trained[1]}: measure it anew")
    if form.size != TRACKER_SIZE:
        print(
            f"it takes images of {size} (height x width), as the network was trained; trackers such as boxmot feed "
            f"{tracker}: resize the crops, or export with INPUT.SIZE '{list(TRACKER_SIZE)}' and measure what that costs"
        )


def _without_paths(config: CfgNode) -> CfgNode:
    """What may travel: no folders of the machine that trained it."""
    public = config.clone()
    public.defrost()
    public.OUTPUT_DIR, public.MODEL.WEIGHTS = "exported", Path(config.MODEL.WEIGHTS).name
    public.DATASETS.ROOT = public.DATASETS.CACHE = public.DATASETS.FOLDER_ROOT = ""
    return public


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True, type=Path, help="a checkpoint, as Embedder.load takes it")
    parser.add_argument("--output", required=True, type=Path, help="the file: .onnx or .pt2; the card is this with .md")
    parser.add_argument("--format", choices=FORMATS, help="default: by the name of --output")
    parser.add_argument("--feature", choices=FEATURES, help="of the Eigenlayer (default: its TEST.FEATURE)")
    parser.add_argument("--no-normalize", action="store_true", help="leave the rows' lengths as they are")
    parser.add_argument("--flip", action="store_true", help="mean with the mirror image's feature; twice the time")
    parser.add_argument(
        "--preprocessing", choices=PREPROCESSINGS, default="tracker", help="inside: takes uint8 RGB, normalizes itself"
    )
    parser.add_argument(
        "--check", action="append", type=Path, metavar="PATH", help="crops, or a folder of them, to compare on"
    )
    parser.add_argument(
        "--license", "--licence", default=UNKNOWN, help="of the model, such as mit or cc-by-nc-4.0 (unknown)"
    )
    parser.add_argument("--data", default="", help="for the card: what it was trained on, and under which license")
    parser.add_argument("--scores", type=Path, help="evaluation.json for the card (default: what lies beside)")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="such as INPUT.SIZE '[256, 128]'")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(run_command(main))
