"""The memo of a search: measurements survive an interruption; measurements of another search are dropped."""

from pathlib import Path

import pytest

from lmconv.tuning.memo import FILE, Memo

ABOUT = {"source": "abc", "faces": "def"}


def test_a_measurement_is_made_once_and_stored_at_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, int]:
        calls.append(1)
        return {"ms": len(calls)}

    memo = Memo.open(tmp_path / "tune", ABOUT)
    assert memo.get("a", measure) == memo.get("a", measure) == {"ms": 1}
    assert Memo.open(tmp_path / "tune", ABOUT).get("a", measure) == {"ms": 1}
    assert memo.get("b", measure) == {"ms": 2}


def test_stored_measurements_survive_a_failed_measurement(tmp_path: Path) -> None:
    memo = Memo.open(tmp_path, ABOUT)
    memo.get("a", lambda: {"ms": 1})
    with pytest.raises(KeyboardInterrupt):
        memo.get("b", _interrupted)
    assert Memo.open(tmp_path, ABOUT).known == {"a": {"ms": 1}}


def _interrupted() -> dict[str, int]:
    raise KeyboardInterrupt


@pytest.mark.parametrize("fresh", [False, True])
def test_measurements_of_another_search_or_before_a_fresh_start_are_dropped(tmp_path: Path, fresh: bool) -> None:
    Memo.open(tmp_path, ABOUT).get("a", lambda: {"ms": 1})
    about = ABOUT if fresh else ABOUT | {"faces": "others"}
    assert Memo.open(tmp_path, about, fresh=fresh).known == {}


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"about": {}}'])
def test_a_damaged_file_is_ignored(tmp_path: Path, damage: str) -> None:
    Memo.open(tmp_path, ABOUT).get("a", lambda: {"ms": 1})
    (tmp_path / FILE).write_text(damage, encoding="utf-8")
    assert Memo.open(tmp_path, ABOUT).known == {}


def test_a_changed_number_is_ignored(tmp_path: Path) -> None:
    Memo.open(tmp_path, ABOUT).get("a", lambda: {"ms": 1})
    path = tmp_path / FILE
    path.write_text(path.read_text(encoding="utf-8").replace('"ms": 1', '"ms": 0'), encoding="utf-8")
    assert Memo.open(tmp_path, ABOUT).known == {}
