"""The part of a diagnosis that needs a dataset shows the JSON, whatever is missing in it."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from html_page import Page, percent
from matplotlib.axes import Axes

from reid.diagnostics.geometry import describe_geometry
from reid.records import Features
from reid.report import dataset_figures
from reid.report.dataset_sections import dataset_sections
from reid.report.pages import render_page

RANKS = (8, 16, 24)


def generated(seed: int = 0) -> dict[str, Any]:
    """A diagnosis with distinct numbers."""
    random = np.random.default_rng(seed)

    def scores(feature: str = "output") -> list[dict[str, Any]]:
        names = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP")
        return [
            {"feature": feature, "normalized": n, "flip": False, **{name: float(random.random()) for name in names}}
            for n in (False, True)
        ]

    def statistics(dimensions: int) -> dict[str, Any]:
        ks = (1, 2, 4, 8, 16, dimensions)
        return {
            "images": int(random.integers(1000, 9000)),
            "dimensions": dimensions,
            "dead": int(random.integers(9)),
            "total_variance": 1.0,
            "spectrum": sorted(random.random(dimensions).tolist(), reverse=True),
            "correlation": float(random.random()),
            "mean_absolute_correlation": float(random.random()),
            "by_chance": float(random.random()),
            "effective_rank": float(random.uniform(1, dimensions)),
            "variance": [{"k": k, "dimensions": random.random(), "components": random.random()} for k in ks],
        }

    def replacement(name: str) -> dict[str, Any]:
        loss = {"train_loss_before": 1.25, "train_loss_after": float(random.uniform(1, 9))}
        return {"variant": name, "correlation": float(random.random()), **loss, "scores": scores()}

    def compared(a: str, b: str, demanded: bool) -> dict[str, Any]:
        return {
            "variants": [a, b],
            "demanded": demanded,
            "demanded_normalized": demanded,
            "max_relative_deviation": 3e-15 if demanded else float(random.random()),
            "equal": demanded,
            "largest_score_difference_raw": float(random.random()),
            "largest_score_difference_normalized": float(random.random()),
        }

    def small(rank: int, kept: str, **more: Any) -> dict[str, Any]:
        size = {"rank": rank, "dimensions": rank, "parameters": rank * 1234, kept: float(random.random())}
        return {**size, **more, "scores": scores()}

    return {
        "name": "market1501",
        "counts": {"train": 12936, "train_identities": 751, "query": 3368, "gallery": 19732, "junk": 3819},
        "eigenlayer": {"d_in": 40, "k": 24, "bias": False, "relu": False, "last": False, "parameters": 960},
        "classes": 751,
        "loss_images": 4096,
        "label_smoothing": 0.1,
        "order": "assignment",
        "features": {f: {p: statistics(d) for p in ("retrieval", "train")} for f, d in (("input", 40), ("output", 24))},
        "input_scores": scores("input"),
        "replacements": [replacement(name) for name in ("Orig", "US", "U", "UVt", "QD")],
        "equalities": {
            "pairs": 20000,
            "bar": 1e-6,
            "rows": [
                *(compared("Orig", "US", True), compared("U", "UVt", True)),
                *(compared("Orig", "U", False), compared("Orig", "QD", False)),
            ],
        },
        "truncated_svd": [small(r, "energy", correlation=random.random(), train_loss=random.random()) for r in RANKS],
        "pca": [small(r, "variance") for r in RANKS],
    }


def page(folder: Path, data: dict[str, Any] | None) -> Page:
    path = folder / "part.html"
    path.write_text(render_page("diagnosis_dataset.html", dataset=data and dataset_sections(data)), encoding="utf-8")
    return Page(path)


@pytest.fixture
def without_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip drawing, which takes most of the time, in tests of the text."""
    for name in ("covariance_chart", "variance_chart", "compression_chart"):
        monkeypatch.setattr(dataset_figures, name, lambda *arguments: "<svg/>")


def words(found: Page) -> str:
    return " ".join(re.sub(r"<[^>]*>", "", found.source).split())


def cells(scores: list[dict[str, Any]], names: tuple[str, ...]) -> list[str]:
    return [percent(score[name]) for score in scores for name in names]


