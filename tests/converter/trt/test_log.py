from __future__ import annotations

import logging

import pytest

from lmconv.trt import log


def test_errors_and_warnings_are_kept_and_all_is_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "lmconv.tensorrt"), log.collect() as said:
        for severity in ("VERBOSE", "INFO", "WARNING", "ERROR", "INTERNAL_ERROR"):
            log.forward(severity, f"{severity} of 100%")
    assert said.errors == ["ERROR of 100%", "INTERNAL_ERROR of 100%"]
    assert said.warnings == ["WARNING of 100%"]
    assert [record.levelno for record in caplog.records] == [10, 20, 30, 40, 50]


def test_the_reason_is_the_first_error_in_one_line() -> None:
    with log.collect() as said:
        log.forward("WARNING", "mind this")
        assert said.reason == "mind this"
        log.forward("ERROR", "first\n  of two")
        log.forward("ERROR", "second")
    assert said.reason == "first of two"


def test_silence_is_told_as_such() -> None:
    with log.collect() as said:
        log.forward("INFO", "all is well")
    assert said.reason == "TensorRT gives no reason (-v shows its log)"


def test_each_listener_hears_its_own_time() -> None:
    with log.collect() as outer:
        with log.collect() as inner:
            log.forward("ERROR", "inside")
        log.forward("ERROR", "after")
    assert (outer.errors, inner.errors) == (["inside", "after"], ["inside"])
