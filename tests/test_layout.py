"""Rules of the source tree: one package from several roots, one file per plug-in."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import lmconv.backbones
from lmconv.plugins import Registry
from lmconv.types import Backbone

TREE = Path(__file__).parents[1]
ROOTS = [TREE / name for name in ("converter", "evaluate", "weights")]
REGISTRY = re.compile(r': Registry\[[\w.]+\] = Registry\("(\w+)"')
KINDS = sorted({kind for root in ROOTS for path in root.rglob("*.py") for kind in REGISTRY.findall(path.read_text())})
"""Kinds of plug-ins: the names of all registries in the source."""
MOST_MODULES = 9
"""Largest number of modules directly in one `lmconv/`."""
FILES = [
    (kind, path)
    for kind in KINDS
    for root in ROOTS
    for path in sorted((root / "lmconv" / kind).glob("*.py"))
    if path.stem != "__init__"
]


def test_no_init_file_hides_another_root() -> None:
    for root in ROOTS:
        assert (root / "lmconv").is_dir()
        assert not (root / "__init__.py").exists()
        assert not (root / "lmconv" / "__init__.py").exists()
        for kind in KINDS:
            assert not (root / "lmconv" / kind / "__init__.py").exists()


def test_the_package_is_a_namespace_of_all_roots() -> None:
    assert getattr(lmconv, "__file__", None) is None


def test_the_root_of_the_package_holds_few_modules() -> None:
    for root in ROOTS:
        assert len(list((root / "lmconv").glob("*.py"))) <= MOST_MODULES, root


def test_no_file_is_in_two_roots() -> None:
    seen: dict[Path, Path] = {}
    for root in ROOTS:
        for path in root.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert path.relative_to(root) not in seen, path
                seen[path.relative_to(root)] = path
    assert len(seen) > 30


def test_every_kind_of_plug_in_has_a_file() -> None:
    assert {"backbones", "commands", "targets"} < set(KINDS)
    assert {kind for kind, _ in FILES} == set(KINDS)


@pytest.mark.parametrize(("kind", "path"), FILES, ids=[f"{kind}-{path.stem}" for kind, path in FILES])
def test_a_plug_in_has_the_name_of_its_file(kind: str, path: Path) -> None:
    plugin = Registry[Any](kind, kind).load(path.stem)
    assert (plugin.spec if isinstance(plugin, Backbone) else plugin).name == path.stem


def test_names_of_plug_ins_of_a_kind_are_unique() -> None:
    """One name in two roots, or a file beside a folder of the same name, would hide a plug-in."""
    places = [
        (kind, path.stem)
        for kind in KINDS
        for root in ROOTS
        for path in (root / "lmconv" / kind).glob("*")
        if path.suffix == ".py" or (path.is_dir() and path.name != "__pycache__")
    ]
    assert {place: count for place, count in Counter(places).items() if count > 1} == {}


def test_the_readme_imports_documented_modules_only() -> None:
    readme = (TREE / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert set(re.findall(r"^from (lmconv\S*) import", example, flags=re.MULTILINE)) == {
        "lmconv.pipeline",
        "lmconv.source",
        "lmconv.types",
    }
    imports = [line for line in example.splitlines() if line.startswith("from ")]
    exec("\n".join(imports), {})  # noqa: S102  the lines that a reader copies
