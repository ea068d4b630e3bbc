from __future__ import annotations

import logging

import pytest

from lmconv.trt import log


def test_errors_and_warnings_are_kept_and_all_messages_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "lmconv.tensorrt"), log.collect() as messages:
        for severity in ("VERBOSE", "INFO", "WARNING", "ERROR", "INTERNAL_ERROR"):
            log.forward(severity, f"{severity} of 100%")
    assert messages.errors == ["ERROR of 100%", "INTERNAL_ERROR of 100%"]
    assert messages.warnings == ["WARNING of 100%"]
    assert [record.levelno for record in caplog.records] == [10, 20, 30, 40, 50]


def test_the_reason_is_the_first_error_in_one_line() -> None:
    with log.collect() as messages:
        log.forward("WARNING", "mind this")
        assert messages.reason == "mind this"
        log.forward("ERROR", "first\n  of two")
        log.forward("ERROR", "second")
    assert messages.reason == "first of two"


def test_without_an_error_the_reason_says_that_there_is_none() -> None:
    with log.collect() as messages:
        log.forward("INFO", "all is well")
    assert messages.reason == "TensorRT gives no reason (-v shows its log)"


def test_each_listener_collects_messages_while_it_is_active() -> None:
    with log.collect() as outer:
        with log.collect() as inner:
            log.forward("ERROR", "inside")
        log.forward("ERROR", "after")
    assert (outer.errors, inner.errors) == (["inside", "after"], ["inside"])
