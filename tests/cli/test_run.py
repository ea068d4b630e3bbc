from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.conftest import Once, export
from tests.helpers import COMMAND, Cli, contents, python, start, strays

from lmconv.building.assembling import build
from lmconv.building.plain import plain_graph
from lmconv.building.request import Conversion
from lmconv.faces.pts import read_pts
from lmconv.judging.nme import nme
from lmconv.sources import resolve as source
from lmconv.types import Float64, Precision, Uint8, Variant

FACE = "00001"
"""Stem of the face that moves in the videos."""


@pytest.fixture(scope="session")
def drawn(once: Once) -> Path:
    """Three drawn faces, `00000.png` and so on with their `.pts` files, and `boxes.csv`. Not to be changed."""

    def make(folder: Path) -> None:
        from lmconv.synthetic.folder import write

        write(folder, {"testset": 3})
        faces = folder / "drawn" / "testset"
        rows = [(f"{path.stem}.png", read_pts(path)) for path in sorted(faces.glob("*.pts"))]
        write_boxes(faces / "boxes.csv", rows)

    return once("drawn", make) / "drawn" / "testset"


def write_boxes(path: Path, rows: list[tuple[str, Float64]]) -> None:
    lines = [f"{name},{','.join(f'{v:.2f}' for v in (*points.min(0), *points.max(0)))}\n" for name, points in rows]
    path.write_text("image,x1,y1,x2,y2\n" + "".join(lines), encoding="utf-8")


@pytest.fixture(scope="session")
def net(once: Once) -> Path:
    """The plain graph of `drawn68`, also an artefact. Not to be changed."""
    return once("drawn68", lambda folder: export("drawn68", None, folder / "build")) / "build" / "drawn68" / "plain"


@pytest.fixture
def photos(drawn: Path) -> Path:
    """A copy of the pictures in `photos/` of the current folder, with their boxes in `boxes.csv`."""
    folder = Path(shutil.copytree(drawn, "photos", ignore=shutil.ignore_patterns("*.pts")))
    (folder / "boxes.csv").rename("boxes.csv")
    return folder


@pytest.fixture
def clip(drawn: Path) -> Path:
    """Writes `clip.mp4`, 12 frames with a moving drawn face, and `first.jsonl` with its box in the first frame."""
    frames = list(moving(drawn, 12))
    write_clip(Path("clip.mp4"), frames)
    box = boxes_of(drawn)
    faces = [{"box": box.tolist()}]
    Path("first.jsonl").write_text(json.dumps({"path": "clip.mp4", "frame": 0, "faces": faces}), encoding="utf-8")
    return Path("clip.mp4")


def boxes_of(drawn: Path) -> Float64:
    points = read_pts(drawn / f"{FACE}.pts")
    return np.concatenate([points.min(0), points.max(0)])


def moving(drawn: Path, count: int) -> Iterator[Uint8]:
    picture = cv2.imread(str(drawn / f"{FACE}.png"))
    assert picture is not None
    for index in range(count):
        shift = np.array([[1, 0, 2.0 * index], [0, 1, 1.0 * index]])
        yield np.asarray(cv2.warpAffine(picture, shift, (320, 288)), np.uint8)


def write_clip(path: Path, frames: list[Uint8], codec: str = "mp4v") -> None:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()


