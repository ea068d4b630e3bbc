"""Rules that the source tree keeps: one package from several roots, one file for a plug-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lmconv.backbones
from lmconv.plugins import Registry

TREE = Path(__file__).parents[1]
ROOTS = [TREE / name for name in ("converter", "evaluate", "weights")]
KINDS = ["backbones", "commands", "datasets", "passes", "schemes", "targets"]
FILES = [
    (kind, path)
    for kind in KINDS
    for root in ROOTS
    for path in sorted((root / "lmconv" / kind).glob("*.py"))
    if path.stem != "__init__"
]


def test_nothing_hides_another_root() -> None:
    for root in ROOTS:
        assert (root / "lmconv").is_dir()
        assert not (root / "__init__.py").exists()
        assert not (root / "lmconv" / "__init__.py").exists()
        for kind in KINDS:
            assert not (root / "lmconv" / kind / "__init__.py").exists()


def test_the_package_is_a_namespace_of_all_roots() -> None:
    assert getattr(lmconv, "__file__", None) is None


def test_no_file_is_in_two_roots() -> None:
    seen: dict[Path, Path] = {}
    for root in ROOTS:
        for path in root.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert path.relative_to(root) not in seen, path
                seen[path.relative_to(root)] = path
    assert len(seen) > 30


def test_every_kind_of_plug_in_has_some() -> None:
    assert {kind for kind, _ in FILES} == set(KINDS)


@pytest.mark.parametrize(("kind", "path"), FILES, ids=[f"{kind}-{path.stem}" for kind, path in FILES])
def test_every_plug_in_file_is_found_and_binds_its_name(kind: str, path: Path) -> None:
    assert path.stem in Registry[Any](kind, kind).names()
    plugin = Registry[Any](kind, kind).load(path.stem)
    assert plugin is not None
    if kind != "backbones":
        assert plugin.name == path.stem


def test_no_name_is_taken_twice() -> None:
    for kind in KINDS:
        names = Registry[Any](kind, kind).names()
        assert len(names) == len(set(names))
