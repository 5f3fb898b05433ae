"""Parsers of the commands that write models and datasets: export, convert, pack, dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

from reid.commands.parsers.arguments import add_feature, add_overrides
from reid.commands.parsers.choices import EXPORT_FORMATS, FAMILIES, PREPROCESSINGS, UNKNOWN_LICENSE


def export() -> argparse.ArgumentParser:
    """Make the parser of `svdnet export`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Export a checkpoint to ONNX or torch.export, verify it against PyTorch, and write a model card."
    )
    parser.add_argument("--weights", required=True, type=Path, help="checkpoint of this project or of another codebase")
    parser.add_argument("--output", required=True, type=Path, help=".onnx or .pt2 file; the card is written to FILE.md")
    parser.add_argument("--format", choices=EXPORT_FORMATS, help="file format (default: by the suffix of --output)")
    add_feature(parser, default="TEST.FEATURE of the checkpoint")
    parser.add_argument("--no-normalize", action="store_true", help="do not scale embeddings to unit length")
    parser.add_argument(
        "--flip", action="store_true", help="average the features of an image and its mirror image; twice the time"
    )
    parser.add_argument(
        "--preprocessing",
        choices=PREPROCESSINGS,
        default="tracker",
        help="inside: the file takes uint8 RGB and normalizes it (default: tracker, the caller normalizes)",
    )
    parser.add_argument(
        "--check",
        action="append",
        type=Path,
        metavar="PATH",
        help="images, or a folder of them, to verify the export with",
    )
    parser.add_argument(
        "--license",
        "--licence",
        default=UNKNOWN_LICENSE,
        help="license of the model, e.g. mit or cc-by-nc-4.0 (default: unknown)",
    )
    parser.add_argument("--data", default="", help="training data and its license, for the model card")
    parser.add_argument(
        "--scores", type=Path, help="evaluation.json for the card (default: search the checkpoint's run)"
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    add_overrides(parser, example="INPUT.SIZE '[256, 128]'")
    return parser


def convert() -> argparse.ArgumentParser:
    """Make the parser of `svdnet convert`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Convert another codebase's checkpoint to one of this project, without executing code in it."
    )
    parser.add_argument(
        "source", metavar="IN", type=Path, help="checkpoint of torchreid, fast-reid, reid-strong-baseline or layumi"
    )
    parser.add_argument("target", metavar="OUT", type=Path, help="a new .pth or .safetensors file")
    parser.add_argument("--family", choices=FAMILIES, help="codebase of IN (default: recognized from its weights)")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY VALUE",
        help="configuration overrides that IN does not determine, e.g. MODEL.LAST_STRIDE 1",
    )
    return parser


def pack() -> argparse.ArgumentParser:
    """Make the parser of `svdnet pack`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Write a trained network as .safetensors, without the training state of its checkpoint."
    )
    parser.add_argument("source", metavar="IN", type=Path, help="a checkpoint of this project or of another codebase")
    parser.add_argument("target", metavar="OUT", type=Path, help="a new .safetensors file")
    parser.add_argument("--no-classifier", action="store_true", help="remove the classifier, which only training needs")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    return parser


def dataset() -> argparse.ArgumentParser:
    """Make the parser of `svdnet dataset`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Generate synthetic pedestrians (layout of Market-1501 or DukeMTMC-reID) or landmarks (layout of "
        "revisited Oxford)."
    )
    parser.add_argument(
        "--size", default="demo", choices=("tiny", "demo", "market"), help="number of images (default: demo)"
    )
    parser.add_argument(
        "--layout", default="market", choices=("market", "duke", "revisited"), help="folder layout (default: market)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of identities and cameras (default: 0)")
    parser.add_argument("--output", required=True, type=Path, help="folder to create")
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet of size demo to this PNG file")
    return parser
