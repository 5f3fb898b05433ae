"""The commands: each module reads the configuration, calls the packages below, and prints.

`svdnet NAME ...`, `python -m reid NAME ...` and the scripts in `tools/` all call `run`, which parses the arguments
before it imports the module of the command: that takes seconds, and `--help` does not need it.
"""

from __future__ import annotations

from reid.errors.command import run_command  # isort: split

import argparse
import contextlib
import importlib
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from reid import __version__
from reid.commands.parsers import EXAMPLES, PARSERS
from reid.errors import unknown_name
from reid.threads import prepare_threads


def main() -> int:
    """Run `svdnet` or `python -m reid` with the arguments of the process.

    Returns:
        The exit code, see `run_command`.
    """
    name, rest = sys.argv[1] if len(sys.argv) > 1 else "--help", sys.argv[2:]
    if name in PARSERS:
        return run(name, rest, program=(*_program(), name))
    return run_command(lambda: _describe(name))


def run(name: str, arguments: Sequence[str] | None = None, *, program: Sequence[str] = ()) -> int:
    """Run a command.

    Args:
        name: Name of the command.
        arguments: Its arguments; None for those of the process, which is then a script of `tools/`.
        program: Words of a shell command that start the command, without "python", for messages; empty for the script,
            or for `svdnet NAME` if there are arguments.

    Returns:
        The exit code, see `run_command`.

    Raises:
        SystemExit: With 0 after `--help`, with 2 for wrong arguments.
    """
    prepare_threads()  # before PyTorch is imported
    if arguments is None:
        program, arguments = sys.argv[:1], sys.argv[1:]

    def main() -> None:
        parsed = parse(name, arguments, program)
        # Where a program reads the result, everything else goes to stderr.
        apart = getattr(parsed, "format", None) in ("json", "csv")
        with contextlib.redirect_stdout(sys.stderr) if apart else contextlib.nullcontext():
            command = main_function(name)
            _find_weights(parsed)
            command(parsed)

    return run_command(main)


def parse(name: str, arguments: Sequence[str], program: Sequence[str] = ()) -> argparse.Namespace:
    """Parse the arguments of a command.

    Args:
        name: Name of the command.
        arguments: Its arguments, where KEY VALUE may stand between any two options.
        program: Same as in `run`.

    Returns:
        The options; `program` and `arguments` for the line that says how to repeat the command; and `result`, the
        stream that its result is printed to.

    Raises:
        SystemExit: With 0 after `--help`, with 2 for wrong arguments.
    """
    parser = PARSERS[name]()
    program = tuple(program or ("svdnet", name))
    parser.prog = _usage(program)
    # The example stays on one line, to be copied.
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = textwrap.fill(parser.description or "", shutil.get_terminal_size().columns - 2)
    parser.epilog = f"Example:\n  {parser.prog} {EXAMPLES[name]}"
    with _once_per_host():
        parsed = parser.parse_intermixed_args(arguments)
    parsed.program, parsed.arguments, parsed.result = program, tuple(arguments), sys.stdout
    return parsed


def main_function(name: str) -> Callable[[argparse.Namespace], None]:
    """Import a command, which takes seconds.

    Args:
        name: Name of the command.

    Returns:
        Its function `main`, which takes what `parse` returns.
    """
    main: Callable[[argparse.Namespace], None] = importlib.import_module(f"reid.commands.{name}").main
    return main


def _find_weights(arguments: argparse.Namespace) -> None:
    """Replace the name of a model by its path; index, search and serve, whose index holds the name, do it later."""
    if not isinstance(weights := getattr(arguments, "weights", None), Path):
        return
    from reid.inference.embedder import DEMO, checkpoint_path

    arguments.weights = checkpoint_path(weights)
    # Nothing is written beside the model in the package.
    if arguments.weights == DEMO and getattr(arguments, "output", "") is None:
        arguments.output = Path("demo")


def _program() -> tuple[str, ...]:
    """The words that start this process, without "python"."""
    if getattr(sys.modules["__main__"], "__spec__", None) is not None:
        return "-m", "reid"
    path = sys.argv[0]
    name = os.path.basename(path)
    return (name if shutil.which(name) == path else path,)


def _usage(program: Sequence[str]) -> str:
    return " ".join(("python", *program) if program[0] == "-m" else (os.path.basename(program[0]), *program[1:]))


@contextlib.contextmanager
def _once_per_host() -> Iterator[None]:
    """Silence stderr in all processes of torchrun but the first."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as devnull, contextlib.redirect_stderr(devnull):
        yield


def _describe(name: str) -> None:
    """Answer what is not a command: --help, --version, or an unknown name."""
    if name == "--version":
        print(f"svdnet {__version__}")
    elif name in ("-h", "--help", "help"):
        print(f"usage: {_usage(_program())} COMMAND ...\n\ncommands:")
        for command, make_parser in PARSERS.items():
            sentence = " ".join((make_parser().description or "").split()).partition(". ")[0].rstrip(".")
            print(f"  {command:<10} {sentence}")
        print("\nsvdnet COMMAND --help describes the arguments of a command.")
    else:
        raise unknown_name("command", name, PARSERS)