def test_the_tables_are_the_numbers_of_the_json(tmp_path: Path) -> None:
    data = generated()
    tables = page(tmp_path, data).tables
    rows = iter(tables["features"][1:])
    for feature, parts in data["features"].items():
        for part, s in parts.items():
            assert next(rows) == [
                *(feature, {"retrieval": "query and gallery", "train": "training images"}[part], f"{s['images']:,}"),
                *(str(s["dimensions"]), str(s["dead"]), f"{s['correlation']:.4f}"),
                *(f"{s['mean_absolute_correlation']:.4f}", f"{s['by_chance']:.4f}", f"{s['effective_rank']:.1f}"),
            ]
    four = ("rank1", "rank5", "mAP", "mINP")
    assert tables["replacements"][1][3:] == ["rank-1", "rank-5", "mAP", "mINP"] * 2
    assert tables["replacements"][2] == ["Eigenlayer's input", "–", "–", *cells(data["input_scores"], four)]
    for cell, row in zip(tables["replacements"][3:], data["replacements"], strict=True):
        loss = f"{row['train_loss_before']:.3f} → {row['train_loss_after']:.3f}"
        name = {"UVt": "UVᵀ"}.get(row["variant"], row["variant"])
        expected = f"{row['train_loss_after']:.3f}" if name == "Orig" else loss
        assert cell == [name, f"{row['correlation']:.4f}", expected, *cells(row["scores"], four)]
    for cell, row in zip(tables["equalities"][1:], data["equalities"]["rows"], strict=True):
        gaps = [f"{100 * row[f'largest_score_difference_{kind}']:.3f}" for kind in ("raw", "normalized")]
        assert cell[1:4] == [f"{row['max_relative_deviation']:.1e}", *gaps]
    assert [row[0] for row in tables["equalities"][1:]] == ["Orig and US", "U and UVᵀ", "Orig and U", "Orig and QD"]
    two = ("rank1", "mAP")
    for cell, row in zip(tables["truncated-svd"][2:], data["truncated_svd"], strict=True):
        assert cell == [
            *(str(row["rank"]), str(row["dimensions"]), f"{row['parameters']:,}"),
            *(f"{100 * row['parameters'] / 960:.0f} %", percent(row["energy"]), f"{row['correlation']:.4f}"),
            *(f"{row['train_loss']:.3f}", *cells(row["scores"], two)),
        ]
    for cell, row in zip(tables["pca"][2:], data["pca"], strict=True):
        size = f"{100 * row['parameters'] / 960:.0f} %"
        known = [str(row["rank"]), str(row["dimensions"]), f"{row['parameters']:,}", size, percent(row["variance"])]
        assert cell == [*known, *cells(row["scores"], two)]


@pytest.mark.usefixtures("without_drawings")
def test_every_row_of_a_table_is_as_wide_as_its_head(tmp_path: Path) -> None:
    found = page(tmp_path, generated())
    for name, rows in found.tables.items():
        head = rows[0] if name in ("features", "equalities") else rows[1]
        assert {len(row) for row in rows[rows.index(head) :]} == {len(head)}, name
    spans = [int(attributes["colspan"] or 0) for tag, attributes in found.tags if attributes.get("colspan")]
    assert spans == [3, 4, 4, 7, 2, 2, 5, 2, 2]


@pytest.mark.usefixtures("without_drawings")
@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "equal, as theory requires"),
        ({"equal": False, "max_relative_deviation": 0.5}, "NOT equal, although theory requires it"),
        ({"demanded": False, "equal": False}, "not equal, and theory does not require it"),
        ({"demanded": False}, "equal, although theory does not require it"),
        ({"equal": None, "max_relative_deviation": None}, "one of them is not defined for this weight"),
    ],
)
def test_verdicts(tmp_path: Path, change: dict[str, Any], verdict: str) -> None:
    data = generated()
    data["equalities"]["rows"][0] |= change
    found = page(tmp_path, data)
    assert found.tables["equalities"][1][4] == verdict
    assert ("<strong>" in found.source) == verdict.startswith("NOT")