def rows(out: str | Path = "found") -> list[Any]:
    lines = (Path(out) / "landmarks.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


# Pictures


def test_every_picture_of_a_folder_is_drawn_and_saved(cli: Cli, net: Path, photos: Path, drawn: Path) -> None:
    ran = cli("run", net, photos, "--boxes", "boxes.csv", "--out", "found", "--json")
    assert ran.code == 0, ran.err
    assert sorted(contents(Path("found"))) == sorted(
        ["landmarks.jsonl", *(f"0000{number}.{suffix}" for number in range(3) for suffix in ("png", "pts"))]
    )
    for number, row in enumerate(rows()):
        assert (row["path"], row["frame"], row["time"], row["size"]) == (
            f"photos/0000{number}.png",
            None,
            None,
            [256, 256],
        )
        (face,) = row["faces"]
        saved, truth = read_pts(Path(f"found/0000{number}.pts"), 68), read_pts(drawn / f"0000{number}.pts")
        np.testing.assert_allclose(saved, face["landmarks"], atol=1e-3)
        assert nme(saved[None], truth[None])[0] < 8
        before, after = cv2.imread(f"photos/0000{number}.png"), cv2.imread(f"found/0000{number}.png")
        assert before is not None
        assert after is not None
        assert before.shape == after.shape
        assert (before != after).any()


def test_the_document_describes_the_run(cli: Cli, net: Path, photos: Path) -> None:
    document = cli("run", net, photos / "00000.png", "--boxes", "boxes.csv", "--json").document
    (row,) = document.pop("inputs")
    assert row == {
        "path": "photos/00000.png",
        "kind": "picture",
        "frames": 1,
        "faces": 1,
        "without_face": 0,
        "fps": 0.0,
        "saved": "build/run/00000.png",
    }
    assert document == {
        "artifact": str(net),
        "detector": None,
        "out": "build/run",
        "frames": 1,
        "faces": 1,
        "fps": 0.0,
        "errors": [],
    }


def test_the_output_can_be_the_boxes_of_the_next_run(cli: Cli, net: Path, photos: Path) -> None:
    cli("run", net, photos, "--boxes", "boxes.csv", "--out", "found")
    ran = cli("run", net, photos, "--boxes", "found/landmarks.jsonl", "--out", "again")
    assert ran.code == 0, ran.err
    assert contents(Path("again")) == contents(Path("found"))


def test_several_faces_of_a_picture_have_one_file_each_in_the_order_of_the_boxes(
    cli: Cli, net: Path, photos: Path, drawn: Path
) -> None:
    pictures = [cv2.imread(str(photos / f"0000{number}.png")) for number in range(3)]
    cv2.imwrite("three.png", np.hstack([picture for picture in pictures if picture is not None]))
    points = [read_pts(drawn / f"0000{number}.pts") + np.array([256 * number, 0]) for number in range(3)]
    write_boxes(Path("three.csv"), [("three.png", face) for face in reversed(points)])
    cli("run", net, "three.png", "--boxes", "three.csv", "--out", "found")
    cli("run", net, photos, "--boxes", "boxes.csv", "--out", "apart")
    for number in range(3):
        alone = read_pts(Path(f"apart/0000{number}.pts")) + np.array([256 * number, 0])
        np.testing.assert_allclose(read_pts(Path(f"found/three_{2 - number}.pts")), alone, atol=0.01)


def turned(picture: Uint8) -> bytes:
    """A JPEG file with rotated pixels and EXIF orientation 6: rotate to the right for display."""
    data = cv2.imencode(".jpg", cv2.rotate(picture, cv2.ROTATE_90_COUNTERCLOCKWISE), [cv2.IMWRITE_JPEG_QUALITY, 100])[1]
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    return data[:2].tobytes() + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:].tobytes()


def variants(picture: Uint8) -> dict[str, bytes]:
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    alpha = np.dstack([picture, np.zeros(picture.shape[:2], np.uint8)])
    deep = picture.astype(np.uint16) * 257
    kinds = {"grey.png": grey, "alpha.png": alpha, "deep.png": deep, "deepgrey.tiff": grey.astype(np.uint16) * 257}
    return {"turned.jpg": turned(picture)} | {
        name: cv2.imencode(Path(name).suffix, pixels)[1].tobytes() for name, pixels in kinds.items()
    }


def test_pictures_of_every_format_give_the_same_landmarks(cli: Cli, net: Path, photos: Path, drawn: Path) -> None:
    picture = cv2.imread(str(photos / "00000.png"))
    assert picture is not None
    kinds = variants(np.asarray(picture, np.uint8))
    Path("kinds").mkdir()
    for name, data in kinds.items():
        Path("kinds", name).write_bytes(data)
    points = read_pts(drawn / "00000.pts")
    write_boxes(Path("boxes.csv"), [(name, points) for name in (*kinds, "00000.png")])
    ran = cli("run", net, "kinds", photos / "00000.png", "--boxes", "boxes.csv", "--out", "found")
    assert ran.code == 0, ran.err
    plain = read_pts(Path("found/00000.pts"))
    for name in kinds:
        distances = np.linalg.norm(read_pts(Path("found") / Path(name).with_suffix(".pts")) - plain, axis=1)
        assert distances.mean() < (4 if "grey" in name else 1), name


