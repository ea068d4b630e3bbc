"""Replies of a worker, without a process."""

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
    """A contestant whose timer raises an error of lmconv."""

    closed = False

    def about(self) -> dict[str, Any]:
        return {"name": "one"}

    def timer(self, batch: int) -> Timer:
        raise InputError("no checkpoint of pfld", hint="give --weights FILE")

    def close(self) -> None:
        self.closed = True


def replies(contestant: Contestant, *requests: object) -> list[dict[str, Any]]:
    out = io.StringIO()
    answer([item if isinstance(item, str) else json.dumps(item) for item in requests], out, lambda: contestant)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_requests_are_answered_one_by_one() -> None:
    contestant = Contestant()
    assert replies(contestant, {"do": "about"}, {"do": "close"}, {"do": "about"}) == [
        {"ok": True, "about": {"name": "one"}},
        {"ok": True},
    ]
    assert contestant.closed


def test_the_end_of_the_requests_closes_the_contestant() -> None:
    contestant = Contestant()
    replies(contestant, {"do": "about"})
    assert contestant.closed


def test_an_error_of_lmconv_keeps_its_kind_and_hint() -> None:
    (reply,) = replies(Contestant(), {"do": "time", "batch": 1, "samples": 1})
    assert reply == {"ok": False, "kind": "input", "message": "no checkpoint of pfld", "hint": "give --weights FILE"}


@pytest.mark.parametrize("request_", ["nonsense", "[]", "{}", '{"do": "time"}'])
def test_an_invalid_request_gets_an_error_reply(request_: str) -> None:
    first, second = replies(Contestant(), request_, {"do": "about"})
    assert first["ok"] is False
    assert second["ok"] is True


def test_inputs_are_seeded_and_a_free_axis_gets_the_batch_size() -> None:
    pictures = noise(np.dtype(np.uint8), (-1, 4, 4, 3), 5)
    assert (pictures.shape, pictures.dtype, pictures.max() > 128) == ((5, 4, 4, 3), np.uint8, True)
    half = noise(np.dtype(np.float16), (2, 3), 5)
    assert (half.shape, half.dtype) == ((2, 3), np.float16)
    assert 0 <= half.min() < half.max() <= 1
    assert np.array_equal(half, noise(np.dtype(np.float16), (2, 3), 1))