@pytest.mark.usefixtures("without_drawings")
@pytest.mark.parametrize(
    ("layer", "expected", "unexpected"),
    [
        ({}, "the same for U and UVᵀ.", "rotate the Eigenlayer"),
        ({"k": 40}, "U and UVᵀ only rotate the Eigenlayer's input", "bias"),
        ({"k": 40, "bias": True}, "L2-normalized scores may differ", "rotate the Eigenlayer"),
        ({"bias": True, "relu": True}, "A ReLU follows this Eigenlayer, so theory requires no equality", "W Wᵀ"),
    ],
)
def test_theory(tmp_path: Path, layer: dict[str, Any], expected: str, unexpected: str) -> None:
    data = generated()
    data["eigenlayer"] |= layer
    text = words(page(tmp_path, data)).replace("&#39;", "'")
    assert expected in text and unexpected not in text
    assert ("the output of the first factor has the same distances" in text) != bool(
        layer.get("bias") or layer.get("relu")
    )


@pytest.mark.usefixtures("without_drawings")
def test_missing_values_are_dashes_with_a_reason(tmp_path: Path) -> None:
    data = generated()
    data |= {"loss_images": 0, "classes": 702}
    for row in data["replacements"]:
        row |= {"train_loss_before": None, "train_loss_after": None}
    for row in data["truncated_svd"]:
        row["train_loss"] = None
    data["replacements"][4] |= {"correlation": None, "scores": [], "left_out": "QD needs <i>full</i> rank"}
    data["equalities"]["rows"][3] |= {
        "max_relative_deviation": None,
        "equal": None,
        "largest_score_difference_raw": None,
        "largest_score_difference_normalized": None,
    }
    data["features"]["output"]["train"]["mean_absolute_correlation"] = None
    found = page(tmp_path, data)
    assert found.tables["replacements"][7] == ["QD", *["–"] * 10]
    assert found.tables["equalities"][4][1:4] == ["–"] * 3
    assert found.tables["features"][4][6] == "–"
    assert {row[6] for row in found.tables["truncated-svd"][2:]} == {"–"}
    text = words(found)
    assert "No loss: the classifier has 702 identities, but this dataset has 751 training identities." in text
    assert "Not computed: QD: QD needs &lt;i&gt;full&lt;/i&gt; rank." in text


@pytest.mark.usefixtures("without_drawings")
def test_the_loss_says_how_it_was_measured(tmp_path: Path) -> None:
    expected = "Loss: on 4,096 unaugmented training images, in evaluation mode, label smoothing 0.1, before → after."
    assert expected in words(page(tmp_path, generated()))
    assert "label smoothing" not in words(page(tmp_path, {**generated(), "label_smoothing": 0.0}))


@pytest.mark.usefixtures("without_drawings")
def test_a_name_is_escaped_and_may_be_missing(tmp_path: Path) -> None:
    assert "Features on &lt;b&gt;x" in page(tmp_path, {**generated(), "name": "<b>x"}).source
    assert "Features on this dataset" in page(tmp_path, {**generated(), "name": ""}).source


def test_without_a_dataset_nothing_is_shown(tmp_path: Path) -> None:
    assert not page(tmp_path, None).source.strip()


def test_charts_have_the_numbers_in_words(drawn_charts: None) -> None:
    data = generated()
    sections = dataset_sections(data)
    spectrum, variance = sections["feature_charts"]
    for parts in data["features"].values():
        for s in parts.values():
            assert f"largest {s['spectrum'][0]:.3g}, smallest {s['spectrum'][-1]:.3g}" in spectrum.alt
        for entry in parts["retrieval"]["variance"]:
            for kind in ("components", "dimensions"):
                assert f"{entry['k']} carry {100 * entry[kind]:.1f} %" in variance.alt
    assert [label for _, _, label in variance.key] == [
        f"{feature}, {kind}"
        for feature in ("input", "output")
        for kind in ("principal components", "dimensions in order")
    ]
    assert len({line[:2] for line in variance.key}) == 4
    us = data["replacements"][1]["scores"][0]
    for chart, key in zip(sections["compression_charts"], ("rank1", "mAP"), strict=True):
        assert f"US at full size: {percent(us[key])}" in chart.alt
        for row in (*data["truncated_svd"], *data["pca"]):
            assert f"rank {row['rank']} {percent(row['scores'][0][key])}" in chart.alt
    charts = [*sections["feature_charts"], *sections["compression_charts"]]
    assert all(chart.caption for chart in charts)
    ids = [e.get("id") for chart in charts for e in ElementTree.fromstring(chart.svg).iter() if e.get("id")]
    assert len(ids) == len(set(ids)) > 0


