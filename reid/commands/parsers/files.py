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
    parser.add_argument(
        "--weights", required=True, type=Path, help="Checkpoint of this project or of another codebase."
    )
    parser.add_argument(
        "--output", required=True, type=Path, help="File to write, .onnx or .pt2; the card is written to FILE.md."
    )
    parser.add_argument("--format", choices=EXPORT_FORMATS, help="File format (default: by the suffix of --output).")
    add_feature(parser, default="TEST.FEATURE of the checkpoint")
    parser.add_argument("--no-normalize", action="store_true", help="Do not scale embeddings to unit length.")
    parser.add_argument(
        "--flip", action="store_true", help="Average the features of an image and its mirror image; twice the time."
    )
    parser.add_argument(
        "--preprocessing",
        choices=PREPROCESSINGS,
        default="tracker",
        help="What normalizes the images: with inside, the file, which takes uint8 RGB (default: tracker, the caller).",
    )
    parser.add_argument(
        "--check",
        action="append",
        type=Path,
        metavar="PATH",
        help="Images, or a folder of them, to verify the export with.",
    )
    parser.add_argument(
        "--license",
        "--licence",
        default=UNKNOWN_LICENSE,
        help="License of the model, e.g. mit or cc-by-nc-4.0 (default: unknown).",
    )
    parser.add_argument("--data", default="", help="Training data and its license, for the model card.")
    parser.add_argument(
        "--scores", type=Path, help="An evaluation.json for the card (default: search the checkpoint's run)."
    )
    parser.add_argument("--force", action="store_true", help="Replace existing files.")
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
        "source", metavar="IN", type=Path, help="Checkpoint of torchreid, fast-reid, reid-strong-baseline or layumi."
    )
    parser.add_argument("target", metavar="OUT", type=Path, help="A new .pth or .safetensors file.")
    parser.add_argument("--family", choices=FAMILIES, help="Codebase of IN (default: recognized from its weights).")
    add_overrides(parser, example="MODEL.LAST_STRIDE 1, where IN does not determine them")
    return parser


def pack() -> argparse.ArgumentParser:
    """Make the parser of `svdnet pack`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Write a trained network as .safetensors, without the training state of its checkpoint."
    )
    parser.add_argument("source", metavar="IN", type=Path, help="A checkpoint of this project or of another codebase.")
    parser.add_argument("target", metavar="OUT", type=Path, help="A new .safetensors file.")
    parser.add_argument(
        "--no-classifier", action="store_true", help="Remove the classifier, which only training needs."
    )
    parser.add_argument("--force", action="store_true", help="Replace OUT if it exists.")
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
        "--size", default="demo", choices=("tiny", "demo", "market"), help="Number of images (default: demo)."
    )
    parser.add_argument(
        "--layout", default="market", choices=("market", "duke", "revisited"), help="Folder layout (default: market)."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of identities and cameras (default: 0).")
    parser.add_argument("--output", required=True, type=Path, help="Folder to create.")
    parser.add_argument("--sheet", type=Path, help="Also write a contact sheet of size demo to this PNG file.")
    return parser
