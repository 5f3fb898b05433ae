"""Patterns for identity and camera: matches, and patterns that are refused."""

from __future__ import annotations

import pytest

from reid.data.datasets.pattern import compile_pattern
from reid.errors import InputError


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("{identity}_c{camera}*", "0002_c1s1_000451_03", ("0002", "1")),
        ("{identity}_c{camera}*", "Anna_clara_c12", ("Anna_clara", "12")),
        ("{identity:4}{camera:3}", "0001002", ("0001", "002")),
        ("{identity}/cam{camera}_*", "Ann <b> Ä/cam03_x", ("Ann <b> Ä", "03")),
        ("{camera}/{identity}/*", "Eingang 1/Möller/12", ("Möller", "Eingang 1")),
        ("**/{identity}/{camera}/*", "a/b/c/d/e", ("c", "d")),
        ("**/{identity}/{camera}/*", "c/d/e", ("c", "d")),
        ("x*/**/{identity}_{camera}", "xy/z/anna_1", ("anna", "1")),
        ("*_{camera}_{identity}", "a_b_1_2", ("1_2", "b")),
        ("{identity}.v1_c{camera}", "a.v1_c3", ("a", "3")),
        ("{identity}_*_{camera}_*", "0000_031_14_0303morning_0245_0", ("0000", "14")),
        ("{identity}*_{camera}", "007anna_b", ("007", "b")),
        ("{camera}/*/{identity} *", "entrance/2024-05-01/anna 7", ("anna", "entrance")),
    ],
)
def test_the_fields_are_found(pattern: str, path: str, found: tuple[str, str]) -> None:
    match = compile_pattern(pattern).fullmatch(path)
    assert match is not None and (match["identity"], match["camera"]) == found


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("{identity}_c{camera}*", "0002_cx"),
        ("{identity}_c{camera}*", "_c2"),
        ("{identity}_c{camera}*", "deeper/0002_c1"),
        ("{identity}/*", "anna"),
        ("{identity}/*", "anna/b/1"),
        ("{identity:4}{camera:3}", "00010021"),
        ("{identity}.v1_c{camera}", "axv1_c3"),
        ("{identity}*_{camera}", "anna_b"),
    ],
)
def test_other_paths_do_not_match(pattern: str, path: str) -> None:
    assert compile_pattern(pattern).fullmatch(path) is None


def test_a_pattern_without_a_camera_has_no_such_group() -> None:
    match = compile_pattern("{identity}/*").fullmatch("anna/1")
    assert match == {"identity": "anna"}


@pytest.mark.parametrize(
    ("pattern", "path", "camera"),
    [
        *(("{identity:4}{camera:3/2}", f"0001{image:03d}", f"{(image + 1) // 2}") for image in range(1, 5)),
        ("{identity:4}{camera:3/10}", "0001011", "2"),
        ("{identity}_{camera/2}", "anna_12", "6"),
        ("{identity}_{camera/2}*", "anna_12b", "6"),
        ("{identity:4}{camera:3/2}", "0001000", None),  # numbers count from 1
        ("{identity}_{camera/2}", "anna_x", None),
        ("{identity}_{camera/2}", "anna_00", None),
    ],
)
def test_consecutive_numbers_are_one_camera(pattern: str, path: str, camera: str | None) -> None:
    match = compile_pattern(pattern).fullmatch(path)
    assert (match and match["camera"]) == camera


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "is empty"),
        ("c{camera}_*", "has no {identity}"),
        ("*.{identity}.jpg", "ends with the suffix"),
        ("/{identity}/*", "begins with /"),
        ("{person}_*", "has {person}; a field is"),
        ("{}_*", "has {}; a field is"),
        ("{identity_*", "an unbalanced brace"),
        ("{identity}/{identity}_*", "{identity} twice"),
        ("{identity}{camera}_*", "no text between {identity} and {camera}"),
        ("*{identity}_*", "no text between * and {identity}"),
        ("{identity:0}_*", "width of a field"),
        ("{identity:}_*", "width of a field"),
        ("{identity:٣}_*", "width of a field"),
        ("{identity}_{camera/0}", "has {camera/0}; write {camera/2}"),
        ("{identity}_{camera/x}", "has {camera/x}; write {camera/2}"),
        ("{identity/2}_{camera}", "has {identity/2}; write {camera/2}"),
        ("{identity}{camera/2}", "no text between {identity} and {camera/2}"),
        ("{identity:4}{camera:/2}", "width of a field"),
        ("a**/{identity}", "within a name"),
        ("**/x/**/{identity}", "**/ twice"),
        ("**{identity}", "no text between"),
    ],
)
def test_a_wrong_pattern_is_reported_in_one_line(pattern: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        compile_pattern(pattern)
    assert message in str(caught.value) and repr(pattern) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["a" * 4000, "a/" * 2000 + "a" * 200, "1" * 4000, "a1" * 2000])
def test_nothing_takes_exponential_time(path: str) -> None:
    # With backtracking, ten open parts over 4,000 characters would not end within a lifetime.
    expression = compile_pattern("**/{identity}a*a*a*a*a*a*a*{camera}*b")
    assert expression.fullmatch(path) is None
