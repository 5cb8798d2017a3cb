"""Axes and pictures: nothing outside, no name over another, every text escaped."""

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tallystick.probes.report.plots import WIDTH, Plot, Point, Rule, Series
from tallystick.probes.report.ticks import linear, logarithmic, number

values = st.floats(-1e12, 1e12, allow_nan=False)
positive = st.floats(1e-9, 1e12, allow_nan=False)


@given(st.lists(values, max_size=30))
def test_a_linear_axis_holds_all_and_its_ticks_are_round(numbers: list[float]) -> None:
    axis = linear(numbers)
    slack = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - slack <= one <= axis.high + slack for one in [*numbers, 0.0])
    assert 2 <= len(axis.ticks) <= 9
    steps = [after - before for before, after in pairwise(axis.ticks)]
    assert max(steps) - min(steps) <= 1e-6 * max(steps)
    assert f"{steps[0]:.3e}"[0] in "1259"


@given(st.lists(positive, min_size=1, max_size=30))
def test_a_logarithmic_axis_holds_all(numbers: list[float]) -> None:
    axis = logarithmic(numbers)
    assert all(-1e-9 <= axis.share(one) <= 1 + 1e-9 for one in numbers)
    assert len(axis.ticks) <= 12
    if axis.log:
        assert max(numbers) / min(numbers) >= 10


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e14, max_value=1e14))
def test_numbers_keep_three_digits_and_have_no_exponent(value: float) -> None:
    shown = number(value)
    assert "e" not in shown
    factor = {"k": 1e3, "M": 1e6, "G": 1e9}.get(shown[-1], 1.0)
    read = float(shown.rstrip("kMG").replace(",", "")) * factor
    assert math.isclose(read, value, rel_tol=0.006, abs_tol=1e-12)


@given(
    st.lists(st.tuples(positive, positive), min_size=1, max_size=12),
    st.lists(st.tuples(positive, st.text(max_size=20)), max_size=6),
    st.booleans(),
)
def test_a_picture_stays_within_its_frame_and_is_well_formed(
    points: list[tuple[float, float]], marks: list[tuple[float, str]], log: bool
) -> None:
    places = [Point(x, y, y * 0.9, y * 1.2) for x, y in sorted(points)]
    rules = [Rule("x", value, name) for value, name in marks]
    svg = str(Plot("a & b", "<c>", "x", "y", [Series("s", places, 1)], rules, log_x=log, log_y=log).svg)
    # What XML can't hold at all is no matter of escaping.
    root = ET.fromstring(re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", svg))
    height = float(root.attrib["viewBox"].split()[3])
    for line in root.iter("line"):
        assert all(-1 <= float(line.attrib[name]) <= WIDTH + 1 for name in ("x1", "x2"))
        assert all(-1 <= float(line.attrib[name]) <= height + 1 for name in ("y1", "y2"))


def test_names_of_marks_never_stand_over_each_other() -> None:
    rules = [Rule("x", value, f"a long name {value}") for value in (4, 4.1, 4.2, 7.9, 8)]
    svg = str(Plot("t", "", "x", "y", [Series("s", [Point(1, 1), Point(8, 2)])], rules).svg)
    found = re.findall(r'<text class="" x="([\d.]+)" y="([\d.]+)" text-anchor="start">(a long name [\d.]+)<', svg)
    assert len(found) == 5
    taken = [(float(y), float(x), float(x) + 6.6 * len(name)) for x, y, name in found]
    for index, (row, start, end) in enumerate(taken):
        assert end <= WIDTH + 1
        for other_row, other_start, other_end in taken[:index]:
            assert row != other_row or end < other_start or other_end < start


def test_texts_are_escaped_and_each_point_says_its_figures() -> None:
    evil = "<script>alert(1)</script>\"'&"
    series = Series(evil, [Point(1, 2, label=evil), Point(2, 3)], 1)
    svg = str(Plot(evil, evil, evil, evil, [series], [Rule("y", 2, evil)]).svg)
    assert "<script" not in svg
    assert svg.count("<title>") == 2
    ET.fromstring(svg)
