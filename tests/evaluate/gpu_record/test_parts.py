"""Files for a GPU host: no part is too large, and the parts together hold all files."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmconv.gpu_record import parts


def written(folder: Path, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)


def test_files_are_placed_largest_first_into_the_first_part_with_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART", 100)
    written(tmp_path / "files", {"a": 60, "b": 50, "c/d": 40, "e": 10})
    assert parts.split(tmp_path / "files", tmp_path) == [100, 60]
    assert (tmp_path / "part0" / "c" / "d").stat().st_size == 40
    assert not (tmp_path / "files").exists()


def test_a_file_above_the_limit_gets_its_own_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART", 100)
    written(tmp_path / "files", {"a": 120, "b": 50})
    assert parts.split(tmp_path / "files", tmp_path) == [120, 50]


def test_gathered_parts_hold_all_files(tmp_path: Path) -> None:
    written(tmp_path, {"part0/a": 1, "part1/folder/b": 2})
    host = parts.gather(tmp_path)
    assert sorted(str(path.relative_to(host)) for path in host.rglob("*") if path.is_file()) == ["a", "folder/b"]


def test_parts_of_an_earlier_preparation_are_removed(tmp_path: Path) -> None:
    written(tmp_path, {"part0/a": 1, "part7/b": 2, "build/c": 3})
    parts.remove(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name in ("part0", "part7", "build")] == ["build"]
