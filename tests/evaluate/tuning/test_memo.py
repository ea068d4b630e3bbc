"""The memo of a search: measurements survive an interruption; measurements of another search are dropped."""

from pathlib import Path

import pytest

from lmconv.tuning.memo import FILE, Memo

CONDITIONS = {"source": "abc", "faces": "def"}


def test_a_measurement_is_made_once_and_stored_at_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, int]:
        calls.append(1)
        return {"ms": len(calls)}

    memo = Memo.load(tmp_path / "tune", CONDITIONS)
    assert memo.get("a", measure) == memo.get("a", measure) == {"ms": 1}
    assert Memo.load(tmp_path / "tune", CONDITIONS).get("a", measure) == {"ms": 1}
    assert memo.get("b", measure) == {"ms": 2}


def test_stored_measurements_survive_a_failed_measurement(tmp_path: Path) -> None:
    memo = Memo.load(tmp_path, CONDITIONS)
    memo.get("a", lambda: {"ms": 1})
    with pytest.raises(KeyboardInterrupt):
        memo.get("b", _interrupted)
    assert Memo.load(tmp_path, CONDITIONS).measurements == {"a": {"ms": 1}}


def _interrupted() -> dict[str, int]:
    raise KeyboardInterrupt


@pytest.mark.parametrize("fresh", [False, True])
def test_measurements_of_another_search_or_before_a_fresh_start_are_dropped(tmp_path: Path, fresh: bool) -> None:
    Memo.load(tmp_path, CONDITIONS).get("a", lambda: {"ms": 1})
    conditions = CONDITIONS if fresh else CONDITIONS | {"faces": "others"}
    assert Memo.load(tmp_path, conditions, fresh=fresh).measurements == {}


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"about": {}}'])
def test_a_damaged_file_is_ignored(tmp_path: Path, damage: str) -> None:
    Memo.load(tmp_path, CONDITIONS).get("a", lambda: {"ms": 1})
    (tmp_path / FILE).write_text(damage, encoding="utf-8")
    assert Memo.load(tmp_path, CONDITIONS).measurements == {}


def test_a_changed_number_is_ignored(tmp_path: Path) -> None:
    Memo.load(tmp_path, CONDITIONS).get("a", lambda: {"ms": 1})
    path = tmp_path / FILE
    path.write_text(path.read_text(encoding="utf-8").replace('"ms": 1', '"ms": 0'), encoding="utf-8")
    assert Memo.load(tmp_path, CONDITIONS).measurements == {}
