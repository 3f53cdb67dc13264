"""One walk in words: a tree in the order of the walk, whose numbers add up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tnet_geo.results import Results
from tnet_geo.results.explanation import explain
from tnet_geo.results.walks import Walk


class OneWalk:
    """Results of one walk that is not on a disk."""

    def __init__(self, results: Results, walk: Walk) -> None:
        self.record = results.record
        self._walk = walk

    def walks(self, sites: list[str]) -> list[Walk]:
        return [self._walk]


def test_children_stand_below_the_look_that_chose_them(results: Results) -> None:
    lines = explain(results, "quarry/0003").lines()
    walk = results.walks(["quarry/0003"])[0]
    assert lines[0] == "site quarry/0003 of scene scene-0003, rows 0-512, columns 0-512"
    assert lines[1] == f"airfield, {walk.confidence:.1%} sure (wrong: it is quarry)"
    assert lines[2] == "5 looks, 60.0 KiB decoded; nothing was left to look at"
    tree = [line[: lines[4].index("tile") - 12].rstrip() for line in lines[4:10]]
    assert tree == ["look", "1", "├─ 2", "│  └─ 4", "│     └─ 5", "└─ 3"]
    second = walk.looks[1]
    for number in (second.probability, second.path_log_probability):
        assert f"{number:.4f}" in lines[6]
    assert f"{second.evidence:+.4f}" in lines[6]


def test_a_look_has_its_footprint_in_pixels_and_on_the_globe(results: Results) -> None:
    explanation = explain(results, "quarry/0003")
    rows = results.rows("trails", ["quarry/0003"])
    for look, row in zip(explanation.looks, sorted(rows, key=lambda row: row["look"]), strict=True):
        window = look.window
        assert (window.row, window.col, window.height, window.width) == tuple(
            row[name] for name in ("row_off", "col_off", "height", "width")
        )
        assert look.footprint is not None
        xs = [x for x, _ in look.footprint["coordinates"][0]]
        assert (min(xs), max(xs)) == pytest.approx((row["bbox"]["xmin"], row["bbox"]["xmax"]))


def test_tiles_that_nobody_chose_stand_side_by_side(results: Results) -> None:
    walk = results.walks(["quarry/0003"])[0]
    dense = replace(walk, looks=tuple(replace(look, parent=None) for look in walk.looks))
    lines = explain(OneWalk(results, dense), "site").lines()  # type: ignore[arg-type]
    assert [line.split(" ")[0] for line in lines[5:10]] == ["1", "2", "3", "4", "5"]


def test_numbers_that_do_not_add_up_are_told_apart_from_rounding(results: Results) -> None:
    walk = results.walks(["quarry/0003"])[0]
    assert explain(results, "quarry/0003").adds_up
    last = replace(walk.looks[-1], evidence=walk.looks[-1].evidence + 1e-4)
    forged = replace(walk, looks=(*walk.looks[:-1], last))
    assert not explain(OneWalk(results, forged), "site").adds_up  # type: ignore[arg-type]


def test_classes_come_most_probable_first(results: Results) -> None:
    explanation = explain(results, "quarry/0003")
    assert next(iter(explanation.probabilities)) == explanation.label
    shares = list(explanation.probabilities.values())
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
