from __future__ import annotations

from pathlib import Path

import pytest

from lmconv.errors import InputError, UsageError
from lmconv.running.inputs import Item, camera, check_output, resolve_input, with_unique_names

OUT = Path("out")


def touch(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def picture(name: str) -> Item:
    return Item(kind="picture", source=Path(f"{name}.jpg"), label=f"{name}.jpg", name=name)


def test_a_folder_gives_its_pictures_and_videos_in_order() -> None:
    touch("in/b.JPG", "in/a/z.png", "in/a/y.mp4", "in/notes.txt", "in/.hidden.jpg", "in/.git/x.jpg")
    items = resolve_input("in", OUT)
    assert [(item.label, item.kind, item.name) for item in items] == [
        ("in/b.JPG", "picture", "b"),
        ("in/a/y.mp4", "video", "a/y"),
        ("in/a/z.png", "picture", "a/z"),
    ]


def test_earlier_output_is_no_input() -> None:
    touch("a.jpg", "out/a.jpg")
    assert [item.label for item in resolve_input(".", OUT)] == ["a.jpg"]


def test_a_stream_is_named_by_its_file_and_shown_without_password() -> None:
    (item,) = resolve_input("rtsp://me:secret@host:554/live/door.sdp?token=1", OUT)
    assert (item.kind, item.label, item.name) == ("stream", "rtsp://host:554/live/door.sdp", "door")
    assert item.source == "rtsp://me:secret@host:554/live/door.sdp?token=1"


def test_a_missing_input_is_refused() -> None:
    with pytest.raises(InputError, match="nothing does not exist"):
        resolve_input("nothing", OUT)


def test_equal_names_get_a_number_ignoring_case() -> None:
    items = [picture("a"), picture("A"), picture("b/a"), picture("a")]
    assert [item.name for item in with_unique_names(items)] == ["a", "A-2", "b/a", "a-3"]


def test_a_name_that_a_second_face_would_use_gets_a_number() -> None:
    assert [item.name for item in with_unique_names([picture("a"), picture("a_0"), picture("b_0")])] == [
        "a",
        "a_0-2",
        "b_0",
    ]


def test_the_name_of_a_second_face_is_avoided_in_any_order() -> None:
    assert [item.name for item in with_unique_names([picture("a_0"), picture("a_1"), picture("a")])] == [
        "a_0",
        "a_1",
        "a-2",
    ]


def test_output_is_never_an_input() -> None:
    with pytest.raises(UsageError, match="would be overwritten"):
        check_output([picture("a")], Path())
    check_output([picture("a"), camera(0)], OUT)


def test_output_never_overwrites_the_file_with_the_boxes() -> None:
    with pytest.raises(UsageError, match="is an input"):
        check_output([picture("a")], OUT, OUT / "landmarks.jsonl")
