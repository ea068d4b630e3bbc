"""SVG documents: well-formed whatever the text, with places to a tenth of a pixel."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from lmconv.visual import svg


def parsed(*elements: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.document(100, 50, elements))  # noqa: S314


def test_text_is_escaped() -> None:
    name = 'layer<1> & "two"'
    root = parsed(svg.title(name), svg.text(0, 0, name), svg.upward_text(0, 0, name), svg.legend(0, 0, name, {}))
    assert ["".join(element.itertext()).strip() for element in root[1:]] == [name] * 4


def test_attributes_are_escaped_and_left_out_where_they_are_none() -> None:
    assert svg.text(1.25, 2, "a", fill='"') == '<text x="1.2" y="2" fill="&quot;">a</text>'
    assert "dash" not in svg.polyline([(0, 0)], "red")
    assert 'stroke-dasharray="5 4"' in svg.polyline([(0, 0)], "red", dashed=True)


def test_a_legend_has_a_square_of_each_colour() -> None:
    (legend,) = parsed(svg.legend(0, 0, "channels:", {"#111111": "in use", "#222222": "removed"}))[1:]
    assert "".join(legend.itertext()) == "channels: ■ in use  ■ removed"
    assert [square.get("fill") for square in legend] == ["#111111", "#222222"]


@pytest.mark.parametrize(
    ("largest", "labels"),
    [
        (1.0, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (0.46, ["0", "0.1", "0.2", "0.3", "0.4"]),
        (7.0, ["0", "1", "2", "3", "4", "5", "6", "7"]),
        (330.0, ["0", "50", "100", "150", "200", "250", "300"]),
    ],
)
def test_ticks_are_round_numbers_from_zero_on(largest: float, labels: list[str]) -> None:
    assert list(svg.ticks(largest).values()) == labels


def test_values_rise_to_the_right_and_upwards() -> None:
    axes = svg.Axes(left=10, right=90, top=5, floor=45, across=8, up=4)
    assert axes.place(0, 0) == (10, 45)
    assert axes.place(10, 10) == (90, 5)


def test_a_grid_has_a_line_and_a_label_for_each_tick() -> None:
    axes = svg.Axes(left=10, right=90, top=5, floor=45, across=8, up=4)
    root = parsed(*axes.grid({0: "0", 10: "ten"}, {5: "half"}))
    assert [element.text for element in root if element.tag.endswith("text")] == ["half", "0", "ten"]
    lines = [element.attrib for element in root if element.tag.endswith("line")]
    assert [(line["x1"], line["y1"], line["x2"], line["y2"]) for line in lines] == [
        ("10", "25", "90", "25"),
        ("10", "5", "10", "45"),
        ("90", "5", "90", "45"),
    ]
