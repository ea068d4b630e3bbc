"""Description of a GPU from the output of nvidia-smi; tests/cli tests machines without a GPU."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lmconv.trt import device
from lmconv.trt.faults import Fault

SMI = """#!/bin/sh
case "$*" in
  *clocks_event_reasons*) echo 'Field "clocks_event_reasons.active" is not a valid field to query.'; exit 2;;
  *clocks_throttle_reasons*) echo "1980, 2619, 34, 117.52, P0, 3, 0x0000000000000004";;
esac
"""


def test_the_state_is_parsed() -> None:
    cells = ["1980", "2619", "34", "117.52", "P0", "0", "0x0000000000000024"]
    assert device.parse_state(cells) == {
        "sm_mhz": 1980,
        "memory_mhz": 2619,
        "temperature_c": 34,
        "power_w": 117.52,
        "performance_state": "P0",
        "utilisation_percent": 0,
        "throttle": ["software power cap", "software thermal slowdown"],
    }


def test_unsupported_fields_are_none() -> None:
    state = device.parse_state(["1980", "[N/A]", "34", "[Not Supported]", "[N/A]", "[N/A]", "[N/A]"])
    assert state["sm_mhz"] == 1980
    assert [key for key, value in state.items() if value is None] == [
        "memory_mhz",
        "power_w",
        "performance_state",
        "utilisation_percent",
        "throttle",
    ]


def test_without_nvidia_smi_all_fields_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    state = device.state()
    assert set(state) == {*device.FIELDS, "throttle"}
    assert set(state.values()) == {None}


def test_an_older_driver_is_asked_for_its_own_fields(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI, encoding="utf-8")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    state = device.state("0000:01:00.0")
    assert (state["sm_mhz"], state["throttle"]) == (1980, ["software power cap"])


@pytest.mark.parametrize(
    ("mask", "words"), [(0, []), (1, ["idle"]), (0x48, ["hardware slowdown", "hardware thermal slowdown"])]
)
def test_reasons_of_lowered_clocks_are_words(mask: int, words: list[str]) -> None:
    assert device.throttle_reasons(mask) == words


def test_an_unknown_reason_is_called_unknown() -> None:
    assert device.throttle_reasons(0x1000 | 0x4) == ["software power cap", "unknown (0x1000)"]


@pytest.mark.parametrize(("number", "version"), [(12040, "12.4"), (13000, "13.0"), (11080, "11.8")])
def test_a_cuda_version_number_becomes_a_version(number: int, version: str) -> None:
    assert device.cuda_version(number) == version


@pytest.mark.skipif(device.missing() is None, reason="TensorRT and a GPU are here")
def test_without_a_device_or_package_a_fault_is_raised() -> None:
    with pytest.raises(Fault, match="engines cannot be used on this machine: ") as error:
        device.describe()
    assert error.value.kind == "device"
    assert error.value.hint


def test_a_thread_releases_its_context_when_it_ends() -> None:
    class Context:
        ended = 0

        def pop(self) -> None:
            self.ended = threading.get_ident()

    context = Context()

    def work() -> None:
        device._thread.guard = device._ContextGuard(context)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert context.ended == thread.ident
