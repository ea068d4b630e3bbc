"""Networks of users as in docs/own-network.md, and their errors."""

from __future__ import annotations

import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers import COMMAND, Cli, other_package, python

from lmconv.store import artifact as artifacts
from lmconv.store import reference as reference_file

PAGE = (Path(__file__).parents[2] / "docs" / "own-network.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in PAGE.split("```")[1::2] for line in block.splitlines() if line.startswith("lmconv ")]
OWN = ("--input", "3x32x32", "--landmarks", "4", "--random-weights")

USERS = """
import torch
from torch import nn

print("imported")

class Flat(nn.Module):
    def __init__(self, out=8):
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, out)

    def forward(self, x):
        return self.fc(x.flatten(1))

def raises():
    return {}["key"]

def leaves():
    raise SystemExit("done")

def pair():
    return Flat(), None

def odd():
    return Flat(7)

def more(landmarks):
    return Flat(2 * landmarks + 4)

def maps():
    return nn.Conv2d(3, 4, 3, 2, 1)

def halves():
    return Flat().half()

def needs(depth):
    return Flat()

class NaN(Flat):
    def forward(self, x):
        return torch.log(-1 - super().forward(x).abs())

class Fails(Flat):
    def forward(self, x):
        raise ValueError("no such crop")

class Branches(Flat):
    def forward(self, x):
        y = super().forward(x)
        return y if y.sum() > 0 else 2 * y

class Later(Flat):
    calls = 0

    def trouble(self):
        raise ValueError("tired")

    def forward(self, x):
        Later.calls += 1
        print("called")
        if Later.calls > 1:
            self.trouble()
        return super().forward(x)

class Exits(Later):
    def trouble(self):
        raise SystemExit(0)

class Hole(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 4, 3, 2, 1)

    def forward(self, x):
        y = super().forward(x)
        return torch.where(torch.arange(16) == 3, torch.nan, y)

def tiny_maps():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(2))

class Inplace(Flat):
    def forward(self, x):
        return super().forward(x.mul_(2).sub_(1))

class Chance(Flat):
    def forward(self, x):
        return super().forward(x) + torch.rand(1)

class One(Flat):
    def forward(self, x):
        return self.fc(x.view(1, -1)[:, : 3 * 32 * 32])

def scripted():
    return torch.jit.script(Flat())

instance = Flat()

class Words(Flat):
    def forward(self, x):
        return {"points": super().forward(x).tolist()}

number = 3

def fewer():
    return Flat(6)
"""


BROKEN = """from lmconv.types import Backbone, landmark_spec

def build(landmarks):
    raise ValueError("worn out")

plugin = Backbone(spec=landmark_spec("bad", "bad", size=(8, 8), landmarks=4), build=build, summary="breaks")
"""
POOLED = """
from torch import nn

def build(landmarks):
    pool = nn.AdaptiveAvgPool2d(4)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(128, 2 * landmarks))
"""


@pytest.fixture(autouse=True)
def own_imports() -> Iterator[None]:
    """Unloads modules of user code after every test: every test imports its own files."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name in ("my_models", "users", "flat") or name.startswith("lmconv_user_"):
            del sys.modules[name]


@pytest.fixture
def users() -> Path:
    path = Path("users.py")
    path.write_text(USERS, encoding="utf-8")
    return path


@pytest.fixture
def exported(own_build: Path) -> Path:
    """Copies `own_build` to the current folder; returns the path of the artefact."""
    shutil.copytree(own_build, ".", dirs_exist_ok=True)
    return Path("flat-Flat/onnx-fp32")


# The page docs/own-network.md


def test_the_commands_of_the_page_run(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("my_models.py").write_text(PYTHON[0], encoding="utf-8")
    Path("save.py").write_text(PYTHON[1], encoding="utf-8")
    monkeypatch.syspath_prepend(".")
    runpy.run_path("save.py")
    assert len(COMMANDS) == 3
    documents = []
    for line in COMMANDS:
        program, *arguments = line.split()
        assert program == "lmconv"
        ran = cli(*arguments, "--json")
        assert ran.code == 0, ran.err
        documents.append(ran.document)
    exported, verified, benched = documents
    assert [row["model"] for row in exported["artifacts"]] == ["my_models-build"] * 2
    for row in verified["artifacts"]:
        assert row["passed"]
        assert row["parity"]["against"] == "torch"
    assert benched["rows"][0]["ratio_torch"] > 0


@pytest.mark.slow
def test_a_package_can_add_a_network_by_entry_point(tmp_path: Path) -> None:
    module = PYTHON[0] + PYTHON[2].replace("from my_package.models import build\n", "")
    env = other_package(tmp_path / "site", "[lmconv.backbones]\nmy_net = lmconv_other:plugin\n", module)
    ran = python(COMMAND, "export", "my_net", "--random-weights", "--json", env=env)
    assert ran.code == 0, ran.err
    assert Path(ran.document["artifacts"][0]["path"]) == Path("build/my_net/onnx-fp32")


# Export and verification


def test_the_artefact_computes_the_landmarks_of_the_network(cli: Cli, users: Path, tmp_path: Path) -> None:
    network = torch.nn.Linear(3 * 32 * 32, 8)
    torch.save({f"module.fc.{key}": value for key, value in network.state_dict().items()}, tmp_path / "x.pth")
    options = ("--input", "3x32x32", "--landmarks", "4", "--weights", tmp_path / "x.pth", "--name", "mine")
    assert cli("export", f"{users}:Flat", *options).code == 0
    artifact = artifacts.read(Path("build/mine/onnx-fp32"))
    reference = reference_file.read(artifact)
    with torch.inference_mode():
        expected = network(torch.from_numpy(reference.inputs["input"]).flatten(1)).reshape(8, 4, 2).numpy()
    np.testing.assert_allclose(reference.outputs.landmarks, expected, atol=1e-6)
    assert artifact.spec.backbone == "users.py:Flat"
    assert (artifact.spec.landmarks, artifact.spec.input_size) == (4, (32, 32))


def test_heatmaps_are_decoded_in_the_graph(cli: Cli, users: Path) -> None:
    ran = cli("export", f"{users}:maps", *OWN, "--decode", "soft-argmax:5", "--to", "onnx", "--to", "openvino")
    assert ran.code == 0, ran.err
    artifact = artifacts.read(Path("build/users-maps/openvino-fp32"))
    assert [tensor.shape for tensor in artifact.spec.outputs] == [("N", 4, 2), ("N", 4, 16, 16)]
    verified = cli("verify", artifact.path, "--model", f"{users}:maps", "--json").document["artifacts"][0]
    assert verified["gates"] == {"max_abs": "passed", "max_map": "passed"}


def test_random_weights_are_recorded_by_seed_and_restored(cli: Cli, exported: Path) -> None:
    assert artifacts.read(exported).parents["source"]["seed"] == 7
    row = cli("verify", exported, "--model", "flat.py:Flat", "--json").document["artifacts"][0]
    assert (row["trained"], row["ion"], row["parity"]["against"]) == (False, None, "torch")


def test_user_code_runs_only_if_it_is_named(cli: Cli, exported: Path) -> None:
    Path("flat.py").write_text("raise RuntimeError('was run')\n", encoding="utf-8")
    ran = cli("verify", exported, "--json")
    assert ran.code == 0
    assert ran.document["artifacts"][0]["parity"]["against"] == "reference"
    assert "flat.py:Flat is not run unless named (--model)" in ran.err
    named = cli("verify", exported, "--model", "flat.py:Flat")
    named.refused(4, "flat.py:1", "RuntimeError: was run")


def test_changed_user_code_is_exported_again(cli: Cli, exported: Path) -> None:
    before, code = artifacts.read(exported).parameters, Path("flat.py").read_text(encoding="utf-8")
    Path("flat.py").write_text(code.replace("32, 8)", "32, 8, bias=False)"), encoding="utf-8")
    assert cli("export", "flat.py:Flat", *OWN, "--seed", "7", "--out", ".").code == 0
    assert artifacts.read(exported).parameters == before - 8


def test_output_of_user_code_is_not_in_the_document(cli: Cli, users: Path) -> None:
    ran = cli("export", f"{users}:pair", *OWN, "--json")
    assert len(ran.document["errors"]) == 1
    assert "imported" in ran.err


# Errors in user code


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("raises", ("users.py:16: your network's code raises KeyError: 'key'",)),
        ("leaves", ("users.py:19: your network's code raises SystemExit: done",)),
        ("needs", ("your network's code raises TypeError", "missing 1 required positional argument: 'depth'")),
        ("pair", ("users.py:pair returns a tuple, not a torch.nn.Module", "not a tuple with the network")),
        ("number", ("users.py has no function number",)),
        ("nothing", ("users.py has no function nothing", "known: Branches, Chance, Exits")),
        ("Chance", ("users.py:Chance computes something else each time", "random numbers in Chance", "dropout")),
        ("instance", ("users.py:instance is a network, not a function that builds a network",)),
        ("Words", ("users.py:Words computes a dict, not a tensor",)),
        ("Fails", ("users.py:45: your network's code raises ValueError: no such crop", "is --input right")),
        ("NaN", ("users.py:NaN: random weights, seed 0 computes NaN or infinity",)),
        ("Branches", ("users.py:50: Python code reads a number that depends on the input", "torch.where")),
    ],
)
def test_an_error_in_user_code_is_reported_in_one_line(
    cli: Cli, users: Path, name: str, parts: tuple[str, ...]
) -> None:
    cli("export", f"{users}:{name}", *OWN).refused(4, *parts)
    assert not list(Path("build").glob("*/*-*"))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("odd", ("users.py:odd has no output of 4 points", "(N, 7)")),
        ("more", ("users.py:more has no output of 4 points", "(N, 12)", "--coordinates xyz")),
        ("fewer", ("users.py:fewer has no output of 4 points", "use --landmarks 3")),
        ("maps", ("users.py:maps has no output of 4 points", "use --landmarks 4 --decode argmax")),
    ],
)
def test_an_output_without_these_landmarks_is_a_wrong_option(
    cli: Cli, users: Path, name: str, parts: tuple[str, ...]
) -> None:
    cli("export", f"{users}:{name}", *OWN).refused(4 if name == "odd" else 2, *parts)


@pytest.mark.parametrize(("name", "what"), [("Later", "ValueError: tired"), ("Exits", "SystemExit: 0")])
def test_an_error_on_a_later_call_is_reported_as_an_error_of_user_code(
    cli: Cli, users: Path, name: str, what: str
) -> None:
    ran = cli("export", f"{users}:{name}", *OWN, "--json")
    assert ran.code == 4
    assert ran.document["artifacts"] == []
    assert f"your network's code raises {what}" in ran.document["errors"][0]["message"]
    assert "called" in ran.err


@pytest.mark.slow
def test_user_code_that_ends_its_process_does_not_hide_other_errors(cli: Cli, users: Path, tiny: Path) -> None:
    users.write_text("import os\ndef build():\n    os._exit(3)\n", encoding="utf-8")
    both = (f"{users}:build", "pfld", "--input", "3x32x32", "--landmarks", "68", "--random-weights")
    cli("export", *both).refused(2, "--input is for a network of your own")
    ran = cli("export", f"{users}:build", f"{users}:other", *OWN)
    assert ran.code == 4
    assert "the process that converted users.py:build ended with 3" in ran.out
    assert "users.py has no function other" in ran.out


def test_heatmaps_with_nan_are_refused(cli: Cli, users: Path) -> None:
    cli("export", f"{users}:Hole", *OWN, "--decode", "argmax").refused(4, "computes NaN or infinity")


def test_heatmaps_of_two_cells_are_refused(cli: Cli, users: Path) -> None:
    cli("export", f"{users}:tiny_maps", *OWN, "--decode", "argmax").refused(2, "has no heatmaps", "(N, 4, 2, 2)")


def test_soft_arg_max_is_exported_in_half_precision(cli: Cli, users: Path) -> None:
    options = (
        "--decode",
        "soft-argmax:20",
        "--precision",
        "fp16",
        "--no-guard",
    )  # no guard: the only layer stays float32
    ran = cli("export", f"{users}:maps", *OWN, *options)
    assert ran.code == 0, ran.err


@pytest.mark.slow
def test_each_input_size_of_a_network_is_compared_at_its_size(cli: Cli) -> None:
    Path("pooled.py").write_text(POOLED, encoding="utf-8")
    for side in (32, 48):
        options = ("--input", f"3x{side}x{side}", "--landmarks", "4", "--random-weights", "--name", f"at{side}")
        assert cli("export", "pooled.py:build", *options).code == 0
    both = cli("verify", "build/at32/onnx-fp32", "build/at48/onnx-fp32", "--model", "pooled.py:build", "--json")
    assert [row["passed"] for row in both.document["artifacts"]] == [True, True]


def test_a_forward_that_changes_its_input_is_converted(cli: Cli, users: Path) -> None:
    assert cli("export", f"{users}:Inplace", *OWN).code == 0
    verified = cli("verify", "build/users-Inplace/onnx-fp32", "--model", f"{users}:Inplace", "--json")
    assert verified.document["artifacts"][0]["passed"]


def test_a_module_in_the_current_folder_is_found_by_name(cli: Cli, users: Path) -> None:
    assert cli("export", "users:Flat", *OWN).code == 0
    cli("export", "nowhere.models:build", *OWN).refused(4, "module nowhere does not exist", "my_models.py:build")


def test_the_option_model_is_only_for_user_networks(cli: Cli, small: Path) -> None:
    cli("verify", small / "onnx-fp32", "--model", "pfld").refused(2, "--model 'pfld' is not FILE.py:NAME")
    cli("bench", small / "onnx-fp32", "--model", "pfld").refused(2, "--model 'pfld' is not FILE.py:NAME")


@pytest.mark.slow
def test_a_broken_package_hides_no_other_network(cli: Cli, tmp_path: Path) -> None:
    module = BROKEN
    env = other_package(tmp_path / "site", "[lmconv.backbones]\nbad = lmconv_other:plugin\n", module)
    ran = python(COMMAND, "export", "bad", "--random-weights", env=env)
    ran.refused(4, "lmconv_other.py:4: your network's code raises ValueError: worn out")
    listed = python(COMMAND, "models", "--json", env=env)
    assert "pfld" in [row["name"] for row in listed.document["models"]]
    assert [row["model"] for row in listed.document["errors"]] == ["bad"]


def test_the_traceback_of_user_code_is_shown_with_verbose(cli: Cli, users: Path) -> None:
    ran = cli("export", f"{users}:raises", *OWN, "-v")
    assert ran.code == 4
    assert 'return {}["key"]' in ran.err
    assert "Traceback" in ran.err


def test_a_syntax_error_is_reported_with_its_line(cli: Cli) -> None:
    Path("broken.py").write_text("x = 1\ndef build(:\n", encoding="utf-8")
    cli("export", "broken.py:build", *OWN).refused(4, "broken.py:2: your network's code raises SyntaxError")


def test_a_missing_import_of_user_code_is_reported_with_its_line(cli: Cli) -> None:
    Path("needy.py").write_text("import surely_not_installed\n", encoding="utf-8")
    cli("export", "needy.py:build", *OWN).refused(4, "needy.py:1", "No module named 'surely_not_installed'")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("users.py", *OWN), ("users.py is a file", "users.py:build")),
        (("users.py:Flat", "--landmarks", "4", "--random-weights"), ("needs --input", "--input 3x112x112")),
        (("users.py:Flat", "--input", "3x32x32", "--random-weights"), ("needs --landmarks",)),
        (("users.py:Flat", "--input", "3x32x32", "--landmarks", "4"), ("needs --weights FILE", "--random-weights")),
        (("users.py:Flat", "--input", "32x32", "--landmarks", "4"), ("--input '32x32' is not 3xHEIGHTxWIDTH",)),
        (("users.py:Flat", *OWN, "--name", "../up"), ("'../up' cannot be the name of a folder",)),
        (("users.py:Flat", *OWN, "--name", ".."), ("cannot be the name of a folder",)),
        (("users.py:Flat", *OWN, "--name", "a/b"), ("cannot be the name of a folder",)),
        (("users.py:Flat", *OWN, "--name", "漢" * 34), ("cannot be the name of a folder",)),
        (("users.py:Flat", *OWN, "--name", " "), ("cannot be the name of a folder",)),
        (("users.py:", *OWN), ("users.py is a file", "users.py:build")),
        (("users.py:Flat", *OWN, "--preprocess", "BGR,0"), ("--preprocess 'BGR,0' cannot be read",)),
        (("users.py:Flat", *OWN, "--decode", ""), ("--decode '' is not known",)),
        (("users.py:Flat", "--input", "3x99999x9", "--landmarks", "4"), ("is not 3xHEIGHTxWIDTH",)),
        (("users.py:Flat", *OWN, "--name", ""), ("cannot be the name of a folder",)),
        (("pfld", "--output-slice", "0:8"), ("--output-slice is for ONNX files and networks of your own",)),
        (("pfld", "--input", "3x56x56"), ("--input is for a network of your own",)),
        (("--all", "pfld"), ("--all converts every network",)),
        (("pfld", "--seed", "5"), ("--seed is for random weights",)),
        (("pfld", "--decode", "argmax"), ("pfld gives points, not heatmaps",)),
        ((), ("there is nothing to convert",)),
    ],
)
def test_wrong_usage_is_refused_before_any_work(
    cli: Cli, users: Path, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    cli("export", *arguments).refused(2, *parts)
    assert not Path("build").exists()


def test_an_input_size_that_does_not_fit_is_reported_with_the_line(cli: Cli, users: Path) -> None:
    arguments = ("--input", "3x40x32", "--landmarks", "4", "--random-weights")
    cli("export", f"{users}:Flat", *arguments).refused(
        4, "users.py:13", "it was given (2, 3, 40, 32): is --input right"
    )


def test_weights_of_another_network_are_refused(cli: Cli, users: Path, tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(10, 5)}, tmp_path / "x.pth")
    arguments = ("--input", "3x32x32", "--landmarks", "4", "--weights", tmp_path / "x.pth")
    cli("export", f"{users}:Flat", *arguments).refused(4, "x.pth lacks fc.bias")


def test_weights_and_random_weights_contradict_each_other(cli: Cli, users: Path, tmp_path: Path) -> None:
    (tmp_path / "x.pth").touch()
    cli("export", f"{users}:Flat", *OWN, "--weights", tmp_path / "x.pth").refused(2, "contradict each other")


def test_an_option_chooses_among_the_states_of_a_checkpoint(cli: Cli, users: Path, tmp_path: Path) -> None:
    file, model = tmp_path / "x.pth", f"{users}:Flat"
    states = [{"fc.weight": torch.zeros(8, 3072), "fc.bias": torch.full((8,), value)} for value in (0.25, 0.75)]
    torch.save({"net": states[0], "net_ema": states[1]}, file)
    own = (model, "--input", "3x32x32", "--landmarks", "4", "--weights", file, "--no-guard")
    for options, expected in ((("--key", "net"), 0.25), ((), 0.75)):
        ran = cli("export", *own, *options, "--out", tmp_path / str(expected), "--json")
        assert ran.code == 0, ran.err
        assert ("weights are net_ema, the moving average" in ran.err) == (not options)
        folder = Path(ran.document["artifacts"][0]["path"])
        artifact = artifacts.read(folder)
        assert artifact.parents["source"].get("key") == ("net" if options else None)
        assert reference_file.read(artifact).outputs.landmarks.mean() == pytest.approx(expected)
        assert cli("verify", folder, "--model", model, "--weights", file).code == 0
