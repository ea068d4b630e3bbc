"""The tree runs on Python 3.9 with nothing but numpy, tensorrt and pycuda: it is copied to hosts that have no more."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.converter.trt.reading import FILES, TREE
from tests.helpers import python

MODULES = [".".join(("lmconv", "trt", *file.relative_to(TREE).with_suffix("").parts)) for file in FILES]
IMPORT_ALL = """
import importlib, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
"""
FENCED = (
    """
import sys
OURS, ALLOWED = "lmconv.trt", {"numpy", "tensorrt", "pycuda"}
sys.path.insert(0, sys.argv[1])
class Fence:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        inside = name in ("lmconv", OURS) or name.startswith(OURS + ".")
        if not (inside or top in ALLOWED or top in sys.stdlib_module_names or top.startswith("_")):
            raise ImportError("the tree imports " + name)
import numpy  # with whatever it needs
sys.meta_path.insert(0, Fence())
"""
    + IMPORT_ALL
    + """
assert not {"tensorrt", "pycuda"} & set(sys.modules), "imported before they are needed"
"""
)
OLD = [found for name in ("python3.9", "python3.10") if (found := shutil.which(name))]


def test_there_is_a_tree() -> None:
    assert {"faults", "device", "log", "compatibility", "graph", "build", "engine"} <= {file.stem for file in FILES}
    assert not list(TREE.rglob("__init__.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_its_syntax_is_that_of_python_3_9(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 9))
    assert ast.get_docstring(tree)
    assert "from __future__ import annotations" in source
    assert not re.search(r"\b(slots=|kw_only=|StrEnum|zip\([^)]*strict=)", source)


def test_it_imports_nothing_but_numpy_tensorrt_pycuda_and_itself() -> None:
    ran = python(FENCED, TREE.parents[1], *MODULES)
    assert ran.code == 0, ran.err


def test_the_fence_keeps_others_out(tmp_path: Path) -> None:
    place = tmp_path / "lmconv" / "trt"
    place.mkdir(parents=True)
    (place / "bad.py").write_text("import lmconv.errors\n", encoding="utf-8")
    ran = python(FENCED, tmp_path, "lmconv.trt.bad")
    assert ran.code != 0
    assert "the tree imports lmconv.errors" in ran.err


@pytest.mark.skipif(not OLD, reason="no Python 3.9 or 3.10 on PATH")
@pytest.mark.parametrize("interpreter", OLD)
def test_an_older_python_imports_it(interpreter: str) -> None:
    if subprocess.run([interpreter, "-c", "import numpy"], capture_output=True, check=False).returncode:
        pytest.skip(f"{interpreter} does not run, or has no numpy")
    code = "import sys; sys.path.insert(0, sys.argv[1])" + IMPORT_ALL
    done = subprocess.run(
        [interpreter, "-c", code, str(TREE.parents[1]), *MODULES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
