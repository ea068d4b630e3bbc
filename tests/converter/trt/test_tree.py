"""lmconv.trt needs only Python 3.9, numpy, tensorrt and pycuda, because the folder is copied to GPU hosts."""

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
import numpy  # before the fence: numpy imports other packages
sys.meta_path.insert(0, Fence())
"""
    + IMPORT_ALL
    + """
assert not {"tensorrt", "pycuda"} & set(sys.modules), "imported before they are needed"
"""
)
OLD = [path for name in ("python3.9", "python3.10") if (path := shutil.which(name))]


def test_the_folder_has_its_modules_and_no_init_files() -> None:
    assert {"faults", "device", "log", "compatibility", "graph", "build", "engine"} <= {file.stem for file in FILES}
    assert not list(TREE.rglob("__init__.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_has_the_syntax_of_python_3_9(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 9))
    assert ast.get_docstring(tree)
    assert "from __future__ import annotations" in source
    assert not re.search(r"\b(slots=|kw_only=|StrEnum|zip\([^)]*strict=)", source)


def test_the_folder_imports_only_numpy_tensorrt_pycuda_and_itself() -> None:
    ran = python(FENCED, TREE.parents[1], *MODULES)
    assert ran.code == 0, ran.err


def test_an_import_from_the_rest_of_lmconv_is_detected(tmp_path: Path) -> None:
    place = tmp_path / "lmconv" / "trt"
    place.mkdir(parents=True)
    (place / "bad.py").write_text("import lmconv.errors\n", encoding="utf-8")
    ran = python(FENCED, tmp_path, "lmconv.trt.bad")
    assert ran.code != 0
    assert "the tree imports lmconv.errors" in ran.err


@pytest.mark.skipif(not OLD, reason="no Python 3.9 or 3.10 on PATH")
@pytest.mark.parametrize("interpreter", OLD)
def test_an_older_python_imports_the_folder(interpreter: str) -> None:
    if subprocess.run([interpreter, "-c", "import numpy"], capture_output=True, check=False).returncode:
        pytest.skip(f"{interpreter} does not run, or has no numpy")
    code = "import sys; sys.path.insert(0, sys.argv[1])" + IMPORT_ALL
    process = subprocess.run(
        [interpreter, "-c", code, str(TREE.parents[1]), *MODULES], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
