"""Parsers of the commands that measure: evaluate, extract, retrieve, ranks, diagnose, attend."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from reid.commands.parsers.arguments import add_format, add_overrides, numbers
from reid.commands.parsers.choices import (
    COMBINATIONS,
    EXPANSIONS,
    FEATURES,
    LONGEST_SIDE,
    MAPS,
    METRICS,
    PARTS,
    PROTOCOLS,
    RERANKING,
    WHITENINGS,
)


def evaluate() -> argparse.ArgumentParser:
    """Make the parser of `svdnet evaluate`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Evaluate a checkpoint, or saved features of this or another codebase."
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", type=Path, help="Checkpoint of this project or of another codebase.")
    source.add_argument(
        "--features", type=Path, help="Features in a .npz, a .mat, or arrays with labels; see reid/io/feature_files."
    )
    parser.add_argument("--ground-truth", type=Path, help="Ground truth of revisited Oxford / Paris, .pkl or .json.")
    parser.add_argument("--config-file", type=Path, help="Use DATASETS and TEST of this file.")
    parser.add_argument("--output", type=Path, help="Folder for evaluation.json (default: next to the input).")
    parser.add_argument("--save-features", action="store_true", help="Also write features_{input,output}.npz.")
    parser.add_argument("--metric", choices=METRICS, default="euclidean", help="Distance (default: euclidean).")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="market",
        help="Protocol besides that of Market-1501 (default: market).",
    )
    parser.add_argument("--repeats", type=int, default=100, help="Samples per query for single-shot (default: 100).")
    parser.add_argument(
        "--seed", type=int, default=0, help="Seed of the sampled pairs and single-shot galleries (default: 0)."
    )
    parser.add_argument(
        "--roc", action="store_true", help="Also compute the ROC curve of all pairs and TPR at fixed FPR."
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="Also write the K nearest of each query, top_k_*.npz.")
    _add_rerank_and_expand(parser)
    _add_whiten(
        parser,
        "Also evaluate whitened L2-normalized features.",
        "Training features to fit the whitening on, with --features.",
    )
    add_format(parser)
    add_overrides(parser)
    return parser


def _add_rerank_and_expand(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rerank", action="store_true", help="Also evaluate k-reciprocal re-ranking with --k1, --k2, ..."
    )
    for name, value in RERANKING.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(value),
            default=value,
            help=f"Parameter of re-ranking (default: {value}).",
        )
    parser.add_argument(
        "--expand", choices=EXPANSIONS, default="", help="Also evaluate query expansion of L2-normalized features."
    )
    parser.add_argument("--augment", action="store_true", help="Also evaluate database-side augmentation.")
    parser.add_argument(
        "--neighbors",
        "--neighbours",
        type=int,
        default=0,
        help="Neighbors for --expand and --augment (default: 5 for aqe, 10 for alpha).",
    )
    parser.add_argument(
        "--alpha", type=float, default=3.0, help="Exponent of the cosine for --expand and --augment (default: 3)."
    )


def _add_whiten(parser: argparse.ArgumentParser, purpose: str, source: str) -> None:
    parser.add_argument("--whiten", choices=WHITENINGS, default="", help=purpose)
    parser.add_argument("--whiten-dim", type=int, default=0, metavar="D", help="Dimensions kept (default: all).")
    parser.add_argument(
        "--whiten-ridge",
        type=float,
        default=0.0,
        help="Ridge of learned whitening, e.g. 1e-3 if pairs differ too little (default: 0).",
    )
    parser.add_argument("--whiten-from", type=Path, metavar="FILE", help=source)


