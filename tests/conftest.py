"""Fixtures of all tests: an empty folder, real data, the real networks with seeded weights, and a tiny network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from filelock import FileLock
from tests.helpers import Cli, Ran, tiny_onnx
from tests.record import Record

if TYPE_CHECKING:
    from lmconv.building.effort import Effort
    from lmconv.types import Precision

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Set before NumPy and PyTorch are imported: one test process runs per core, and the order of sums is fixed."""

Once: TypeAlias = Callable[[str, Callable[[Path], object]], Path]

SHARED = Path(__file__).parents[2] / "shared" / "data"
REQUIRED = "LMCONV_REQUIRE_REALDATA"
"""Environment variable: 1 if the real data must be present."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--record`."""
    parser.addoption("--record", type=Path, help="write date, commit, CPU, counts and seconds to this file")


def pytest_configure(config: pytest.Config) -> None:
    """Records the result in the process that receives the reports of all other processes."""
    if config.option.record and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(Record(config.option.record.absolute()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves exhaustive tests out unless `-m` names the mark, and skips tests on real data if the data is missing.

    CI does not skip tests on real data: the fixture `shared` fails. Slow tests run first, so that the run does not end
    with one process that still works on a slow test.
    """
    if "exhaustive" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("exhaustive")])
        items[:] = [item for item in items if not item.get_closest_marker("exhaustive")]
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    if not SHARED.is_dir() and os.environ.get(REQUIRED, "0") == "0":
        missing = pytest.mark.skip(reason="no real data beside the repository")
        for item in items:
            if item.get_closest_marker("realdata"):
                item.add_marker(missing)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of trained weights, annotated faces and golden outputs."""
    if not SHARED.is_dir():
        pytest.fail(f"the real data is missing, and {REQUIRED} asks for it")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps what fixtures of the whole run compute out of the cache of this machine's user."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs every test in an empty folder, without the checkpoints and faces of this machine."""
    for name in ("LMCONV_WEIGHTS", "LMCONV_FACES"):
        monkeypatch.delenv(name, raising=False)
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(place)


@pytest.fixture
def effort() -> Effort:
    """Effort of the command line's measurements: short, with a limit that even a busy machine does not exceed."""
    from lmconv.building.effort import Effort

    return Effort(slower=100.0, guard_rounds=9, screening_seconds=0.1, race_seconds=0.1, race_rounds=9)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], effort: Effort) -> Cli:
    """Runs the command line in this process: `cli("verify", path, "--json")`."""
    from lmconv.cli import run

    def call(*arguments: str | Path) -> Ran:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments], effort)
        out, err = capfd.readouterr()
        return Ran(code=code, out=out, err=err)

    return call


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once(name, make)` returns a folder that `make` fills once per run, even if several processes run the tests."""
    base = tmp_path_factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        place, made = common / name, common / f"{name}.made"
        with FileLock(common / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                make(place)
                made.touch()
        return place

    return folder


@pytest.fixture
def real_weights(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the trained checkpoints, which the command line searches."""
    monkeypatch.setenv("LMCONV_WEIGHTS", str(shared / "weights"))
    return shared / "weights"


@pytest.fixture(scope="session")
def seeded(once: Once) -> Path:
    """Folder with seeded checkpoints of the real backbones under the published names. Must not be changed."""

    def make(folder: Path) -> None:
        import torch
        from tests.goldens import make

        for model in make.MODELS:
            torch.save({"state_dict": make.seeded(model).state_dict()}, folder / f"{model}_model_best.pth.tar")

    return once("seeded", make)


@pytest.fixture
def weights(seeded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the seeded checkpoints, which the command line searches."""
    monkeypatch.setenv("LMCONV_WEIGHTS", str(seeded))
    return seeded


def export(model: str, weights: Path | None, out: Path, *variants: tuple[str, Precision]) -> Path:
    """Exports a model for each (target, precision); returns `out`."""
    from lmconv.building import assembling
    from lmconv.building.plain import plain_graph
    from lmconv.building.request import Conversion
    from lmconv.sources import resolve as source
    from lmconv.types import Variant

    plain = plain_graph(source.resolve(model, weights=weights), out)
    for target, precision in variants:
        assembling.build(Conversion(base=plain, out=out), Variant(target=target, precision=precision))
    return out


@pytest.fixture(scope="session")
def pfld_build(seeded: Path, once: Once) -> Path:
    """`build/` with pfld as onnx-fp32 and openvino-fp32, from the seeded checkpoint. Must not be changed."""
    from lmconv.types import Precision

    wanted = [("onnx", Precision.FP32), ("openvino", Precision.FP32)]
    return once("pfld", lambda folder: export("pfld", seeded, folder / "build", *wanted)) / "build"


@pytest.fixture
def build(pfld_build: Path, tmp_path: Path) -> Path:
    """Copy of `pfld_build`, as `build/` in the folder of the test."""
    return Path(shutil.copytree(pfld_build, tmp_path / "here" / "build", dirs_exist_ok=True))


@pytest.fixture(scope="session")
def tiny(once: Once) -> Path:
    """`tiny.onnx`, a network with a short export. Must not be changed."""
    content = tiny_onnx().SerializeToString()
    return once("tiny", lambda folder: (folder / "tiny.onnx").write_bytes(content)) / "tiny.onnx"


@pytest.fixture
def tunable(tiny: Path, once: Once) -> Path:
    """`tiny.onnx` in the working folder, and `faces`: 30 drawn training faces and 10 test faces, not to be changed."""
    from lmconv.synthetic.folder import write

    shutil.copy(tiny, "tiny.onnx")
    Path("faces").symlink_to(once("tuning", lambda folder: write(folder, {"testset": 10, "trainset": 30})))
    return Path("tiny.onnx")


@pytest.fixture(scope="session")
def tiny_build(tiny: Path, once: Once) -> Path:
    """`build/` with the tiny network as onnx-fp32, openvino-fp32 and openvino-bf16. Must not be changed."""
    from lmconv.types import Precision

    wanted = [("onnx", Precision.FP32), ("openvino", Precision.FP32), ("openvino", Precision.BF16)]
    return once("tiny_build", lambda folder: export(str(tiny), None, folder / "build", *wanted)) / "build"


@pytest.fixture
def small(tiny_build: Path, tmp_path: Path) -> Path:
    """Copy of the tiny network's artefacts, as `build/tiny` in the folder of the test."""
    return Path(shutil.copytree(tiny_build, tmp_path / "here" / "build", dirs_exist_ok=True)) / "tiny"


NETWORK = """
from torch import nn

class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, 8)

    def forward(self, x):
        return self.fc(x.flatten(1))
"""


@pytest.fixture(scope="session")
def own_build(once: Once) -> Path:
    """`flat.py` with a user-defined network, and `flat-Flat/onnx-fp32` of seed 7. Must not be changed."""

    def make(folder: Path) -> None:
        from lmconv.building import assembling
        from lmconv.building.plain import plain_graph
        from lmconv.building.request import Conversion
        from lmconv.sources import resolve as source
        from lmconv.types import Variant

        (folder / "flat.py").write_text(NETWORK, encoding="utf-8")
        flat = source.resolve(f"{folder / 'flat.py'}:Flat", size=(32, 32), landmarks=4, seed=7)
        assembling.build(Conversion(base=plain_graph(flat, folder), out=folder), Variant(target="onnx"))

    return once("own", make)


@pytest.fixture(scope="session")
def trained_build(shared: Path, once: Once) -> Path:
    """`build/` with the trained networks as onnx-fp32 and openvino-fp32, for tests marked slow. Must not be changed."""
    from lmconv.types import Precision

    def make(folder: Path) -> None:
        wanted = [("onnx", Precision.FP32), ("openvino", Precision.FP32)]
        for model in ("pfld", "mobilefacenet"):
            export(model, shared / "weights" / model / f"{model}_model_best.pth.tar", folder / "build", *wanted)

    return once("trained", make) / "build"


@pytest.fixture(scope="session")
def mobilefacenet_build(seeded: Path, once: Once) -> Path:
    """`build/` with mobilefacenet as onnx-fp32 and openvino-fp32, from the seeded checkpoint, for tests marked slow."""
    from lmconv.types import Precision

    wanted = [("onnx", Precision.FP32), ("openvino", Precision.FP32)]
    return once("mobilefacenet", lambda folder: export("mobilefacenet", seeded, folder / "build", *wanted)) / "build"
