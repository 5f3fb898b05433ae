"""Parsers of the commands around an index of crops: index, search, serve, calibrate."""

from __future__ import annotations

import argparse
from pathlib import Path

from reid.commands.parsers.arguments import (
    add_device,
    add_engine,
    add_feature,
    add_format,
    add_index,
    add_overrides,
    numbers,
)
from reid.commands.parsers.choices import CROP_PATTERNS, FALSE_MATCH_RATES, REPLICATES, TOKEN_VARIABLE


def index() -> argparse.ArgumentParser:
    """Make the parser of `svdnet index`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Build an index of a folder of crops, or bring it up to date: only new and changed images are "
        "embedded."
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="Crops, in subfolders of any depth.")
    add_index(parser)
    parser.add_argument("--weights", metavar="FILE", help="Checkpoint, or demo (default: that of the index).")
    add_device(parser)
    add_engine(parser)
    add_feature(parser)
    parser.add_argument("--flip", action="store_true", help="Average the features of a crop and its mirror image.")
    known = ", ".join(CROP_PATTERNS)
    parser.add_argument(
        "--pattern", help=f"How file names are read: {known}, or your own, e.g. {{identity}}/cam{{camera}}_{{time}}."
    )
    parser.add_argument(
        "--broken", choices=("skip", "error"), default="skip", help="What to do with unreadable images (default: skip)."
    )
    parser.add_argument(
        "--reread", action="store_true", help="Read all files again, even those of unchanged size and time."
    )
    parser.add_argument(
        "--features",
        metavar="FOLDER",
        type=Path,
        help="Take the features from these shards of svdnet extract, e.g. features/input/gallery.",
    )
    parser.add_argument("--moved", action="store_true", help="The folder was moved since it was indexed.")
    parser.add_argument("--shard", type=int, metavar="N", help="Feature rows per file (default: 65536).")
    parser.add_argument(
        "--faiss-beyond",
        type=int,
        metavar="N",
        help="Build a FAISS index if there are more than N images; remembered for later runs.",
    )
    parser.add_argument(
        "--recall",
        action="store_true",
        help="Measure the recall of Milvus now, by reading all features; done anyway up to 1,000,000 images.",
    )
    parser.add_argument("--remove", nargs="+", metavar="GLOB", help="Remove matching images, e.g. 'cam3/*', and exit.")
    parser.add_argument("--restore", nargs="+", metavar="GLOB", help="Restore matching removed images and exit.")
    parser.add_argument(
        "--compact", action="store_true", help="Drop the features of removed and deleted images and exit."
    )
    parser.add_argument(
        "--check", action="store_true", help="Check the manifest, all features and the FAISS index, and exit."
    )
    return parser


def search() -> argparse.ArgumentParser:
    """Make the parser of `svdnet search`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Find the most similar images of an index, shown in the terminal and as a page."
    )
    parser.add_argument("crops", metavar="CROP", nargs="+", type=Path, help="Query images.")
    add_index(parser)
    _add_moved_weights(parser)
    add_device(parser)
    add_engine(parser)
    parser.add_argument("--top", type=int, default=10, metavar="K", help="Results per query (default: 10).")
    parser.add_argument("--camera", nargs="+", metavar="C", help="Only results from these cameras.")
    parser.add_argument(
        "--time", metavar="FROM..TO", help="Only results from this time range: numbers or dates as in the file names."
    )
    parser.add_argument(
        "--exclude-same-file", action="store_true", help="Exclude images byte for byte identical to the query."
    )
    parser.add_argument("--mean", action="store_true", help="Average all crops of one person into one query.")
    _add_prior(parser)
    parser.add_argument(
        "--faiss-beyond", type=int, metavar="N", help="Use the FAISS index if there are more than N images."
    )
    parser.add_argument("--output", type=Path, metavar="PAGE.html", help="Also write a page with images.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Also write the results as JSON.")
    return parser


def serve() -> argparse.ArgumentParser:
    """Make the parser of `svdnet serve`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Serve a page on this machine to search an index with an image of a person."
    )
    add_index(parser)
    _add_moved_weights(parser)
    add_device(parser)
    add_engine(parser)
    parser.add_argument(
        "--port", type=int, default=8000, help="Port to listen on, 0 for any free port (default: 8000)."
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="Address to listen on (default: 127.0.0.1, this machine only)."
    )
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument(
        "--token",
        nargs="?",
        const="",
        metavar="T",
        help="Require a token: generate and print one; a value T is visible to other users, so prefer --token-file.",
    )
    tokens.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"Require the token in a file (default: that in the environment variable {TOKEN_VARIABLE}, if set).",
    )
    _add_prior(parser)
    return parser


def calibrate() -> argparse.ArgumentParser:
    """Make the parser of `svdnet calibrate`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Calibrate the distances of a model: thresholds for false-match rates, and the match probability."
    )
    parser.add_argument("--weights", type=Path, help="Checkpoint in which to store the calibration.")
    parser.add_argument("--features", type=Path, help="Labeled features to use instead of the checkpoint's dataset.")
    parser.add_argument("--config-file", type=Path, help="Use DATASETS of this file, preferably not the training data.")
    add_device(parser)
    add_engine(parser)
    add_feature(parser)
    parser.add_argument("--flip", action="store_true", help="Average the features of an image and its mirror image.")
    parser.add_argument(
        "--rates", type=numbers, default=list(FALSE_MATCH_RATES), help="False-match rates (default: 0.01,0.001,0.0001)."
    )
    parser.add_argument("--prior", type=float, metavar="P", help="Share of matching pairs (default: that of the data).")
    parser.add_argument(
        "--replicates", type=int, default=REPLICATES, help=f"Bootstrap replicates (default: {REPLICATES})."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of the bootstrap and the folds (default: 0).")
    parser.add_argument("--output", type=Path, metavar="FILE", help="Also write the calibration as JSON.")
    add_format(parser)
    add_overrides(parser)
    return parser


def _add_moved_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", metavar="FILE", help="The checkpoint, if it was moved since indexing.")


def _add_prior(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prior",
        type=float,
        metavar="P",
        help="Share of matching pairs assumed in probabilities (default: that of the calibration).",
    )
