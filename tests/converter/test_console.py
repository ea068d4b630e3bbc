"""Progress: a bar with the open phases on a terminal, seconds of each phase in the log."""

from __future__ import annotations

import io
import logging
import re

import pytest

from lmconv.console import Console, announced, phase


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_phases_nest_and_count_their_parts() -> None:
    seen: list[str] = []
    with announced(seen.append), phase("pfld onnx-int8"), phase("rounding", 2) as part:
        part()
        part()
    assert seen == [
        "pfld onnx-int8",
        "pfld onnx-int8: rounding",
        "pfld onnx-int8: rounding 1 of 2",
        "pfld onnx-int8: rounding 2 of 2",
        "pfld onnx-int8",
        "",
    ]


def test_a_phase_ends_where_its_work_fails() -> None:
    seen: list[str] = []
    with announced(seen.append), pytest.raises(ValueError, match="x"), phase("a"), phase("b"):
        raise ValueError("x")
    assert seen == ["a", "a: b", "a", ""]


def test_a_terminal_shows_the_phases_beside_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with Console().progress(2, "converting") as step:
        with phase("timing widths"):
            Console().note("a note")
        step()
    lines = re.split(r"[\r\n]", terminal.getvalue())
    assert any(line.endswith("timing widths") and "0%" in line for line in lines)
    assert any("50%" in line and "timing" not in line for line in lines)
    assert "\x1b[Ka note" in lines


def test_a_long_line_keeps_the_innermost_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    with Console().progress(2, "converting"), phase("x" * 80), phase("rounding 3 of 4"):
        pass
    lines = re.split(r"[\r\n]", terminal.getvalue())
    assert any(line.endswith("x: rounding 3 of 4") for line in lines)
    assert max(len(line.removeprefix("\x1b[?25l")) for line in lines) <= 80


def test_a_log_has_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().progress(1, "converting") as step, phase("timing widths"):
        step()
    assert capsys.readouterr().err == ""


def test_the_log_has_the_seconds_of_each_phase(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lmconv"), phase("pfld"), phase("timing widths"):
        pass
    assert [re.sub(r"[\d.]+ s", "N s", line) for line in caplog.messages] == [
        "pfld: timing widths: N s, processor N s",
        "pfld: N s, processor N s",
    ]
