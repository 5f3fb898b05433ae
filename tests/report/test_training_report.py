"""The training report shows the files of a run, finished or not."""

from __future__ import annotations

import html
import json
import math
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from html_page import Page, percent
from PIL import Image
from synthetic_run import SyntheticRun

from reid.errors import InputError
from reid.report.pages import check_available
from reid.report.training import write_report


def test_the_numbers_are_those_of_the_files(tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path)
    page = Page(write_report(run.write()))
    head, *rows = page.tables["stages"]
    assert head == ["run", "stage", "round", "epochs", "seconds", "loss", "S(W)", "rank-1", "mAP"]
    assert len(rows) == len(run.rows)
    for shown, row in zip(rows, run.rows, strict=True):
        loss = f"{row['train_loss']:.3f}"
        if row["stage"] == "decorrelate":
            loss = f"{row['train_loss_before']:.3f} → {row['train_loss_after']:.3f}"
        assert shown[0].lower() == row["run"]
        assert shown[1].lower().replace(" ", "").removeprefix("final") == row["stage"]
        assert shown[1].startswith("final") == (row["round"] == 3)
        assert shown[2:4] == [str(row["round"] or "–"), str(row["epochs"] or "–")]
        assert math.isclose(float(shown[4]), row["seconds"], abs_tol=0.051)
        score = row["scores"][0]
        assert shown[5:] == [loss, f"{row['correlation']:.4f}", percent(score["rank1"]), percent(score["mAP"])]

    finals = [next(row for row in reversed(run.rows) if row["run"] == name) for name in ("rri", "control")]
    expected = [
        [
            *(row["run"].upper() if row["run"] == "rri" else "control", "final Restraint", score["feature"]),
            *("L2" if score["normalized"] else "raw", "yes" if score["flip"] else "no"),
            *(percent(score[name]) for name in ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP")),
        ]
        for row in finals
        for score in row["scores"]
    ]
    assert page.tables["scores"][1:] == expected
    assert len(expected) == 16

    final, control = run.summary["final"], run.summary["control_final"]
    assert page.texts["final"] == f"{percent(final['rank1'])} / {percent(final['mAP'])}"
    assert page.texts["control"] == f"{percent(control['rank1'])} / {percent(control['mAP'])}"
    gain = [round(100 * final[name], 1) - round(100 * control[name], 1) for name in ("rank1", "mAP")]
    assert page.texts["gain"] == f"{gain[0]:+.1f} / {gain[1]:+.1f}"
    assert page.texts["ending"].startswith("Converged after 2 rounds")
    assert "note" not in page.texts and "unread" not in page.texts


def test_the_story_and_the_order(tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path)
    run.summary["difference"] = {"rank1": [0.01, -0.02, 0.04], "mAP": [0.03, 0.01, 0.05], "mINP": [0.0, -0.1, 0.1]}
    page = Page(write_report(run.write()))
    final, control = run.summary["final"], run.summary["control_final"]
    story = page.texts["story"]
    assert "for 17 epochs: Step 0, then 2 rounds of decorrelation" in story and "and a final Restraint." in story
    assert f"right for {percent(final['rank1'])} % of the queries (rank-1), mAP is {percent(final['mAP'])} %" in story
    assert f"reaches {percent(control['rank1'])} % and {percent(control['mAP'])} %: a gain of" in story
    assert page.source.index('id="section-charts"') < page.source.index('id="stages"')
    links = [attributes["href"] for attributes in page.find("a")]
    assert links and all(f'id="{link[1:]}"' in page.source for link in links)


def test_an_interval_that_includes_zero_may_be_chance(tmp_path: Path) -> None:
    from reid.report.summary import _gain

    outcome = {
        "gain": {"rank1": 1.0, "mAP": 3.0},
        "difference": {"rank1": [0.01, -0.02, 0.04], "mAP": [0.03, 0.01, 0.05]},
    }
    assert _gain(outcome, "mAP", "mAP") == "+3.0 points of mAP (95 % interval +1.0 to +5.0)"
    assert "interval -2.0 to +4.0, which chance alone may explain" in _gain(outcome, "rank1", "rank-1")
    assert _gain({**outcome, "difference": None}, "rank1", "rank-1") == "+1.0 points of rank-1"


def test_examples_of_repaired_and_broken_queries(tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path / "run", rounds=1).write()
    Image.new("RGB", (8, 16), (200, 0, 0)).save(tmp_path / "a.png")
    answer = {"rank": 1, "path": str(tmp_path / "a.png"), "identity": 3, "camera": 1, "distance": 1.0, "right": True}
    side = {"first_hit": 1, "average_precision": 0.5, "answers": [answer]}
    entry = {"query": 4, "path": "/none.png", "identity": 3, "camera": 2, "matches": 5, "difference": 0.25}
    entry |= {"change": "repaired", "sides": [side, {**side, "first_hit": 7}]}
    content = {"names": ["RRI", "control"], "queries": 9, "repaired": 1, "broken": 0, "lists": [entry]}
    (run / "examples.json").write_text(json.dumps(content))
    page = Page(write_report(run))
    assert "from wrong to right for 1 of 9 queries" in page.words and "AP +25.0" in page.words.replace("\xa0", " ")
    assert len(page.find("image")) == 1 and "1 image could not be read" in page.words
    assert str(tmp_path) not in page.source
    for broken in (
        "[",
        json.dumps({**content, "names": []}),
        json.dumps({**content, "lists": [{**entry, "sides": 3}]}),
    ):
        (run / "examples.json").write_text(broken)
        assert "section-examples" not in write_report(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a whole run with its charts."""
    return Page(write_report(SyntheticRun(tmp_path_factory.mktemp("drawn")).write()))


def test_the_page_is_self_contained(drawn: Page) -> None:
    page = drawn
    assert "http://" not in page.source and "https://" not in page.source
    for tag, attributes in page.tags:
        assert tag not in ("script", "img", "link", "iframe")
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#"), f"{tag} requests {value}"
    # S(W) and the loss are drawn twice, for wide and for narrow screens.
    assert len(page.charts) == 8
    for chart in page.charts:
        ElementTree.fromstring(chart)
    described = [a for _, a in page.tags if a.get("role") == "img"]
    assert len(described) == 6 and all(len(a["aria-label"] or "") > 40 for a in described)
    # Every id that a drawing refers to exists once in the page.
    names = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(names) == len(set(names))
    drawn = "".join(page.charts)
    used = {first or second for first, second in re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", drawn)}
    assert used and used <= set(names)


def test_charts_take_the_colors_of_the_page(drawn: Page) -> None:
    page = drawn
    used = set(re.findall(r"var\(--(\w+)\)", "".join(page.charts)))
    assert used == {"ink", "grid", "rri", "control", "step0", "restraint", "relaxation"}
    light, dark = re.findall(r":root \{(.*?)\}", page.source, flags=re.DOTALL)
    for name in used:
        assert f"--{name}:" in light and f"--{name}:" in dark
    assert not re.search(r"(fill|stroke): *#[0-9a-f]", "".join(page.charts))


def test_long_run_stays_small_and_twice_the_same(tmp_path: Path, drawn_charts: None) -> None:
    folder = SyntheticRun(tmp_path, rounds=6, size=2048).write()
    first = write_report(folder).read_bytes()
    assert len(first) < 500_000
    assert write_report(folder).read_bytes() == first


def test_names_are_escaped(tmp_path: Path, drawn_charts: None) -> None:
    run = SyntheticRun(tmp_path, rounds=1)
    evil = "<script>alert('1')</script>&"
    run.summary["dataset"] = evil
    run.lines[0]["command"] = evil
    folder = run.write()
    config = (folder / "config.yaml").read_text().replace("osnet_x0_25", json.dumps(evil))
    (folder / "config.yaml").write_text(config)
    page = Page(write_report(folder))
    assert "<script" not in page.source
    assert html.escape(evil, quote=False).replace("'", "&#39;") in page.source
    assert page.texts["h1"] == f"SVDNet on {evil}"
    assert ["command", evil] in page.tables["provenance"]


def test_no_control_no_gain(tmp_path: Path, drawn_charts: None) -> None:
    page = Page(write_report(SyntheticRun(tmp_path, control=False).write()))
    assert "gain" not in page.texts and "control" not in page.texts
    assert page.texts["note"].startswith("No control was trained, so no gain is reported")
    assert all(row[0] == "RRI" for row in page.tables["stages"][1:])
    assert "var(--control)" not in "".join(page.charts)


def test_no_gain_before_the_control_has_ended(tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path)
    missing = run.rows.pop()
    run.lines = [line for line in run.lines if (line["kind"], line.get("run")) != ("final", "control")]
    run.lines.remove(next(line for line in reversed(run.lines) if line["kind"] == "stage"))
    assert missing["run"] == "control"
    page = Page(write_report(run.write()))
    assert "gain" not in page.texts
    assert "control has not ended" in page.texts["note"]
    assert page.texts["ending"].endswith("The log ends with control, final Restraint, epoch 3.")


def test_interrupted_run(tmp_path: Path, drawn_charts: None) -> None:
    """Killed in the second Restraint while writing a line, before `scores.json` was updated."""
    run = SyntheticRun(tmp_path)
    stages = [(line["kind"], line.get("stage"), line.get("round")) for line in run.lines]
    at = stages.index(("epoch", "restraint", 2))
    run.lines = run.lines[: at + 2]
    page = Page(write_report(run.write(scores=False, cut='{"kind": "epoch", "run": "rri", "sta')))
    unfinished = "Unfinished: RRI has not ended."
    assert page.texts["ending"] == f"{unfinished} The log ends with RRI, Restraint 2, epoch 2."
    assert page.texts["unread"].startswith("1 line of log.jsonl could not be read")
    assert f"number {at + 3}" in page.texts["unread"]
    assert page.texts["note"].startswith("The control is trained after RRI has ended")
    assert len(page.tables["stages"]) == 1 + 5  # Step 0, a round of three, decorrelate 2
    last = run.rows[4]["scores"][0]
    assert page.texts["final"] == f"{percent(last['rank1'])} / {percent(last['mAP'])}"
    assert "gain" not in page.texts


def test_scores_older_than_the_log(tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path, control=False)
    run.summary |= {"rows": run.rows[:3], "final": run.rows[2]["scores"][0], "stopped": None}
    page = Page(write_report(run.write()))
    assert len(page.tables["stages"]) == 1 + len(run.rows)
    assert page.texts["ending"].startswith("Unfinished")


@pytest.mark.parametrize("lines", [0, 1, 2], ids=["no line", "start only", "one epoch"])
def test_run_that_has_just_started(tmp_path: Path, lines: int, drawn_charts: None) -> None:
    run = SyntheticRun(tmp_path)
    run.lines = run.lines[:lines]
    page = Page(write_report(run.write(scores=False)))
    assert page.texts["note"] == "No stage has ended yet, so there is no score."
    assert page.texts["ending"].startswith("Unfinished")
    assert len(page.charts) == (4 if lines == 2 else 0)


def test_the_control_starts_where_step0_ends(tmp_path: Path) -> None:
    from reid.report.history import read_history

    history = read_history(SyntheticRun(tmp_path).write())
    epochs = [e for e in history.events if e["kind"] == "epoch"]
    step0 = [e for e in epochs if e["stage"] == "step0"]
    control = [e for e in epochs if e["run"] == "control"]
    expected = [(4, step0[-1]["loss"])] + [(5 + i, e["loss"]) for i, e in enumerate(control)]
    assert history.curve("control", "loss") == expected
    spans = [(band.stage, band.start, band.end) for band in history.bands()]
    assert spans[:4] == [("step0", 0, 4), ("restraint", 4, 7), ("relaxation", 7, 9), ("restraint", 9, 12)]
    jump = next(row for row in history.rows_of("rri") if row["stage"] == "decorrelate")
    at_jump = [y for x, y in history.curve("rri", "correlation") if x == 4]
    assert at_jump == [step0[-1]["correlation"], jump["correlation"]]
    assert history.jumps("rri")[0] == (4, 1.39, jump["train_loss_after"])


def test_scores_are_at_the_ends_of_the_stages(tmp_path: Path) -> None:
    """Computed by hand: Step 0 of 4 epochs, two rounds of 0 + 3 + 2, a final 0 + 3."""
    from reid.report.history import read_history

    run = SyntheticRun(tmp_path)
    history = read_history(run.write())
    epochs = [4, 4, 7, 9, 9, 12, 14, 14, 17]
    rri = [row["scores"][0]["mAP"] for row in run.rows if row["run"] == "rri"]
    control = [row["scores"][0]["mAP"] for row in run.rows if row["run"] == "control"]
    assert history.score_curve("rri", "mAP") == list(zip(epochs, rri, strict=True))
    assert history.score_curve("control", "mAP") == list(zip(epochs, [rri[0], *control], strict=True))
    assert max(band.end for band in history.bands()) == epochs[-1]
    alone = read_history(SyntheticRun(tmp_path / "alone", control=False).write())
    assert alone.score_curve("control", "mAP") == []


def test_report_without_a_log(tmp_path: Path, drawn_charts: None) -> None:
    """Curves over epochs are missing, but the stages with their scores and spectra are shown."""
    folder = SyntheticRun(tmp_path).write()
    (folder / "log.jsonl").unlink()
    page = Page(write_report(folder))
    assert len(page.tables["stages"]) == 1 + 17
    assert [a["aria-label"].partition(".")[0] for _, a in page.tags if a.get("role") == "img"] == [
        *("rank-1", "mAP", "Spectrum of the Eigenlayer")
    ]


def test_every_chart_has_a_text_alternative(tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path)
    page = Page(write_report(run.write()))
    labels = {a["aria-label"].partition(".")[0]: a["aria-label"] for _, a in page.tags if a.get("role") == "img"}
    for row in run.rows:
        assert f"{row['correlation']:.3f}" in labels["S(W) of the Eigenlayer"]
        assert f"{row['train_loss']:.2f}" in labels["Training loss"]
        for name, key in (("rank-1", "rank1"), ("mAP", "mAP")):
            assert percent(row["scores"][0][key]) in labels[name]


def test_invalid_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        write_report(tmp_path)
    folder = SyntheticRun(tmp_path / "run", rounds=1).write()
    (folder / "scores.json").write_text("[1, 2")
    with pytest.raises(InputError, match=r"scores\.json: not the scores of a run") as error:
        write_report(folder)
    assert "\n" not in str(error.value)
    assert not (folder / "report.html").exists()


def test_missing_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    check_available()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"needs matplotlib: pip install .*\[report\]"):
        check_available()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("epoch", {"run": []}),
        ("epoch", {"stage": "<b>"}),
        ("epoch", {"loss": "x"}),
        ("epoch", {"epoch": 2**70}),
        ("epoch", {"correlation": None}),
        ("stage", {"scores": 3}),
        ("stage", {"scores": [{}]}),
        ("stage", {"cmc": {"input": "abc"}}),
        ("stage", {"spectrum_before": [[1]]}),
        ("stage", {"train_loss_before": 2.0}),  # and no loss after it
        ("start", {"machine": 5}),
    ],
    ids=str,
)
def test_an_invalid_line_is_skipped_and_counted(tmp_path: Path, kind: str, change: dict[str, object]) -> None:
    run = SyntheticRun(tmp_path, rounds=1)
    next(line for line in run.lines if line["kind"] == kind).update(change)
    page = Page(write_report(run.write(scores=False)))
    assert page.texts["unread"].startswith("1 line of log.jsonl")


def test_what_older_runs_lack_is_a_gap_and_what_nobody_reads_may_be_anything(tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path, rounds=1)
    for line in run.lines:
        if line["kind"] == "stage":
            line["epoch"] = [1]
            for score in line["scores"]:
                del score["rank5"], score["mINP"]
    page = Page(write_report(run.write(scores=False)))
    assert "unread" not in page.texts


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scores.json", '{"rows": 3}'),
        ("scores.json", '{"rows": [], "final": {}, "stopped": []}'),
        ("scores.json", "[" * 100_000),
        ("scores.json", '{"rows": [], "final": {"feature": [], "normalized": false, "flip": false}}'),
        ("config.yaml", "MODEL: 3"),
        ("config.yaml", "TEST: {FEATURE: 5}"),
        ("config.yaml", "INPUT: {SIZE: 3}"),
        ("config.yaml", "RRI: {PATIENCE: x}"),
        ("config.yaml", "a: !!int x"),
    ],
)
def test_invalid_files(tmp_path: Path, name: str, content: str) -> None:
    folder = SyntheticRun(tmp_path, rounds=1).write()
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=name):
        write_report(folder)
