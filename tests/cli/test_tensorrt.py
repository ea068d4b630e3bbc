"""Engines on the command line of a machine without TensorRT: refusals, their time and their messages."""

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
    ("options", "message"),
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
def test_wrong_usage_is_refused_before_any_work(cli: Cli, tiny: Path, options: tuple[str, ...], message: str) -> None:
    cli("export", tiny, *options).refused(2, message)
    assert list(Path().iterdir()) == []


@MISSING
def test_a_missing_package_or_device_ends_with_exit_code_3_and_names_the_remedy(cli: Cli, tiny: Path) -> None:
    ran = cli("export", tiny, "--to", "tensorrt", "--batch", "1:2:4", "--locked", "--workspace", "512MiB")
    ran.refused(3, "tensorrt cannot be built here", str(NEEDED))
    assert list(Path().iterdir()) == []


@MISSING
def test_a_profile_does_not_affect_other_targets(cli: Cli, tiny: Path) -> None:
    ran = cli("export", tiny, "--to", "onnx", "--to", "tensorrt", "--batch", "1:2:4", "--no-guard", "--json")
    assert ran.code == 3
    assert [row["target"] for row in ran.document["artifacts"]] == ["onnx"]


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_an_unknown_engine_ends_with_exit_code_4_without_trust(cli: Cli, small: Path, command: str) -> None:
    folder = engine(small, HERE)
    cli(command, folder).refused(4, "model.engine was not built by you", "--trust")


@MISSING
@pytest.mark.parametrize("command", ["verify", "bench"])
def test_a_trusted_engine_ends_with_exit_code_3_without_tensorrt(cli: Cli, small: Path, command: str) -> None:
    folder = engine(small, HERE)
    cli(command, folder, "--trust").refused(3, str(folder), str(NEEDED))
    cli(command, folder).refused(3, str(NEEDED))  # the first call has added the engine to the ledger


def test_a_changed_engine_ends_with_exit_code_4_even_with_trust(cli: Cli, small: Path) -> None:
    folder = engine(small, HERE)
    (folder / "model.engine").write_bytes(b"something else")
    cli("verify", folder, "--trust").refused(4, "model.engine was changed after it was written")


def test_a_recipe_and_an_option_for_engines_contradict_each_other(cli: Cli, small: Path, tiny: Path) -> None:
    folder = engine(small, HERE, engine={"batches": [1, 2, 4], "builder_level": 1})
    before = contents(small)
    ran = cli("export", tiny, "--to", "tensorrt", "--recipe", folder, "--builder-level", "5")
    ran.refused(2, "--recipe and --builder-level both determine how the engine is built")
    assert contents(small) == before


def test_doctor_describes_the_gpu_if_there_is_one(cli: Cli) -> None:
    gpu = cli("doctor", "--json").document["machine"]["gpu"]
    assert (gpu is None) == (device.missing() is not None)
    assert ("compute capability" in cli("doctor").out) == (gpu is not None)


def test_the_log_of_tensorrt_is_shown_with_verbose(capfd: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        with Console(verbose=verbose).logs():
            log.forward("WARNING", f"heard {verbose}")
            log.forward("VERBOSE", "every tactic")
    log.forward("ERROR", "after")
    assert capfd.readouterr().err == "lmconv.tensorrt: heard True\n"
