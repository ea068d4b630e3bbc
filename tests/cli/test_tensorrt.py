"""Engines on the command line, on a machine that has no TensorRT: what is refused, when, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.converter.targets.test_tensorrt import HERE, engine
from tests.helpers import Cli, contents

from lmconv.console import Console
from lmconv.plugins import TARGETS
from lmconv.trt import device, log

NEEDED = TARGETS.load("tensorrt").requires()
MISSING = pytest.mark.skipif(NEEDED is None, reason="TensorRT and a GPU are here")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--batch", "1:8:64"), "--batch MIN:BEST:MAX is for engines"),
        (("--workspace", "1GiB"), "--workspace is for engines"),
        (("--builder-level", "0"), "--builder-level is for engines"),
        (("--timing-cache", "x"), "--timing-cache is for engines"),
        (("--locked",), "--locked is for engines"),
        (("--version-compatible",), "--version-compatible is for engines"),
        (("--hardware-compatible",), "--hardware-compatible is for engines"),
        (("--to", "tensorrt", "--batch", "8:1:64"), "--batch 8:1:64 is not in ascending order"),
        (("--to", "tensorrt", "--batch", "1:8"), "--batch '1:8' is neither a number"),
        (("--to", "tensorrt", "--batch", "0:8:64"), "--batch '0:8:64' is neither a number"),
        (("--to", "tensorrt", "--workspace", "2GB"), "--workspace '2GB' is not a size"),
        (("--to", "tensorrt", "--workspace", "0MiB"), "--workspace '0MiB' is not a size"),
        (("--to", "tensorrt", "--builder-level", "6"), "--builder-level"),
    ],
)
def test_wrong_usage_is_found_before_any_work(cli: Cli, tiny: Path, options: tuple[str, ...], said: str) -> None:
    cli("export", tiny, *options).refused(2, said)
    assert list(Path().iterdir()) == []


@MISSING
def test_a_missing_package_or_device_is_3_and_says_what_to_install(cli: Cli, tiny: Path) -> None:
    ran = cli("export", tiny, "--to", "tensorrt", "--batch", "1:2:4", "--locked", "--workspace", "512MiB")
    ran.refused(3, "tensorrt cannot be built here", str(NEEDED))
    assert list(Path().iterdir()) == []


@MISSING
def test_a_profile_does_not_hinder_other_targets(cli: Cli, tiny: Path) -> None:
    ran = cli("export", tiny, "--to", "onnx", "--to", "tensorrt", "--batch", "1:2:4", "--no-guard", "--json")
    assert ran.code == 3
    assert [row["target"] for row in ran.document["artifacts"]] == ["onnx"]


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_an_engine_from_elsewhere_is_4_until_it_is_trusted(cli: Cli, small: Path, command: str) -> None:
    folder = engine(small, HERE)
    cli(command, folder).refused(4, "model.engine was not built by you", "--trust")


@MISSING
@pytest.mark.parametrize("command", ["verify", "bench"])
def test_a_trusted_engine_is_3_where_there_is_no_tensorrt(cli: Cli, small: Path, command: str) -> None:
    folder = engine(small, HERE)
    cli(command, folder, "--trust").refused(3, str(folder), str(NEEDED))
    cli(command, folder).refused(3, str(NEEDED))  # once is enough


def test_a_changed_engine_is_4_even_if_trusted(cli: Cli, small: Path) -> None:
    folder = engine(small, HERE)
    (folder / "model.engine").write_bytes(b"something else")
    cli("verify", folder, "--trust").refused(4, "model.engine was changed after it was written")


def test_a_recipe_says_how_the_engine_is_built(cli: Cli, small: Path, tiny: Path) -> None:
    folder = engine(small, HERE, engine={"batches": [1, 2, 4], "builder_level": 1})
    before = contents(small)
    ran = cli("export", tiny, "--to", "tensorrt", "--recipe", folder, "--builder-level", "5")
    ran.refused(2, "--recipe and --builder-level both determine how the engine is built")
    assert contents(small) == before


def test_doctor_tells_the_gpu_or_that_there_is_none(cli: Cli) -> None:
    gpu = cli("doctor", "--json").document["machine"]["gpu"]
    assert (gpu is None) == (device.missing() is not None)
    assert ("compute capability" in cli("doctor").out) == (gpu is not None)


def test_what_tensorrt_logs_is_shown_where_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        with Console(verbose=verbose).logs():
            log.forward("WARNING", f"heard {verbose}")
            log.forward("VERBOSE", "every tactic")
    log.forward("ERROR", "after")
    assert capfd.readouterr().err == "lmconv.tensorrt: heard True\n"