def test_a_face_beyond_the_border_has_correct_landmarks(cli: Cli, net: Path, photos: Path, drawn: Path) -> None:
    picture = cv2.imread(str(photos / "00001.png"))
    assert picture is not None
    points = read_pts(drawn / "00001.pts")
    cut = int(points[:, 0].min()) + 10
    cv2.imwrite("cut.png", picture[:, cut:])
    write_boxes(Path("cut.csv"), [("cut.png", points - (cut, 0))])
    assert cli("run", net, "cut.png", "--boxes", "cut.csv", "--out", "found").code == 0
    assert nme(read_pts(Path("found/cut.pts"))[None], (points - (cut, 0))[None])[0] < 12


@pytest.mark.slow
@pytest.mark.parametrize("io", ["image", "frame"])
def test_artefacts_of_images_and_frames_give_the_same_landmarks(
    cli: Cli, tmp_path: Path, net: Path, photos: Path, io: Any
) -> None:
    plain = plain_graph(source.resolve("drawn68"), tmp_path)
    other = build(Conversion(base=plain, out=tmp_path), Variant(target="onnx", precision=Precision.FP32, io=io)).path
    for artifact, out in ((net, "tensor"), (other, io)):
        assert cli("run", artifact, photos, "--boxes", "boxes.csv", "--out", out).code == 0
    for number in range(3):
        points = [read_pts(Path(out) / f"0000{number}.pts") for out in ("tensor", io)]
        assert np.abs(points[0] - points[1]).max() < 2  # the square in a frame may be a pixel smaller


def test_inputs_with_the_same_name_do_not_overwrite_each_other(cli: Cli, net: Path, photos: Path) -> None:
    Path("other/sub").mkdir(parents=True)
    shutil.copy(photos / "00001.png", "other/00000.png")
    shutil.copy(photos / "00002.png", "other/sub/00000.png")
    Path("boxes.csv").write_text("image,x1,y1,x2,y2\n" + "".join(
        f"{name},60,60,200,200\n" for name in ("photos/00000.png", "other/00000.png", "sub/00000.png")
    ), encoding="utf-8")  # fmt: skip
    ran = cli("run", net, photos / "00000.png", "other", "--boxes", "boxes.csv", "--out", "found")
    assert ran.code == 0, ran.err
    assert [path for path in contents(Path("found")) if path.endswith(".png")] == [
        "00000-2.png",
        "00000.png",
        "sub/00000.png",
    ]


# Bad input


def test_one_bad_picture_is_reported_and_the_others_are_saved(cli: Cli, net: Path, photos: Path) -> None:
    (photos / "00001.jpg").write_text("this is no picture", encoding="utf-8")
    (photos / "00001.png").write_bytes((photos / "00001.png").read_bytes()[:3000])
    (photos / "empty.png").touch()
    ran = cli("run", net, photos, "--boxes", "boxes.csv", "--out", "found", "--json")
    assert ran.code == 4
    errors = ran.document["errors"]
    assert [error["path"] for error in errors] == ["photos/00001.jpg", "photos/00001.png", "photos/empty.png"]
    assert "not a picture" in errors[0]["message"]
    assert "is empty" in errors[2]["message"]
    assert [row["path"] for row in rows()] == ["photos/00000.png", "photos/00002.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems have no such names")
def test_a_name_that_is_not_utf8_is_reported_and_the_others_are_saved(cli: Cli, net: Path, photos: Path) -> None:
    for name in (b"00001-\xff.png", b"00001-\xff.mp4"):
        (photos / os.fsdecode(name)).write_bytes((photos / "00001.png").read_bytes())
    ran = cli("run", net, photos, "--boxes", "boxes.csv", "--out", "found", "--json")
    assert ran.code == 4
    assert [error["message"] for error in ran.document["errors"]] == [
        f"photos/00001-\udcff.{suffix}: its name is not text in UTF-8" for suffix in ("mp4", "png")
    ]
    assert len(rows()) == 3


def test_a_video_that_cannot_be_written_is_one_error_and_the_others_are_saved(
    cli: Cli, net: Path, clip: Path, photos: Path
) -> None:
    Path("found", f".{clip.stem}.mp4").mkdir(parents=True)
    Path("found", f"{clip.stem}.mp4").mkdir()
    ran = cli("run", net, clip, photos / "00000.png", "--boxes", "boxes.csv", "--out", "found", "--json")
    assert ran.code == 4
    assert [error["path"] for error in ran.document["errors"]] == [str(clip)]
    assert [row["path"] for row in ran.document["inputs"]] == [str(photos / "00000.png")]


@pytest.mark.parametrize("place", [".", "/"])
def test_a_folder_without_a_name_is_refused_as_an_artefact(cli: Cli, photos: Path, place: str) -> None:
    cli("run", place, photos).refused(4, f"{place} is not an artefact")
    cli("run", place, photos, "--detector", place).refused(4, f"{place} is not an artefact")