def test_charts_draw_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: dict[str, tuple[list[float], list[float]]] = {}
    plot = Axes.plot

    def recorded(axes: Axes, x: Any, y: Any, **options: Any) -> Any:
        lines[options["label"]] = (list(x), list(y))
        return plot(axes, x, y, **options)

    monkeypatch.setattr(Axes, "plot", recorded)
    data = generated()
    dataset_sections(data)
    expected = data["features"]["output"]["train"]["spectrum"]
    assert lines["output, training"] == (list(range(1, 25)), expected)
    shares = data["features"]["input"]["retrieval"]["variance"]
    assert lines["input, principal components"] == ([e["k"] for e in shares], [100 * e["components"] for e in shares])
    assert lines["input, dimensions in order"][1] == [100 * e["dimensions"] for e in shares]
    # The chart of mAP is the last one.
    assert lines["PCA of the input"] == (list(RANKS), [100 * row["scores"][0]["mAP"] for row in data["pca"]])
    assert lines["truncated SVD"][1] == [100 * row["scores"][0]["mAP"] for row in data["truncated_svd"]]


@pytest.mark.filterwarnings("error")
def test_the_smallest_and_the_most_degenerate_dataset_can_be_drawn(tmp_path: Path, drawn_charts: None) -> None:
    data = generated()
    one = {"k": 1, "dimensions": 1.0, "components": 1.0}
    for parts in data["features"].values():
        for s in parts.values():
            s |= {"dimensions": 1, "spectrum": [2.0], "variance": [one]}
    data["truncated_svd"], data["pca"] = data["truncated_svd"][:1], data["pca"][:1]
    assert page(tmp_path, data).source.count('role="img"') == 4
    flat = copy.deepcopy(data["features"])
    flat["input"]["train"]["spectrum"] = [1.0, 1e-18, 0.0]
    assert page(tmp_path, {**data, "features": flat}).source.count('role="img"') == 4


def test_a_long_spectrum_is_thinned_and_rounding_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_values: list[np.ndarray] = []
    plot = Axes.plot

    def recorded(axes: Axes, x: Any, y: Any, **options: Any) -> Any:
        drawn_values.append(np.asarray(y))
        return plot(axes, x, y, **options)

    monkeypatch.setattr(Axes, "plot", recorded)
    dataset_figures.covariance_chart({("input", "train"): [*np.geomspace(1, 1e-6, 1000), 1e-15, 0.0]})
    assert len(drawn_values[0]) == dataset_figures.MAX_POINTS
    assert np.isnan(drawn_values[0][-1]) and drawn_values[0][0] == 1


@pytest.mark.usefixtures("without_drawings")
def test_identity_or_camera(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    features = Features(random.normal(size=(60, 8)), np.arange(60) % 6 + 1, np.arange(60) % 4 + 1)
    geometry = describe_geometry(features)
    data = {**generated(), "geometry": {"input": {"retrieval": geometry, "train": describe_geometry(features)}}}
    found = page(tmp_path, data)
    rows = found.tables["geometry"]
    assert [row[1] for row in rows[1:6]] == ["query and gallery", "camera 1", "camera 2", "camera 3", "camera 4"]
    chance = [f"{geometry[f'{name}_by_chance']:.1f}" for name in ("rank_me", "participation_ratio")]
    assert rows[1][2:5] == ["60", "6", f"{geometry['rank_me']:.1f}"] and rows[1][-2:] == ["–", "–"]
    assert [rows[1][5], rows[1][7], rows[1][13]] == [*chance, f"{geometry['nc1_by_chance']:.3g}"]
    assert {len(row) for row in rows} == {20}
    assert f"{percent(geometry['variance']['camera'])} % between cameras (by chance 5.1 %)" in words(found)
    assert "geometry" not in page(tmp_path, generated()).tables
