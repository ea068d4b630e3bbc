"""What a worker answers, without a process."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from lmconv.errors import InputError
from lmconv.trt.timing import Timer
from lmconv.trt.worker import answer, noise


class Contestant:
    """Fails as lmconv's own errors do."""

    closed = False

    def about(self) -> dict[str, Any]:
        return {"name": "one"}

    def timer(self, batch: int) -> Timer:
        raise InputError("no checkpoint of pfld", hint="give --weights FILE")

    def close(self) -> None:
        self.closed = True


def replies(contestant: Contestant, *requests: object) -> list[dict[str, Any]]:
    out = io.StringIO()
    answer([one if isinstance(one, str) else json.dumps(one) for one in requests], out, lambda: contestant)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_requests_are_answered_one_by_one() -> None:
    contestant = Contestant()
    assert replies(contestant, {"do": "about"}, {"do": "close"}, {"do": "about"}) == [
        {"ok": True, "about": {"name": "one"}},
        {"ok": True},
    ]
    assert contestant.closed


def test_the_end_of_requests_closes_it() -> None:
    contestant = Contestant()
    replies(contestant, {"do": "about"})
    assert contestant.closed


def test_an_error_of_lmconv_keeps_its_kind_and_hint() -> None:
    (reply,) = replies(Contestant(), {"do": "time", "batch": 1, "samples": 1})
    assert reply == {"ok": False, "kind": "input", "message": "no checkpoint of pfld", "hint": "give --weights FILE"}


@pytest.mark.parametrize("request_", ["nonsense", "[]", "{}", '{"do": "time"}'])
def test_a_request_that_is_none_is_answered_too(request_: str) -> None:
    first, second = replies(Contestant(), request_, {"do": "about"})
    assert first["ok"] is False
    assert second["ok"] is True


def test_inputs_are_seeded_and_a_free_axis_is_the_batch() -> None:
    pictures = noise(np.dtype(np.uint8), (-1, 4, 4, 3), 5)
    assert (pictures.shape, pictures.dtype, pictures.max() > 128) == ((5, 4, 4, 3), np.uint8, True)
    half = noise(np.dtype(np.float16), (2, 3), 5)
    assert (half.shape, half.dtype) == ((2, 3), np.float16)
    assert 0 <= half.min() < half.max() <= 1
    assert np.array_equal(half, noise(np.dtype(np.float16), (2, 3), 1))
