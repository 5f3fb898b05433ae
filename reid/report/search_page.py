"""Results of a search: a table for the terminal, and a page with images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reid.errors import one_line
from reid.report import pages
from reid.report.thumbnails import FRAME, page_images

# What the labels of Market-1501 that name no person mean.
_KINDS = {
    "junk": "junk (labeled -1) is a poor detection: its label names no person, and evaluation ignores it",
    "distractor": "a distractor (labeled 0 or 0000) is a false detection or a passer-by: its label names no person",
}


def answer_table(content: dict[str, Any]) -> str:
    """Format all queries and their results. Columns that are empty for all results of a query are left out.

    Args:
        content: Result of `svdnet search`.

    Returns:
        Plain text, with one table per query.
    """
    lines = [f"{content['images']:,} images searched, {content['search']}", *meaning(content)]
    for query in content["queries"]:
        lines += ["", one_line(" + ".join(query["paths"])), *_table(query["answers"])]
    return "\n".join(lines)


def write_page(path: Path, content: dict[str, Any]) -> Path:
    """Write the page. Thumbnails of the images are embedded, up to a total size.

    Args:
        path: File to write.
        content: Result of `svdnet search`.

    Returns:
        Path of the HTML file.

    Raises:
        InputError: If the extra `report` is not installed.
    """
    pages.check_available()
    images = page_images(
        [
            file
            for query in content["queries"]
            for file in (*query["paths"], *(answer["file"] for answer in query["answers"]))
        ]
    )
    threshold = default_threshold(content["thresholds"])
    page = pages.render_page(
        "search.html",
        content=content,
        meaning=meaning(content),
        threshold=threshold,
        queries=[_query(query, images.ids, threshold) for query in content["queries"]],
        images=images,
        frame=FRAME,
    )
    return pages.write_page(path, page)


def meaning(content: dict[str, Any]) -> list[str]:
    """Explain distances and probabilities.

    Args:
        content: A record with "prior", "calibrated_on" and "thresholds"; "kinds" lists the kinds of images that are no
            person, if any, see `Snapshot.kinds`.

    Returns:
        Sentences without capital letters and periods.
    """
    kinds = content.get("kinds", ())
    sentences = [_KINDS[kind] for kind in _KINDS if kind in kinds]
    if content["prior"] is None:
        return [
            "not calibrated: distances rank the images but are not probabilities; see svdnet calibrate",
            *sentences,
        ]
    limits = "; ".join(f"up to {t['distance']:.3f}: {t['rate']:g}" for t in content["thresholds"])
    return [
        f"calibrated on {one_line(content['calibrated_on'])}; false-match rates of pairs of different identities at "
        f"distances {limits}",
        f"probabilities assume that a share of {content['prior']:.3g} of the compared pairs are of one identity",
        *sentences,
    ]


def default_threshold(thresholds: list[dict[str, float]]) -> dict[str, float] | None:
    """Choose the threshold that a page draws.

    Args:
        thresholds: "thresholds" of the output of `svdnet search`, by descending false-match rate.

    Returns:
        The middle one, the stricter of two; None if there are none.
    """
    return thresholds[len(thresholds) // 2] if thresholds else None


def answer_lines(answer: dict[str, Any]) -> list[str]:
    """Describe a result in the short lines below its image.

    Args:
        answer: One of "answers" of a query in the output of `svdnet search`.

    Returns:
        Rank and distance, then a line for each label that is known.
    """
    return [f"{answer['rank']} · {answer['distance']:.3f}", *_labels(answer)]


def describe_answer(answer: dict[str, Any]) -> str:
    """Describe a result in words, as its text alternative.

    Args:
        answer: One of "answers" of a query in the output of `svdnet search`.

    Returns:
        Rank, distance, and what else is known.
    """
    parts = [f"rank {answer['rank']}", f"distance {answer['distance']:.3f}"]
    if answer["probability"] is not None:
        parts.append(f"probability {answer['probability']:.2f}")
    return ", ".join([*parts, *_labels(answer)])


def _labels(answer: dict[str, Any]) -> list[str]:
    identity = {"identity": answer.get("kind") or f"identity {answer['identity']}"}
    return [identity.get(name, f"{name} {answer[name]}") for name in ("camera", "identity", "time") if answer[name]]


def _table(answers: list[dict[str, Any]]) -> list[str]:
    if not answers:
        return ["  no results"]
    cells = [
        {
            "rank": str(answer["rank"]),
            "distance": f"{answer['distance']:.4f}",
            "probability": "" if answer["probability"] is None else f"{answer['probability']:.3f}",
            "camera": one_line(answer["camera"]),
            "identity": one_line(answer.get("kind") or answer["identity"]),
            "time": one_line(answer["time"]),
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


def _query(query: dict[str, Any], ids: dict[str, str], threshold: dict[str, float] | None) -> dict[str, Any]:
    answers = []
    for answer in query["answers"]:
        alt = describe_answer(answer)
        if threshold:
            alt += f", {'within' if answer['distance'] <= threshold['distance'] else 'beyond'} the threshold"
        answers.append({**answer, **_image(answer["file"], alt, ids), "lines": answer_lines(answer)})
    return {
        "title": " + ".join(query["paths"]),
        "images": [_image(file, f"query {file}", ids) for file in query["paths"]],
        "answers": answers,
        "within": sum(answer["distance"] <= threshold["distance"] for answer in answers) if threshold else 0,
    }


def _image(file: str, alt: str, ids: dict[str, str]) -> dict[str, str]:
    return {"file": file, "picture": ids.get(file, ""), "alt": alt if file in ids else f"{alt}, no image"}
