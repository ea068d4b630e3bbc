from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from lmconv.store import cache
from lmconv.store.cache import Cache
from lmconv.types import Arrays, Json

KEY: Json = {"picture": "3f0c", "size": [2, 2]}
ARRAYS: Arrays = {
    "images": np.arange(8, dtype=np.uint8).reshape(2, 4),
    "landmarks": np.array([[0.1, -0.0]], np.float32),
}


def refuse() -> Arrays:
    raise AssertionError("the arrays are kept, and are computed all the same")


def assert_equal(actual: Arrays, expected: Arrays) -> None:
    assert {name: array.tobytes() for name, array in actual.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }


@pytest.fixture
def store(tmp_path: Path) -> Cache:
    return Cache(folder=tmp_path / "kept" / "computed")


def entries(store: Cache) -> list[Path]:
    return sorted(store.folder.iterdir())


def test_kept_arrays_are_read(store: Cache) -> None:
    assert_equal(store.arrays(KEY, lambda: ARRAYS), ARRAYS)
    assert store.has(KEY)
    assert_equal(store.arrays(KEY, refuse), ARRAYS)
    (entry,) = entries(store)
    with np.load(entry, allow_pickle=False) as plain:  # any program can read an entry
        assert_equal(dict(plain), ARRAYS)


def test_another_key_is_another_entry(store: Cache) -> None:
    store.write(KEY, ARRAYS)
    assert store.read({**KEY, "size": [2, 3]}) is None


@pytest.mark.parametrize("place", [0, 100, -1])
def test_a_damaged_entry_is_computed_again(store: Cache, place: int) -> None:
    store.write(KEY, ARRAYS)
    (entry,) = entries(store)
    content = bytearray(entry.read_bytes())
    content[place] ^= 1
    entry.write_bytes(content)
    assert store.read(KEY) is None
    assert_equal(store.arrays(KEY, lambda: ARRAYS), ARRAYS)
    assert_equal(store.arrays(KEY, refuse), ARRAYS)


def test_no_entry_can_run_code(store: Cache, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    store.write(KEY, ARRAYS)
    (entry,) = entries(store)
    np.savez(entry, images=np.array([Harmful()], object))
    entry.rename(store.folder / f"{entry.name[:64]}-{hashlib.sha256(entry.read_bytes()).hexdigest()}.npz")
    assert store.read(KEY) is None
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_cannot_be_written_changes_no_result(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Cache(folder=tmp_path / "file" / "computed")
    assert_equal(store.arrays(KEY, lambda: ARRAYS), ARRAYS)
    assert not store.has(KEY)


def test_the_entries_that_were_not_used_for_the_longest_time_go_first(tmp_path: Path) -> None:
    sample = {"values": np.zeros(250)}
    store = Cache(folder=tmp_path, most=3 * 2500)
    for name in "abc":
        store.write({"name": name}, sample)
        for age, entry in enumerate(sorted(entries(store), key=lambda path: path.stat().st_mtime, reverse=True)):
            os.utime(entry, (1e9 - age, 1e9 - age))
    store.read({"name": "a"})
    store.write({"name": "d"}, sample)
    assert [name for name in "abcd" if store.has({"name": name})] == ["a", "c", "d"]
    store.write({"name": "large"}, {"values": np.zeros(1000)})
    assert not store.has({"name": "large"})


def test_a_file_that_a_process_did_not_finish_is_removed_after_a_day(store: Cache) -> None:
    store.folder.mkdir(parents=True)
    for name, age in ((".old.17", 2 * cache.ABANDONED), (".new.18", 0)):
        (store.folder / name).touch()
        then = (store.folder / name).stat().st_mtime - age
        os.utime(store.folder / name, (then, then))
    store.write(KEY, ARRAYS)
    assert [path.name for path in entries(store) if path.suffix != ".npz"] == [".new.18"]


def test_the_circumstances_name_code_versions_cpu_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.circumstances()
    assert before == cache.circumstances()
    assert {"numpy", "onnxruntime", "torch", "lmconv"} <= set(before["versions"])
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    assert cache.circumstances() != before


def test_arrays_with_other_types_or_shapes_have_other_digests() -> None:
    arrays = [np.zeros(4, np.float32), np.zeros((2, 2), np.float32), np.zeros(4, np.int32), np.ones(4, np.float32)]
    assert len({cache.array_digest(array) for array in arrays}) == 4
    assert cache.array_digest(arrays[1].T) == cache.array_digest(arrays[1])
