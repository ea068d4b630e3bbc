"""A search that was interrupted goes on from what it had measured; what was measured on anything else is forgotten."""

from pathlib import Path

import pytest

from lmconv.tuning.memo import FILE, Memo

CONDITIONS = {"source": "abc", "faces": "def"}


def test_measures_once_and_keeps_it_at_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, int]:
        calls.append(1)
        return {"ms": len(calls)}

    memo = Memo.load(tmp_path / "tune", CONDITIONS)
    assert memo.get("a", measure) == memo.get("a", measure) == {"ms": 1}
    assert Memo.load(tmp_path / "tune", CONDITIONS).get("a", measure) == {"ms": 1}
    assert memo.get("b", measure) == {"ms": 2}


def test_what_was_kept_survives_a_measurement_that_fails(tmp_path: Path) -> None:
    memo = Memo.load(tmp_path, CONDITIONS)
    memo.get("a", lambda: {"ms": 1})
    with pytest.raises(KeyboardInterrupt):
        memo.get("b", _interrupted)
    assert Memo.load(tmp_path, CONDITIONS).measurements == {"a": {"ms": 1}}


def _interrupted() -> dict[str, int]:
    raise KeyboardInterrupt


@pytest.mark.parametrize("fresh", [False, True])
def test_forgets_what_is_of_no_use(tmp_path: Path, fresh: bool) -> None:
    Memo.load(tmp_path, CONDITIONS).get("a", lambda: {"ms": 1})
    conditions = CONDITIONS if fresh else CONDITIONS | {"faces": "others"}
    assert Memo.load(tmp_path, conditions, fresh=fresh).measurements == {}


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"about": {}}'])
def test_a_damaged_file_is_as_none(tmp_path: Path, damage: str) -> None:
    Memo.load(tmp_path, CONDITIONS).get("a", lambda: {"ms": 1})
    (tmp_path / FILE).write_text(damage, encoding="utf-8")
    assert Memo.load(tmp_path, CONDITIONS).measurements == {}


def test_a_number_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    Memo.load(tmp_path, CONDITIONS).get("a", lambda: {"ms": 1})
    path = tmp_path / FILE
    path.write_text(path.read_text(encoding="utf-8").replace('"ms": 1', '"ms": 0'), encoding="utf-8")
    assert Memo.load(tmp_path, CONDITIONS).measurements == {}
