"""What a GPU host finds of engines, as far as no GPU is needed: `scripts/gpu_check.py rehearse` does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from lmconv.trt import check, device

CASE = {"limit": 0.01}
HELD = {
    "off": {"max": 0.005, "mean": 0.001},
    "batches": {"1": {"max": 0.0, "mean": 0.0}},
    "cache_changed": False,
    "leak": {"device": 0, "host": 4096},
}


class Doubles:
    """Doubles what it is given, and notes how many it was given."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        self.sizes.append(len(arrays["input"]))
        return {"landmarks": arrays["input"] * 2}


@pytest.mark.parametrize(("size", "sizes"), [(2, [2, 2, 2]), (5, [5]), (8, [8]), (1, [1] * 5)])
def test_inputs_are_run_in_full_batches_and_what_filled_them_is_cut_off(size: int, sizes: list[int]) -> None:
    inputs, runs = np.arange(5.0)[:, None], Doubles()
    found = check.in_chunks(runs, inputs, size)
    assert runs.sizes == sizes
    np.testing.assert_array_equal(found["landmarks"], inputs * 2)


def test_what_holds_is_not_complained_of() -> None:
    assert check.complaints(HELD, CASE) == []


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"off": {"max": 0.02, "mean": 0.0}}, "landmarks are 0.02 off"),
        ({"off": {"max": float("nan"), "mean": 0.0}}, "landmarks are nan off"),
        ({"batches": {"3": {"max": 0.02, "mean": 0.0}}}, "batch 3 gives landmarks 0.02 off"),
        ({"cache_changed": True}, "changed the cache"),
        ({"leak": {"device": 2 << 20, "host": 0}}, "2,097,152 bytes of device memory"),
    ],
    ids=["off", "not a number", "another batch", "another cache", "a leak"],
)
def test_what_does_not_hold_is_said(part: dict[str, Any], said: str) -> None:
    (found,) = check.complaints(HELD | part, CASE)
    assert said in found


def test_without_a_gpu_it_ends_with_3_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    if device.missing() is None:
        pytest.skip("a GPU is here")
    assert check.main(["nowhere"]) == 3
    assert capsys.readouterr().err.startswith("error: no engine can be built here: ")
