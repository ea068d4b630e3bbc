from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.helpers import COMMAND, other_package, python

from lmconv.data import DATASETS
from lmconv.errors import MissingRuntime, UsageError
from lmconv.plugins import PASSES, TARGETS


def test_names_are_sorted_and_listed_without_loading() -> None:
    names = TARGETS.names()
    assert names == sorted(names)
    assert {"onnx", "openvino", "tensorrt"} <= set(names)
    code = (
        "import sys; from lmconv.plugins import TARGETS; TARGETS.names(); print('lmconv.targets.onnx' in sys.modules)"
    )
    assert python(code).out.strip() == "False"


def test_an_unknown_name_is_refused_with_a_suggestion_or_all_names() -> None:
    with pytest.raises(UsageError, match=r"unknown pass 'simplfy' \(did you mean simplify\?\)"):
        PASSES.load("simplfy")
    with pytest.raises(UsageError, match=r"unknown dataset 'zzz' \(known: dlib_xml, "):
        DATASETS.load("zzz")


@pytest.mark.parametrize("name", ["", "..types", "onnx.py", "../onnx", "__init__"])
def test_a_name_is_never_a_path(name: str) -> None:
    with pytest.raises(UsageError, match="unknown target"):
        TARGETS.load(name)


def test_another_package_can_add_a_command_by_entry_point(tmp_path: Path) -> None:
    module = """
from lmconv.console import Outcome, command

@command(name="hello", help="Says hello.", short_help="Say hello.")
def plugin(console):
    return Outcome(document={"hello": "world"}, text="hello")
"""
    env = other_package(tmp_path, "[lmconv.commands]\nhello = lmconv_other:plugin\n", module)
    ran = python(COMMAND, "hello", "--json", env=env)
    assert ran.document == {"hello": "world", "errors": []}
    assert "hello" in python(COMMAND, "--help", env=env).out


def test_built_in_plug_ins_win_over_plug_ins_of_other_packages(tmp_path: Path) -> None:
    env = other_package(tmp_path, "[lmconv.schemes]\nibug68 = lmconv_other:plugin\n", "plugin = 'an impostor'\n")
    code = """
from lmconv.scheme import SCHEMES
print(SCHEMES.load("ibug68").name, SCHEMES.names().count("ibug68"))
"""
    assert python(code, env=env).out.split() == ["ibug68", "1"]


def test_a_plug_in_with_a_missing_package_names_the_package_to_install(tmp_path: Path) -> None:
    env = other_package(tmp_path, "[lmconv.passes]\nnice = lmconv_other:plugin\n", "import surely_not_installed\n")
    code = """
from lmconv.errors import MissingRuntime
from lmconv.plugins import PASSES
try:
    PASSES.load("nice")
except MissingRuntime as error:
    print(error)
"""
    message = python(code, env=env).out.strip()
    assert message == (
        "pass nice needs surely_not_installed, which is not installed (pip install surely_not_installed)"
    )


def test_a_broken_import_within_lmconv_is_not_reported_as_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    def fail(name: str) -> object:
        raise ModuleNotFoundError("No module named 'lmconv.gone'", name="lmconv.gone")

    TARGETS.names()
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ModuleNotFoundError) as error:
        TARGETS.load("onnx")
    assert not isinstance(error.value, MissingRuntime)


def test_a_plug_in_added_in_this_process_hides_a_plug_in_of_the_same_name() -> None:
    real = PASSES.load("dead")
    mine = replace(real, summary="mine")
    with PASSES.using(dead=mine, other=mine):
        assert PASSES.load("dead") is PASSES.load("other") is mine
        assert "other" in PASSES.names()
    assert PASSES.load("dead") is real
    assert "other" not in PASSES.names()