def test_a_missing_input_is_reported_and_the_others_are_saved(cli: Cli, net: Path, photos: Path) -> None:
    ran = cli("run", net, "nothing.jpg", photos / "00000.png", "--boxes", "boxes.csv", "--out", "found")
    ran.refused(4, "nothing.jpg does not exist")
    assert len(rows()) == 1


def test_a_folder_without_pictures_is_an_input_error(cli: Cli, net: Path) -> None:
    Path("empty").mkdir()
    Path("empty/notes.txt").touch()
    cli("run", net, "empty").refused(4, "empty has no picture or video")


def test_no_input_is_wrong_usage(cli: Cli, net: Path) -> None:
    cli("run", net).refused(2, "no input to run on")


def test_a_picture_without_a_face_is_a_result(cli: Cli, net: Path, photos: Path) -> None:
    line = json.dumps({"path": "photos/00000.png", "frame": None, "faces": []})
    Path("none.jsonl").write_text(line, encoding="utf-8")
    ran = cli("run", net, photos / "00000.png", "--boxes", "none.jsonl", "--out", "found")
    assert ran.code == 0
    assert "photos/00000.png: no face" in ran.err
    assert rows()[0]["faces"] == []


def test_a_huge_picture_is_refused_before_it_is_decoded(net: Path, photos: Path) -> None:
    picture = np.zeros((2000, 2000, 3), np.uint8)
    cv2.imwrite("huge.png", picture)
    arguments = ("run", net, "huge.png", photos / "00000.png", "--boxes", "boxes.csv", "--max-pixels", "1000000")
    ran = python(COMMAND, *arguments)  # OpenCV reads the limit when it is imported
    ran.refused(4, "huge.png has too many pixels", "--max-pixels")
    assert len(rows("build/run")) == 1


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("image,x1,y1,x2\n00000.png,1,2,3\n", ("boxes.csv:1", "no column y2")),
        ("image,x1,y1,x2,y2\n00000.png,1,2,3\n", ("boxes.csv:2", "4 fields where the header has 5")),
        ("image,x1,y1,x2,y2\n00000.png,1,2,x,3\n", ("boxes.csv:2", "'x'")),
        ("image,x1,y1,x2,y2\n00000.png,9,2,3,4\n", ("boxes.csv:2", "x1 < x2")),
        ("image,x1,y1,x2,y2\n00000.png,nan,2,3,4\n", ("boxes.csv:2", "x1 < x2")),
        ('{"path": "00000.png"}\n', ("boxes.csv:1", "faces")),
        ('{"path": "00000.png", "faces": [{"box": [1, 2, 9, 9], "score": NaN}]}\n', ("boxes.csv:1", "score")),
        ('{"path": "00000.png", "faces": [{"box": [1, 2]}]}\n', ("boxes.csv:1",)),
        ("image,x1,y1,x2,y2\nother.png,1,2,30,40\n", ("photos/00000.png", "no boxes")),
        ("image,x1,y1,x2,y2\n00000.png,900,2,990,40\n", ("boxes.csv:2", "256 x 256", "another picture")),
        ("image,x1,y1,x2,y2\n00000.png,0,0,1e6,1e6\n", ("boxes.csv:2", "256 x 256")),
    ],
)
def test_broken_boxes_are_refused_with_file_and_line(
    cli: Cli, net: Path, photos: Path, text: str, parts: tuple[str, ...]
) -> None:
    Path("boxes.csv").write_text(text, encoding="utf-8")
    cli("run", net, photos / "00000.png", "--boxes", "boxes.csv").refused(4, *parts)


def test_without_a_detector_the_error_names_file_and_option(cli: Cli, net: Path, photos: Path) -> None:
    cli("run", net, photos / "00000.png").refused(4, "rfb320", "version-RFB-320.onnx", "--boxes")
    cli("run", net, photos / "00000.png", "--detector", "retinafase").refused(2, "retinaface")


def test_an_input_is_never_overwritten(cli: Cli, net: Path, photos: Path) -> None:
    before = contents(photos)
    cli("run", net, photos, "--boxes", "boxes.csv", "--out", photos).refused(2, "would be overwritten")
    assert contents(photos) == before


