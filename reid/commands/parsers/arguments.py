"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from reid.commands.parsers.choices import ENGINES, FEATURES, FORMATS


def add_overrides(parser: argparse.ArgumentParser, *, example: str = "DATASETS.ROOT data") -> None:
    """Add the pairs KEY VALUE, which may stand anywhere between the options.

    Args:
        parser: Parser to extend.
        example: Pairs for the help text.
    """
    parser.add_argument(
        "--help-keys",
        action=_HelpKeys,
        nargs=0,
        help="Show the keys of the configuration with defaults and exit.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY VALUE",
        help=f"Keys of the configuration with new values, such as {example}.",
    )


class _HelpKeys(argparse.Action):
    """Prints the keys of the configuration, whose declarations take seconds to import, and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> None:
        from reid.config.table import plain

        print(plain())
        parser.exit()


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device, for commands without a configuration.

    Args:
        parser: Parser to extend.
    """
    parser.add_argument(
        "--device", default="auto", help="Device to compute on: auto, cpu, cuda or cuda:N (default: auto)."
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add --engine, for commands without a configuration.

    Args:
        parser: Parser to extend.
    """
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="What embeds images (default: auto, on a CPU the fastest installed engine that agrees with PyTorch).",
    )


def add_feature(parser: argparse.ArgumentParser, *, default: str = "that of the checkpoint") -> None:
    """Add --feature, the side of the Eigenlayer.

    Args:
        parser: Parser to extend.
        default: What the help text says about the default.
    """
    parser.add_argument("--feature", choices=FEATURES, help=f"Side of the Eigenlayer (default: {default}).")


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add --format, the form of the result on stdout.

    Args:
        parser: Parser to extend.
    """
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="table",
        help="Form of the result; with json and csv, everything else is printed on stderr (default: table).",
    )


def add_index(parser: argparse.ArgumentParser) -> None:
    """Add --index and --store, the place of an index of crops.

    Args:
        parser: Parser to extend.
    """
    parser.add_argument(
        "--index",
        type=Path,
        default=Path("index"),
        metavar="PATH",
        help="Index folder, or the name of the collection in --store (default: index).",
    )
    parser.add_argument(
        "--store",
        metavar="milvus:URI",
        help="Keep the index in Milvus: at http://HOST:19530, or in a local file FILE.db.",
    )


def numbers(text: str) -> list[float]:
    """Parse comma-separated numbers.

    Args:
        text: Such as "1,0.7071,0.5".

    Returns:
        The numbers.

    Raises:
        argparse.ArgumentTypeError: If a part is not a number.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be comma-separated numbers, such as 0.5,0.1, not {text!r}") from None
