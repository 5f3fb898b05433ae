"""`tools/visualize_ranks.py` as a user calls it, on a drawn dataset and on saved features."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from called import Tool
from untrained import save_untrained

from reid.config.loading import load_config
from reid.io.feature_files import save_features
from reid.records import Features

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkpoints(quick: tuple[str, ...], tmp_path: Path) -> tuple[Path, Path]:
    """An RRI checkpoint and its control's, of networks that are not trained, as a run folder would hold them."""
    config = load_config(ROOT / "configs" / "demo_synthetic.yaml", quick)
    rows = [{"stage": "step0", "round": 0, "epochs": 2}, {"stage": "restraint", "round": 1, "epochs": 1}]

    def save(run: str, seed: int) -> Path:
        path = tmp_path / "run" / "checkpoints" / f"{run}_last.pth"
        position = {"run": run, "stage": "", "round": 1, "epoch": 0}
        return save_untrained(path, config, classes=4, seed=seed, position=position, rows=rows)

    return save("rri", 0), save("control", 1)


def features(seed: int, paths: bool = True, queries: int = 10) -> tuple[Features, Features]:
    random = np.random.default_rng(seed)

    def part(name: str, count: int) -> Features:
        labels = np.arange(count) % 5 + 1, np.arange(count) // 5 % 3 + 1
        files = tuple(f"/nowhere/{name}{i}.jpg" for i in range(count)) if paths else ()
        return Features(random.normal(size=(count, 4)).astype(np.float32), *labels, files)

    return part("q", queries), part("g", 30)


def test_one_checkpoint_is_scored_as_evaluate_scores_it(
    tool: Tool, checkpoints: tuple[Path, Path], tmp_path: Path
) -> None:
    output, overrides = tmp_path / "shown", ("TEST.NORMALIZED", "True", "TEST.FEATURE", "output", "TEST.FLIP", "True")
    ended = tool("ranks", "--weights", checkpoints[0], "--output", output, "--queries", "6", "--top", "3", *overrides)
    ended.ok()
    found = json.loads((output / "ranked_lists.json").read_text())
    tool("evaluate", "--weights", checkpoints[0], "--output", output, *overrides).ok()
    scores = json.loads((output / "evaluation.json").read_text())["scores"]
    assert found["sides"][0]["scores"] in scores
    assert [found["sides"][0]["scores"][name] for name in ("feature", "normalized", "flip")] == ["output", True, True]
    assert len(found["lists"]) == 6 and len(found["lists"][0]["sides"][0]["answers"]) == 3
    assert found["sides"][0]["map"]["method"] == "pca"
    page = (output / "ranked_lists.html").read_text()
    assert page.count("data:image/jpeg") > 6 and "no image" not in page
    assert "rri_last.pth: rank-1" in ended.out and "ranked_lists.html" in ended.out


def test_rri_beside_its_control(tool: Tool, checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    ended = tool("ranks", "--weights", checkpoints[0], "--against", checkpoints[1], "--map", "none").ok()
    folder = checkpoints[0].parents[1] / "ranks_rri_last_vs_control_last"
    found = json.loads((folder / "ranked_lists.json").read_text())
    assert [side["name"] for side in found["sides"]] == ["rri_last.pth", "control_last.pth"]
    assert found["comparison"]["name"] == "gain of RRI"
    assert set(found["comparison"]["intervals"]) == {"rank1", "mAP", "mINP"}
    assert re.search(r"gain of RRI: rank-1 [+-]\d+\.\d \([+-].*\), mAP .*95 % intervals; ", ended.out)
    assert f"fixed: {found['comparison']['repaired']}, broken: {found['comparison']['broken']}" in ended.out
    assert [side["map"] for side in found["sides"]] == [None, None]
    turned = tool("ranks", "--weights", checkpoints[1], "--against", checkpoints[0], "--queries", "0").ok()
    assert "difference: rank-1" in turned.out and "gain of RRI" not in turned.out
    assert "gain of RRI:" in ended.out


def test_features_saved_before(tool: Tool, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        save_features(tmp_path / f"{name}.npz", *features(seed), feature="input")
    tool("ranks", "--features", tmp_path / "a.npz", "--against", tmp_path / "b.npz").ok()
    found = json.loads((tmp_path / "ranks_a_vs_b" / "ranked_lists.json").read_text())
    assert found["dataset"] == "a.npz" and found["comparison"]["name"] == "difference"
    assert "no image" in (tmp_path / "ranks_a_vs_b" / "ranked_lists.html").read_text()


def test_features_without_paths(tool: Tool, tmp_path: Path) -> None:
    save_features(tmp_path / "a.npz", *features(0, paths=False), feature="input")
    tool("ranks", "--features", tmp_path / "a.npz", "--output", tmp_path / "out").ok()
    assert "no image" in (tmp_path / "out" / "ranked_lists.html").read_text()


def test_mistakes_are_told_in_one_line(tool: Tool, checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    save_features(tmp_path / "a.npz", *features(0), feature="input")
    save_features(tmp_path / "b.npz", *features(0, queries=9), feature="input")
    (tmp_path / "text.pth").write_text("no checkpoint")
    (tmp_path / "file").write_text("")
    told = {
        "one side only": ("--features", tmp_path / "a.npz", "--against", tmp_path / "b.npz"),
        "compared with itself": ("--features", tmp_path / "a.npz", "--against", tmp_path / "a.npz"),
        "takes no configuration": ("--features", tmp_path / "a.npz", "TEST.FLIP", "True"),
        "0 to 500 queries": ("--features", tmp_path / "a.npz", "--queries", "501"),
        "not 51": ("--features", tmp_path / "a.npz", "--top", "51"),
        "not a checkpoint": ("--weights", checkpoints[0], "--against", tmp_path / "text.pth"),
        "no such checkpoint": ("--weights", tmp_path / "none.pth"),
        "did you mean": ("--weights", checkpoints[0], "TEST.FEATUR", "output"),
        "give another path": ("--features", tmp_path / "a.npz", "--output", tmp_path / "file"),
    }
    for message, arguments in told.items():
        ended = tool("ranks", *arguments)
        assert ended.code == 2, (message, ended.err)
        line = ended.err.strip().splitlines()[-1]
        assert line.startswith("error:") and message in line, line
