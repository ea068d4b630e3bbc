"""Pictures of a search: every point and layer is drawn, in the colour of its verdict."""

from __future__ import annotations

from xml.etree import ElementTree

from lmconv.types import Json
from lmconv.visual import tuning


def point(name: str, ms: float, drift: float | None, *, front: bool = False, chosen: bool = False) -> Json:
    return {"name": name, "ms": ms, "loss": {"drift": {"mean": drift}}, "front": front, "chosen": chosen}


def drawn(document: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(document).iter(f"{{http://www.w3.org/2000/svg}}{tag}"))  # noqa: S314


def test_the_front_is_joined_and_the_chosen_point_named() -> None:
    points = [
        point("fp32", 2.0, 0.0, front=True),
        point("int8", 1.0, 0.3, front=True, chosen=True),
        point("fp16", 2.0, 0.1),
    ]
    picture = tuning.front("pfld", points, 0.4)
    assert [text.text for text in drawn(picture, "text")][-3:] == ["fp32", "int8 (chosen)", "fp16"]
    assert [circle.get("fill") for circle in drawn(picture, "circle")] == [tuning.FRONT, tuning.CHOSEN, tuning.OTHER]
    (joined,) = drawn(picture, "polyline")
    assert len(str(joined.get("points")).split()) == 2
    assert "budget 0.4" in picture
    assert "budget" not in tuning.front("pfld", points, None)


def test_a_point_without_a_finite_drift_is_drawn_at_the_top() -> None:
    picture = tuning.front("pfld", [point("fp32", 2.0, 0.0, front=True), point("broken", 1.0, None)], None)
    assert [circle.get("cy") for circle in drawn(picture, "circle")] == [
        str(tuning.HEIGHT - tuning.BOTTOM),
        str(tuning.TOP),
    ]


def test_a_layer_has_a_bar_of_drift_and_a_bar_of_time_where_it_was_timed() -> None:
    rows = [
        {"layer": "stem", "drift": 0.2, "cost_ms": -0.1, "int8": True},
        {"layer": "head", "drift": 0.1, "cost_ms": None, "int8": False},
    ]
    picture = tuning.layers("pfld", rows)
    bars = [(bar.get("width"), bar.get("fill")) for bar in drawn(picture, "rect")[1:]]
    assert bars == [
        (str(tuning.BAR), tuning.FRONT),
        (str(tuning.BAR), tuning.OTHER),
        (str(tuning.BAR // 2), tuning.FRONT),
    ]
    texts = [text.text for text in drawn(picture, "text")]
    assert "head (float)" in texts
    assert "-0.100" in texts