def test_options_without_effect_are_refused(cli: Cli, net: Path, photos: Path) -> None:
    cli("run", net, photos, "--smooth").refused(2, "--smooth is for videos")
    cli("run", net, photos, "--boxes", "boxes.csv", "--detector", "rfb320").refused(2, "--boxes and --detector")


# Videos


def test_a_face_is_tracked_through_a_video_from_its_first_box(cli: Cli, net: Path, clip: Path, drawn: Path) -> None:
    ran = cli("run", net, clip, "--boxes", "first.jsonl", "--out", "found", "--json")
    assert ran.code == 0, ran.err
    (row,) = ran.document["inputs"]
    assert (row["frames"], row["faces"], row["without_face"]) == (12, 12, 0)
    assert row["fps"] > 0
    truth = read_pts(drawn / f"{FACE}.pts")
    for index, line in enumerate(rows()):
        assert (line["frame"], line["time"], line["size"]) == (index, index / 25, [320, 288])
        (face,) = line["faces"]
        assert face["track"] == 0
        points = np.array(face["landmarks"])
        assert nme(points[None], (truth + np.array([2 * index, index]))[None])[0] < 12
        assert Path(f"found/clip/{index + 1:06d}.pts").is_file()
    capture = cv2.VideoCapture("found/clip.mp4")
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert capture.get(cv2.CAP_PROP_FPS) == 25
    assert capture.read()[1].shape == (288, 320, 3)


def test_smoothed_landmarks_move_less(cli: Cli, net: Path, drawn: Path, clip: Path) -> None:
    random = np.random.default_rng(0)
    still = next(moving(drawn, 1)).astype(int)
    frames = [np.clip(still + random.normal(0, 20, still.shape), 0, 255).astype(np.uint8) for _ in range(12)]
    write_clip(Path("clip.mp4"), frames)
    spread = {}
    for options in ((), ("--smooth",)):
        cli("run", net, "clip.mp4", "--boxes", "first.jsonl", "--out", "found", *options)
        points = np.array([row["faces"][0]["landmarks"] for row in rows()])
        spread[options] = np.diff(points, axis=0).std()
    assert spread["--smooth",] < 0.7 * spread[()]


def test_without_tracking_a_face_is_only_in_frames_with_a_box(cli: Cli, net: Path, clip: Path) -> None:
    document = cli("run", net, clip, "--boxes", "first.jsonl", "--no-track", "--out", "found", "--json").document
    assert (document["faces"], document["inputs"][0]["without_face"]) == (1, 11)


def test_a_video_without_any_box_is_refused(cli: Cli, net: Path, clip: Path) -> None:
    Path("other.jsonl").write_text('{"path": "other.mp4", "frame": 0, "faces": []}\n', encoding="utf-8")
    cli("run", net, clip, "--boxes", "other.jsonl").refused(4, "clip.mp4", "other.jsonl has no boxes for it")