def extract() -> argparse.ArgumentParser:
    """Make the parser of `svdnet extract`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Extract features of a large set of images shard by shard, in one process or several with "
        "torchrun; resumable."
    )
    parser.add_argument(
        "--weights", required=True, type=Path, help="Checkpoint of this project or of another codebase."
    )
    parser.add_argument("--output", required=True, type=Path, help="Output folder, shared by all hosts.")
    parser.add_argument(
        "--part",
        nargs="+",
        choices=PARTS,
        default=["query", "gallery"],
        help="Parts of the dataset (default: query gallery).",
    )
    parser.add_argument(
        "--feature", choices=(*FEATURES, "both"), default="both", help="Side of the Eigenlayer (default: both)."
    )
    parser.add_argument("--shard", type=int, default=10_000, metavar="N", help="Images per file (default: 10000).")
    parser.add_argument("--config-file", type=Path, help="Use DATASETS and TEST of this file.")
    add_overrides(parser)
    return parser


def retrieve() -> argparse.ArgumentParser:
    """Make the parser of `svdnet retrieve`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Retrieve landmarks: describe the images of revisited Oxford / Paris with a checkpoint and score "
        "the ranking."
    )
    parser.add_argument(
        "--weights", type=Path, required=True, help="Checkpoint of this project or of another codebase."
    )
    parser.add_argument(
        "--dataset", required=True, help="The dataset: roxford5k, rparis6k, or a folder of the same layout."
    )
    root = Path(os.environ.get("REID_DATA") or "datasets")
    parser.add_argument(
        "--root", type=Path, default=root, help="Folder of the datasets (default: REID_DATA, else datasets/)."
    )
    parser.add_argument(
        "--longest-side",
        type=int,
        default=LONGEST_SIDE,
        metavar="N",
        help=f"Shrink images to at most N pixels (default: {LONGEST_SIDE}).",
    )
    parser.add_argument("--scales", type=numbers, default=[1.0], help="Image scales, e.g. 1,0.7071,0.5 (default: 1).")
    parser.add_argument(
        "--combine",
        choices=COMBINATIONS,
        default="mean",
        help="How to combine the scales; gem uses GeM's exponent (default: mean).",
    )
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="Images of one size per batch (default: 1)."
    )
    _add_whiten(
        parser, "Also evaluate whitened features.", "Training features (default: the checkpoint's training set)."
    )
    parser.add_argument("--output", type=Path, help="Folder for retrieval.json (default: next to the checkpoint).")
    parser.add_argument("--save-features", action="store_true", help="Also write query.npy and gallery.npy.")
    add_format(parser)
    add_overrides(parser, example="TEST.FEATURE output")
    return parser


def ranks() -> argparse.ArgumentParser:
    """Make the parser of `svdnet ranks`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Show queries with their top-ranked images, for one checkpoint or two side by side: "
        "`ranked_lists.html`."
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", type=Path, help="Checkpoint of this project or of another codebase.")
    source.add_argument("--features", type=Path, help="Features in an .npz file whose paths are those of the images.")
    parser.add_argument("--against", type=Path, help="A second checkpoint or feature file to compare with.")
    parser.add_argument("--config-file", type=Path, help="Use DATASETS and TEST of this file.")
    parser.add_argument(
        "--output", type=Path, help="Output folder (default: ranks_NAME in the run folder or next to the file)."
    )
    parser.add_argument("--queries", type=int, default=200, help="Queries to list, at most 500 (default: 200).")
    parser.add_argument("--top", type=int, default=10, help="Images per query (default: 10).")
    parser.add_argument(
        "--map", default="pca", choices=(*MAPS, "none"), help="Projection of the embedding (default: pca)."
    )
    add_overrides(parser)
    return parser


def diagnose() -> argparse.ArgumentParser:
    """Make the parser of `svdnet diagnose`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Measure the correlation of a network's weight vectors and, given a dataset, its effect on "
        "retrieval."
    )
    parser.add_argument("--weights", required=True, type=Path, help="Checkpoint of a run, or any file of weights.")
    parser.add_argument("--layer", help="Name of one layer to diagnose in detail instead of a survey of all.")
    parser.add_argument(
        "--against", type=Path, help="An earlier file of weights: compare the two layer by layer instead."
    )
    parser.add_argument("--config-file", type=Path, help="Also use the dataset of this file (checkpoints of a run).")
    parser.add_argument(
        "--output",
        type=Path,
        help="Folder for diagnosis.{json,html} (default: diagnosis_NAME in the run folder or next to the weights).",
    )
    parser.add_argument(
        "--groups", action="append", default=[], metavar="NAME=G", help="Number of groups of a convolution."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of the random matrices for comparison (default: 0).")
    add_format(parser)
    add_overrides(parser)
    return parser


def attend() -> argparse.ArgumentParser:
    """Make the parser of `svdnet attend`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Visualize a checkpoint's pooling: the attention of CroW or weighted pooling, the clusters of VLAD."
    )
    parser.add_argument(
        "--weights", required=True, type=Path, help="Checkpoint of this project or of another codebase."
    )
    parser.add_argument("--output", type=Path, default=Path("attention"), help="Output folder (default: attention).")
    parser.add_argument("image", type=Path, nargs="+", help="Images of persons.")
    return parser
