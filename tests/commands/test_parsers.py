"""The arguments of all commands, without what they import."""

from __future__ import annotations

import argparse
import dataclasses
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from reid import __version__, commands
from reid.commands import main_function, parse
from reid.commands.parsers import EXAMPLES, PARSERS, choices
from reid.config.keys import KEYS
from reid.data.loading.whole_images import LONGEST_SIDE
from reid.diagnostics.embedding_map import METHODS
from reid.evaluation.features import COMBINATIONS, ENGINES, FEATURES
from reid.evaluation.protocols import EXPANSIONS, PROTOCOLS
from reid.evaluation.whitening import WHITENINGS
from reid.inference.calibration.fit import RATES, REPLICATES
from reid.inference.embedder import DEMO
from reid.inference.export.formats import FORMATS
from reid.inference.export.interface import PREPROCESSINGS
from reid.inference.export.metadata import UNKNOWN
from reid.model.foreign import FAMILIES
from reid.ranking import METRICS, RerankOptions
from reid.report import tables
from reid.search.gallery import PATTERNS

ROOT = Path(__file__).parents[2]
OF_COMMANDS = {path.stem for path in (ROOT / "reid" / "commands").glob("*.py")} - {
    "__init__",
    "stage_scoring",
}  # of train
SCRIPTS = {"train_svdnet": "train", "make_dataset": "dataset", "visualize_ranks": "ranks", "profile_step": "profile"}
# Commands that take KEY VALUE -> words that must stand first, and options.
TAKE_PAIRS: dict[str, tuple[list[str], list[str]]] = {
    "train": (["--config-file", "a.yaml"], ["--resume"]),
    "profile": (["--config-file", "a.yaml"], ["--steps", "7"]),
    "evaluate": ([], ["--weights", "a", "--metric", "cosine"]),
    "extract": (["--part", "train"], ["--weights", "a", "--output", "b"]),
    "retrieve": ([], ["--weights", "a", "--dataset", "b"]),
    "ranks": ([], ["--weights", "a"]),
    "diagnose": ([], ["--groups", "a=2", "--weights", "a"]),
    "calibrate": ([], ["--weights", "a"]),
    "export": ([], ["--weights", "a", "--output", "b", "--flip"]),
    "convert": (["a", "b"], ["--family", "torchreid"]),
}


def test_every_command_has_a_parser_a_main_function_and_a_script() -> None:
    assert set(PARSERS) == OF_COMMANDS
    assert all(callable(main_function(name)) for name in PARSERS)
    scripts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "tools").glob("*.py")}
    assert {SCRIPTS.get(name, name) for name in scripts} == set(PARSERS)
    for name, text in scripts.items():
        assert f'run("{SCRIPTS.get(name, name)}")' in text


def test_choices_and_defaults_are_those_of_the_packages() -> None:
    assert choices.ENGINES == ENGINES and choices.FEATURES == FEATURES and choices.COMBINATIONS == COMBINATIONS
    assert choices.METRICS == METRICS and choices.PROTOCOLS == PROTOCOLS
    assert tuple(EXPANSIONS) == choices.EXPANSIONS and tuple(WHITENINGS) == choices.WHITENINGS
    assert dataclasses.asdict(RerankOptions()) == choices.RERANKING
    assert choices.LONGEST_SIDE == LONGEST_SIDE and tuple(METHODS) == choices.MAPS
    assert tuple(FAMILIES) == choices.FAMILIES and tuple(PATTERNS) == choices.CROP_PATTERNS
    assert tuple(FORMATS) == choices.EXPORT_FORMATS and choices.PREPROCESSINGS == PREPROCESSINGS
    assert tables.FORMATS == choices.FORMATS
    assert choices.UNKNOWN_LICENSE == UNKNOWN
    assert (choices.FALSE_MATCH_RATES, choices.REPLICATES) == (RATES, REPLICATES)


def test_help_is_sentences_with_defaults_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(EXAMPLES) == set(PARSERS)
    for name, make in PARSERS.items():
        for action in make()._actions:
            text = action.help or ""
            if isinstance(action, argparse._HelpAction):
                continue
            assert text[:1].isupper() and text.endswith("."), f"{name} {action.dest}: {text}"
            assert action.default in (None, False, "", 0, []) or "(default: " in text, f"{name} {action.dest}: {text}"
        example = parse(name, shlex.split(EXAMPLES[name]))
        assert example.arguments == tuple(shlex.split(EXAMPLES[name]))
        with pytest.raises(SystemExit):
            parse(name, ["--help"])
        assert f"\nExample:\n  svdnet {name} {EXAMPLES[name]}\n" in capsys.readouterr().out


