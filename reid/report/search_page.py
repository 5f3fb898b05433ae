"""Answers of a search: a table for the terminal and a page with pictures, out of what `tools/search.py` found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reid.errors import one_line
from reid.report import pages
from reid.report.ranked_lists import FRAME, as_fit


def answer_table(content: dict[str, Any]) -> str:
    """All queries and their answers, columns that are empty throughout left out."""
    lines = [f"{content['images']:,} images searched, {content['search']}", *meaning(content)]
    for query in content["queries"]:
        lines += ["", one_line(" + ".join(query["paths"])), *_table(query["answers"])]
    return "\n".join(lines)


def write_page(path: Path, content: dict[str, Any]) -> Path:
    """Write the page to `path`; returns it. Pictures are inlined small, up to 10 MB of them, those first named first.

    Raises InputError where the extra `report` is missing.
    """
    pages.check_available()
    from reid.report.ranked_figures import thumbnails

    named = [
        file
        for query in content["queries"]
        for file in (*query["paths"], *(answer["file"] for answer in query["answers"]))
    ]
    pictures = {file: small for file, small in thumbnails(named).items() if small}
    found = as_fit(named, pictures)
    places = {file: f"p{number}" for number, file in enumerate(found)}
    page = pages.render_page(
        "search.html",
        content=content,
        meaning=meaning(content),
        queries=[_query(query, places) for query in content["queries"]],
        pictures=[(places[file], pictures[file]) for file in found],
        unread=len(set(named)) - len(pictures),
        left_out=len(pictures) - len(found),
        frame=FRAME,
    )
    return pages.write_page(path, page)


def meaning(content: dict[str, Any]) -> list[str]:
    """What distances and probabilities mean, in sentences."""
    if content["prior"] is None:
        return ["not calibrated: distances say who is nearer, not how sure that is; see tools/calibrate.py"]
    edges = "; ".join(f"up to {t['distance']:.3f}: {t['rate']:g}" for t in content["thresholds"])
    return [
        f"calibrated on {content['calibrated_on']}; false matches among pairs of different people at distances {edges}",
        f"a probability holds where a share {content['prior']:.3g} of the pairs asked about is of one person",
    ]


def _table(answers: list[dict[str, Any]]) -> list[str]:
    if not answers:
        return ["  no image to find"]
    cells = [
        {
            "rank": str(answer["rank"]),
            "distance": f"{answer['distance']:.4f}",
            "probability": "" if answer["probability"] is None else f"{answer['probability']:.3f}",
            "camera": answer["camera"],
            "identity": answer["identity"],
            "time": answer["time"],
            "path": one_line(answer["path"]),
        }
        for answer in answers
    ]
    names = [name for name in cells[0] if any(row[name] for row in cells)]
    width = {name: max(len(name), *(len(row[name]) for row in cells)) for name in names}
    rows = [{name: name for name in names}, *cells]
    return [
        "  " + "  ".join(row[n].ljust(width[n]) if n == "path" else row[n].rjust(width[n]) for n in names).rstrip()
        for row in rows
    ]


def _query(query: dict[str, Any], places: dict[str, str]) -> dict[str, Any]:
    return {
        "title": " + ".join(query["paths"]),
        "asked": [{"file": file, "picture": places.get(file, ""), "alt": f"query {file}"} for file in query["paths"]],
        "answers": [
            {**answer, "picture": places.get(answer["file"], ""), "alt": describe_answer(answer)}
            for answer in query["answers"]
        ],
    }


def describe_answer(answer: dict[str, Any]) -> str:
    parts = [f"rank {answer['rank']}", f"distance {answer['distance']:.3f}"]
    if answer["probability"] is not None:
        parts.append(f"probability {answer['probability']:.2f}")
    parts += [f"{name} {answer[name]}" for name in ("camera", "identity", "time") if answer[name]]
    return ", ".join(parts)