def test_a_truncated_video_is_saved_up_to_its_last_frame(cli: Cli, net: Path, drawn: Path) -> None:
    frames = [np.ascontiguousarray(frame) for frame in moving(drawn, 40)]
    write_clip(Path("clip.avi"), frames, "MJPG")
    data = Path("clip.avi").read_bytes()
    Path("clip.avi").write_bytes(data[: len(data) // 2])
    Path("first.jsonl").write_text(
        json.dumps({"path": "clip.avi", "frame": 0, "faces": [{"box": boxes_of(drawn).tolist()}]}), encoding="utf-8"
    )
    ran = cli("run", net, "clip.avi", "--boxes", "first.jsonl", "--out", "found")
    ran.refused(4, "clip.avi is truncated", "of 40 frames")
    capture = cv2.VideoCapture("found/clip.mp4")
    assert 10 < capture.get(cv2.CAP_PROP_FRAME_COUNT) == len(rows()) < 40


@pytest.mark.parametrize(("content", "what"), [(b"", "is empty"), (b"no video at all", "broken")])
def test_a_broken_video_is_refused_in_one_line(cli: Cli, net: Path, content: bytes, what: str) -> None:
    Path("bad.mp4").write_bytes(content)
    ran = cli("run", net, "bad.mp4", "--boxes", empty_boxes())
    ran.refused(4, "bad.mp4", what)


def empty_boxes() -> Path:
    path = Path("empty.csv")
    path.write_text("image,x1,y1,x2,y2\n", encoding="utf-8")
    return path


def test_a_missing_camera_is_refused_in_one_line(cli: Cli, net: Path) -> None:
    cli("run", net, "--camera", "63", "--boxes", empty_boxes()).refused(3, "no camera 63")


def test_a_stream_is_read_and_a_stream_without_answer_is_refused(cli: Cli, net: Path, clip: Path) -> None:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=".")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        lines = Path("first.jsonl").read_text(encoding="utf-8").replace("clip.mp4", f"http://{host}/clip.mp4")
        Path("first.jsonl").write_text(lines, encoding="utf-8")
        ran = cli("run", net, f"http://me:secret@{host}/clip.mp4", "--boxes", "first.jsonl", "--out", "found")
        assert ran.code == 0, ran.err
        assert len(rows()) == 12
        assert all(row["faces"] for row in rows())
        assert "secret" not in ran.out + ran.err + Path("found/landmarks.jsonl").read_text(encoding="utf-8")
        server.shutdown()
    cli("run", net, f"http://me:secret@{host}/clip.mp4", "--boxes", "first.jsonl").refused(4, "does not answer", host)


@pytest.mark.slow
def test_an_interrupt_leaves_whole_files(net: Path, drawn: Path) -> None:
    write_clip(Path("long.mp4"), [np.ascontiguousarray(frame) for frame in moving(drawn, 12)] * 300)
    Path("none.jsonl").write_text('{"path": "long.mp4", "frame": 0, "faces": []}\n', encoding="utf-8")
    ran = start("run", net, "long.mp4", "--boxes", "none.jsonl", "--out", "found", "--no-pts")
    lines = Path("found/landmarks.jsonl")
    deadline = time.monotonic() + 60
    while not (lines.exists() and lines.stat().st_size > 5000) and time.monotonic() < deadline:
        time.sleep(0.05)
    ran.send_signal(signal.SIGINT)
    _, err = ran.communicate(timeout=60)
    assert (ran.returncode, err.strip().splitlines()[-1]) == (130, "interrupted")
    count = cv2.VideoCapture("found/long.mp4").get(cv2.CAP_PROP_FRAME_COUNT)
    assert 0 < count < 3600
    assert abs(len(rows()) - count) <= 1
    assert strays(Path("found")) == []


def test_a_window_needs_a_display(cli: Cli, net: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    cli("run", net, clip, "--boxes", "first.jsonl", "--show").refused(3, "no window can be opened")


# Real faces


@pytest.fixture(scope="module")
def pfld(trained_build: Path) -> Path:
    """Trained PFLD as openvino-fp32. Not to be changed."""
    return trained_build / "pfld" / "openvino-fp32"


@pytest.mark.realdata
@pytest.mark.slow
def test_rfb320_and_pfld_have_the_recorded_ion(cli: Cli, pfld: Path, shared: Path) -> None:
    faces = shared / "faces" / "300w_common"
    ran = cli("run", pfld, faces, "--weights", shared / "detectors", "--out", "found", "--json")
    assert ran.code == 0, ran.err
    assert (ran.document["frames"], ran.document["inputs"][0]["kind"]) == (73, "picture")
    errors = []
    for row in rows():
        truth = read_pts(Path(row["path"]).with_suffix(".pts"))
        candidates = [nme(np.array(face["landmarks"])[None], truth[None])[0] for face in row["faces"]]
        errors.append(min(candidates))
    assert np.mean(errors) == pytest.approx(3.517, abs=0.02)


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--smooth",), ("--no-track",)])
def test_a_moving_photographed_face_is_tracked_in_every_frame(
    cli: Cli, pfld: Path, shared: Path, options: tuple[str, ...]
) -> None:
    path = shared / "faces" / "300w_common" / "lfpw" / "testset" / "image_0074.png"
    picture, truth = cv2.imread(str(path)), read_pts(path.with_suffix(".pts"))
    assert picture is not None
    shifts = [np.array([8.0 * np.sin(index / 5) * 5, 3.0 * index]) for index in range(40)]
    frames = [
        np.asarray(cv2.warpAffine(picture, np.column_stack([np.eye(2), shift]), (900, 700)), np.uint8)
        for shift in shifts
    ]
    write_clip(Path("clip.mp4"), frames)
    ran = cli("run", pfld, "clip.mp4", "--weights", shared / "detectors", "--out", "found", *options)
    assert ran.code == 0, ran.err
    for row, shift in zip(rows(), shifts, strict=True):
        (face,) = row["faces"]
        assert face["track"] == 0
        assert nme(np.array(face["landmarks"])[None], (truth + shift)[None])[0] < 8