def test_key_value_may_stand_anywhere_between_options(capsys: pytest.CaptureFixture[str]) -> None:
    takers = {name for name, make in PARSERS.items() if any(a.dest == "overrides" for a in make()._actions)}
    assert takers == set(TAKE_PAIRS)
    first, second = ["SEED", "-1"], ["INPUT.SIZE", "[32, 16]"]
    for name, (words, options) in TAKE_PAIRS.items():
        if words[:1] != ["--part"]:  # takes all that follows, up to the next option
            words = [*words, *first]
            expected = [*first, *second]
        else:
            expected = [*second]
        parsed = parse(name, [*words, *options, *second])
        assert parsed.overrides == expected, name
        assert all(getattr(parsed, option[2:].replace("-", "_")) for option in options if option.startswith("--"))
    with pytest.raises(SystemExit, match="2"):
        parse("train", ["--config-file", "a", "SEED", "1", "--rezume", "INPUT.PAD", "2"])
    assert "unrecognized arguments: --rezume" in capsys.readouterr().err
    assert parse("evaluate", ["A", "1", "--weights", "a"]).program == ("svdnet", "evaluate")


def test_three_ways_to_start_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(commands, "main_function", lambda name: seen.append)
    script = runpy.run_path(str(ROOT / "tools" / "make_dataset.py"))["run"]
    words = ["--output", "a b"]
    monkeypatch.setattr("sys.argv", ["tools/make_dataset.py", *words])
    assert script("dataset") == 0
    monkeypatch.setattr("sys.argv", ["/anywhere/bin/svdnet", "dataset", *words])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert commands.main() == 0
    monkeypatch.setattr("shutil.which", lambda name: f"/anywhere/bin/{name}")
    assert commands.main() == 0
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", "as with -m")
    assert commands.main() == commands.run("dataset", words) == 0
    assert [parsed.program for parsed in seen] == [
        ("tools/make_dataset.py",),
        ("/anywhere/bin/svdnet", "dataset"),
        ("svdnet", "dataset"),
        ("-m", "reid", "dataset"),
        ("svdnet", "dataset"),
    ]
    assert {parsed.arguments for parsed in seen} == {("--output", "a b")}
    for program, prog in (("svdnet", "svdnet dataset"), ("-m", "python -m reid dataset")):
        with pytest.raises(SystemExit):
            commands.run("dataset", ["--help"], program=(program, *(["reid"] if program == "-m" else []), "dataset"))
        assert capsys.readouterr().out.startswith(f"usage: {prog} [-h]")


def test_what_is_not_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"]):
        monkeypatch.setattr("sys.argv", ["svdnet", *words])
        assert commands.main() == 0
        listed = capsys.readouterr().out.splitlines()
        assert set(PARSERS) == {line.split()[0] for line in listed if line.startswith("  ")}
        assert all(len(line.split()) > 4 for line in listed if line.startswith("  "))
    monkeypatch.setattr("sys.argv", ["svdnet", "--version"])
    assert commands.main() == 0 and capsys.readouterr().out == f"svdnet {__version__}\n"
    monkeypatch.setattr("sys.argv", ["svdnet", "trian", "--config-file", "a"])
    assert commands.main() == 2
    err = capsys.readouterr().err
    assert "unknown command 'trian'; did you mean train" in err and err.count("\n") == 1


def test_only_the_first_process_of_a_host_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(SystemExit, match="2"):
            parse("train", [])
        assert ("--config-file" in capsys.readouterr().err) == (rank == "0")


def test_help_and_the_package_need_no_heavy_import() -> None:
    code = """
import contextlib, io, sys

from reid.commands import parse
from reid.commands.parsers import PARSERS

def loaded(*names):
    return sorted(set(names) & set(sys.modules))

for name in PARSERS:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        parse(name, ["--help"])
assert not loaded("numpy", "torch", "yaml", "PIL", "rich"), sys.modules.keys()
from reid import Embedder
assert loaded("torch")
assert not loaded("torchvision", "scipy", "sklearn", "matplotlib"), loaded("torchvision", "scipy", "sklearn")
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_keys_are_listed_with_default_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse("train", ["--help-keys"])  # although --config-file is missing
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if not line.startswith(" ")} == set(KEYS)
    assert "RRI.MAX_ROUNDS " + str(KEYS["RRI.MAX_ROUNDS"].default) in lines and max(map(len, lines)) <= 80


def test_weights_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(commands, "main_function", lambda name: seen.append)
    for name in ("evaluate", "diagnose", "ranks"):
        assert commands.run(name, ["--weights", "demo"]) == 0
        assert (seen[-1].weights, seen[-1].output) == (DEMO, Path("demo"))
    assert commands.run("evaluate", ["--weights", "demo", "--output", "a"]) == 0 and seen[-1].output == Path("a")
    assert commands.run("index", ["crops", "--weights", "demo"]) == 0 and seen[-1].weights == "demo"
    assert commands.run("evaluate", ["--weights", "dmeo"]) == 2
    assert "dmeo: no such file; did you mean demo" in capsys.readouterr().err
    monkeypatch.undo()
    assert commands.run("calibrate", ["--weights", "demo"]) == 2
    assert "calibrations are not stored in the package" in capsys.readouterr().err
