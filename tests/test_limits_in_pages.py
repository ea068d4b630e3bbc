"""Pages and help texts state the limits of `lmconv.building.limits`."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmconv.building import limits
from lmconv.plugins import COMMANDS, TARGETS
from lmconv.types import Precision

ROOT = Path(__file__).parents[1]


def _number(value: float) -> str:
    """Writes a limit as the pages do: 1e-5, 0.01."""
    return f"{value:.0e}".replace("e-0", "e-") if value < 1e-3 else f"{value:g}"


def _gate(target: str, precision: Precision, name: str, head: str = "points") -> str:
    return _number(limits.gates(TARGETS.load(target), precision, head=head)[name])


FP32, FP16, BF16, INT8 = Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8
EXACT, ENGINE = _gate("onnx", FP32, "max_abs"), _gate("tensorrt", FP32, "max_abs")
EXACT_MAPS, FP16_MAPS = _gate("onnx", FP32, "max_map", "heatmaps"), _gate("onnx", FP16, "max_map", "heatmaps")
PX, MEAN_PX = _gate("onnx", FP16, "max_px"), _gate("onnx", FP16, "mean_px", "heatmaps")
RAW, RAW_FP16, RAW_BF16 = (
    _gate("openvino", FP32, "max_abs", "raw"),
    _gate("openvino", FP16, "max_map", "raw"),
    _gate("openvino", BF16, "max_map", "raw"),
)
LOSS, ONNX_LOSS = (_gate(target, INT8, "ion_loss") for target in ("openvino", "onnx"))
CROP_PX, CROP_MAPS = _number(limits.CROPS["frame"].px), _number(limits.CROPS["frame"].heatmaps)
SLOWER, ION, DRIFT = _number(limits.SLOWER), _number(limits.ION_BUDGET), _number(limits.DRIFT_BUDGET)


def _parts(text: str) -> list[str]:
    """Splits a page into rows of tables and paragraphs."""
    parts = []
    for block in text.split("\n\n"):
        lines = block.strip().splitlines()
        rows = [line for line in lines if line.startswith("|")]
        parts += rows or [" ".join(" ".join(lines).split())]
    return parts


@pytest.mark.parametrize(
    ("page", "about", "numbers"),
    [
        ("README.md", "| `max_abs` |", (EXACT, ENGINE)),
        ("README.md", "| `max_px` |", (PX,)),
        ("README.md", "| `max_map` |", (EXACT_MAPS, FP16_MAPS)),
        ("README.md", "| `max_px`, frames |", (CROP_PX, CROP_MAPS)),
        ("README.md", "| `mean_px` |", (MEAN_PX,)),
        ("README.md", "| `ion_loss` |", (LOSS, ONNX_LOSS)),
        ("README.md", "| speed |", (SLOWER,)),
        ("README.md", "| `--budget-ion` |", (ION,)),
        ("README.md", "| `--budget-drift` |", (DRIFT,)),
        ("docs/precision.md", "| speed |", (SLOWER,)),
        ("docs/precision.md", "| budget |", (ION, DRIFT)),
        ("docs/io.md", "`verify`", (EXACT, CROP_PX, CROP_MAPS)),
        ("docs/compaction.md", "`compact_px`", (EXACT, CROP_PX)),
        ("docs/tensorrt.md", "fp32 may differ", (ENGINE, PX, FP16_MAPS)),
        ("docs/backbones.md", "Gates:", (RAW, RAW_FP16)),
    ],
)
def test_a_page_states_the_limits(page: str, about: str, numbers: tuple[str, ...]) -> None:
    parts = [part for part in _parts((ROOT / page).read_text(encoding="utf-8")) if about in part]
    assert parts
    assert any(all(number in part for number in numbers) for part in parts), (numbers, parts)


@pytest.mark.parametrize(
    ("command", "numbers"),
    [
        ("export", (SLOWER, f"[default: {ION}]", f"[default: {DRIFT}]")),
        ("tune", (f"[default: {ION};", f"[default: {DRIFT};")),
        ("verify", (EXACT, ENGINE, EXACT_MAPS, FP16_MAPS, PX, LOSS, ONNX_LOSS, RAW, RAW_FP16, RAW_BF16)),
    ],
)
def test_help_states_the_limits(command: str, numbers: tuple[str, ...]) -> None:
    import click

    plugin = COMMANDS.load(command)
    with click.Context(plugin) as context:
        text = " ".join(plugin.get_help(context).split())
    assert [number for number in numbers if number not in text] == []
