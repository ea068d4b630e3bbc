from __future__ import annotations

import pytest

from lmconv.trt.compatibility import mismatch, numbers

A10 = {
    "gpu": "NVIDIA A10",
    "compute_capability": "8.6",
    "tensorrt": "10.9.0",
    "cuda": "12.8",
    "driver": "570.10",
    "platform": "linux-x86_64",
    "version_compatible": False,
    "hardware_compatible": False,
}
H100 = A10 | {"gpu": "NVIDIA H100", "compute_capability": "9.0", "tensorrt": "11.4.0", "cuda": "13.0"}
T4 = A10 | {"gpu": "Tesla T4", "compute_capability": "7.5"}


def test_the_same_machine_matches_with_another_driver() -> None:
    assert mismatch(A10, A10 | {"driver": "580.1", "cuda": "13.0"}) is None


def test_another_machine_is_described_in_one_line() -> None:
    assert mismatch(A10, H100) == (
        "built for NVIDIA A10 (sm_86) with TensorRT 10.9.0; here NVIDIA H100 (sm_90) with TensorRT 11.4.0: "
        "the engine needs the same compute capability, the engine needs the same TensorRT version"
    )


@pytest.mark.parametrize(
    ("built", "here", "reason"),
    [
        ({}, {"gpu": "NVIDIA A40"}, "the engine needs the same GPU model"),
        ({}, {"compute_capability": "8.9"}, "the engine needs the same compute capability"),
        ({}, {"tensorrt": "10.9.1"}, "the engine needs the same TensorRT version"),
        ({}, {"platform": "linux-aarch64"}, "the engine needs linux-x86_64, and this is linux-aarch64"),
        ({"cuda": "13.0"}, {}, "the engine needs CUDA 13, and this driver supports 12"),
        ({"cuda": "12.9"}, {}, None),
        ({"version_compatible": True}, {"tensorrt": "10.16.1"}, None),
        ({"version_compatible": True}, {"tensorrt": "11.0.0"}, None),
        ({"version_compatible": True}, {"tensorrt": "10.8.0"}, "the same TensorRT version or a newer version"),
        ({"version_compatible": True, "tensorrt": "8.6.1"}, {"tensorrt": "10.0.1"}, None),
        ({"version_compatible": True, "tensorrt": "8.6.1"}, {"tensorrt": "11.4.0"}, "engines of TensorRT 10 and newer"),
        ({"version_compatible": True}, {"gpu": "NVIDIA A40"}, "the engine needs the same GPU model"),
        ({"hardware_compatible": True}, {"gpu": "NVIDIA H100", "compute_capability": "9.0"}, None),
        ({"hardware_compatible": True}, {"gpu": "NVIDIA B200", "compute_capability": "10.0"}, None),
        ({"hardware_compatible": True}, T4, "compute capability 8.0 or newer"),
        ({"hardware_compatible": True}, {"tensorrt": "10.9.1"}, "the engine needs the same TensorRT version"),
    ],
)
def test_an_engine_matches_or_the_reason_is_given(
    built: dict[str, object], here: dict[str, object], reason: str | None
) -> None:
    message = mismatch(A10 | built, A10 | here)
    assert message is None if reason is None else reason in (message or "")


@pytest.mark.parametrize("key", ["gpu", "compute_capability", "tensorrt", "platform"])
def test_a_missing_entry_of_the_manifest_does_not_match(key: str) -> None:
    assert mismatch({name: value for name, value in A10.items() if name != key}, A10)
    assert mismatch({}, A10)


@pytest.mark.parametrize(
    ("text", "expected"), [("10.16.1.11", (10, 16, 1, 11)), ("8.6.1.post1", (8, 6, 1)), (None, ()), ("", ()), ("x", ())]
)
def test_a_version_is_read_up_to_the_first_part_that_is_no_number(text: object, expected: tuple[int, ...]) -> None:
    assert numbers(text) == expected
