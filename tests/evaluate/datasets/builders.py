"""Tiny data sets in the layouts of their authors, for tests of the readers and of the commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from lmconv.faces.pts import text_of
from lmconv.synthetic.folder import write
from lmconv.types import Float64

SIZE = (60, 80)
"""Height and width of a picture."""


def points(count: int, seed: int = 0, *, left: float = 20.0) -> Float64:
    """(count, 2) float64: points of a face 30 pixels wide, pixels, rounded to one decimal."""
    return np.round(np.random.default_rng(seed).uniform((left, 12), (left + 30, 45), (count, 2)), 1)


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(1, 256, (*SIZE, 3), dtype=np.uint8))
    return path


def write_pts(path: Path, points: Float64) -> None:
    path.write_text(text_of(points), encoding="utf-8")


def pair(path: Path, count: int, seed: int = 0) -> None:
    """Writes a picture and its `.pts` file."""
    picture(path, seed)
    path.with_suffix(".pts").write_text(text_of(points(count, seed)), encoding="utf-8")


def private(root: Path) -> Path:
    for part, stem in (("01_Indoor", "indoor"), ("02_Outdoor", "outdoor")):
        for number in (1, 2):
            pair(root / "300W" / part / f"{stem}_{number:03d}.png", 68, number)
    return root


def menpo(root: Path) -> Path:
    for kind, count in (("semifrontal", 68), ("profile", 39)):
        for part in ("trainset", "testset"):
            pair(root / kind / part / "aflw__face_39844.jpg", count, count)
    return root


def video(path: Path, frames: int = 3) -> Path:
    """Writes a video whose n-th frame, from 0, has the grey level 60 n + 10 everywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, SIZE[::-1])
    for number in range(frames):
        writer.write(np.full((*SIZE, 3), 60 * number + 10, np.uint8))
    writer.release()
    return path


def videos(root: Path) -> Path:
    for name in ("114", "203", "410", "001"):
        video(root / name / "vid.avi")
        (root / name / "annot").mkdir()
        for number in (1, 2, 3):
            path = root / name / "annot" / f"{number:06d}.pts"
            path.write_text(text_of(points(68, number)), encoding="utf-8")
    return root


def wflw_line(name: str, flags: str, seed: int) -> str:
    at = " ".join(f"{value:.6f}" for value in points(98, seed).ravel())
    return f"{at} 20 12 50 45 {flags} {name}\n"


def wflw(root: Path) -> Path:
    """Writes lists with two faces in one picture; flags: pose, expression, illumination, make-up, occlusion, blur."""
    lists = root / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    lists.mkdir(parents=True)
    soccer, parade = "37--Soccer/37_Soccer_soccer_ball_37_45.jpg", "0--Parade/0_Parade_marchingband_1_116.jpg"
    rows = [(soccer, "1 0 0 0 0 1", 1), (parade, "0 0 0 0 0 0", 2), (soccer, "0 1 1 1 1 0", 3)]
    test = "".join(wflw_line(*row) for row in rows)
    (lists / "list_98pt_rect_attr_test.txt").write_text(test, encoding="utf-8")
    train = wflw_line("1--Handshaking/1_Handshaking_0_1.jpg", "1 0 0 0 0 0", 4)
    (lists / "list_98pt_rect_attr_train.txt").write_text(train, encoding="utf-8")
    for number, name in enumerate((soccer, parade, "1--Handshaking/1_Handshaking_0_1.jpg")):
        picture(root / "WFLW_images" / name, number)
    return root


def jd(root: Path) -> Path:
    for part, stem in (("Training_data/AFW", "AFW_134212_1_0"), ("Test_data", "1")):
        picture(root / part / "picture" / f"{stem}.jpg")
        (root / part / "landmark").mkdir()
        rows = "".join(f"{x} {y}\n" for x, y in points(106))
        (root / part / "landmark" / f"{stem}.jpg.txt").write_text(f"106\n{rows}", encoding="utf-8")
    return root


def box(at: Float64, ignore: str = "") -> str:
    parts = "".join(f"<part name='{i:02d}' x='{round(x)}' y='{round(y)}'/>\n" for i, (x, y) in enumerate(at))
    return f"<box top='12' left='20' width='31' height='34'{ignore}>\n{parts}</box>\n"


def xml(images: dict[str, Sequence[str]], before: str = "") -> str:
    """Returns the text of an imglab file with boxes by picture."""
    body = "".join(f"<image file='{name}'>\n{''.join(boxes)}</image>\n" for name, boxes in images.items())
    sheet = "<?xml-stylesheet type='text/xsl' href='image_metadata_stylesheet.xsl'?>"
    head = f"<?xml version='1.0' encoding='ISO-8859-1'?>\n{sheet}\n{before}"
    return f"{head}<dataset>\n<name>faces</name>\n<images>\n{body}</images>\n</dataset>\n"


def dlib(root: Path) -> Path:
    """Writes a test picture with two faces, a box without points and an ignored box; and a training picture."""
    picture(root / "helen" / "testset" / "1.jpg")
    picture(root / "afw" / "2_mirror.jpg", 1)
    boxes = [box(points(68, 1)), box(points(68, 2)), "<box top='1' left='1' width='2' height='2'/>\n"]
    boxes.append(box(points(68, 3), " ignore='1'"))
    (root / "labels_ibug_300W_test.xml").write_text(xml({"helen/testset/1.jpg": boxes}), encoding="latin-1")
    train = xml({"afw/2_mirror.jpg": [box(points(68, 4))]})
    (root / "labels_ibug_300W_train.xml").write_text(train, encoding="latin-1")
    return root


def header(count: int) -> str:
    return ",".join(["image", *(f"{axis}{number}" for number in range(count) for axis in "xy")])


def row(name: str, at: Float64) -> str:
    return ",".join([name, *(f"{value:.1f}" for value in at.ravel())])


def csv(root: Path) -> Path:
    picture(root / "a.png")
    text = "\n".join([header(68), row("a.png", points(68, 1)), row("a.png", points(68, 2))]) + "\n"
    (root / "landmarks.csv").write_text(text, encoding="utf-8")
    return root


def json_list(root: Path) -> Path:
    picture(root / "a.png")
    faces = [{"image": "a.png", "landmarks": points(68, seed).tolist(), "subset": "mine"} for seed in (1, 2)]
    (root / "landmarks.json").write_text(json.dumps(faces, indent=1), encoding="utf-8")
    return root


def plain_list(root: Path) -> Path:
    picture(root / "test" / "image_064_1.jpg")
    numbers = " ".join(str(value) for value in (*points(68, 1).ravel(), 17.6, 9.4, 52.4, 47.6))
    (root / "challenging_anno.txt").write_text(f"{numbers} test/image_064_1.jpg\n", encoding="utf-8")
    return root / "challenging_anno.txt"


def ljson(root: Path) -> Path:
    picture(root / "lenna.png")
    groups = {
        "LJSON": {"labels": [], "landmarks": {"connectivity": [], "points": points(68, 1)[:, ::-1].tolist()}},
        "pupils": {"labels": [], "landmarks": {"connectivity": [], "points": [[20.0, 30.0], [20.0, 40.0]]}},
    }
    (root / "lenna.ljson").write_text(json.dumps({"groups": groups, "version": 3}), encoding="utf-8")
    return root


def drawn(root: Path) -> Path:
    write(root, {"testset": 2, "trainset": 1})
    return root


BUILDERS: dict[str, tuple[Callable[[Path], Path], int]] = {
    "drawn": (drawn, 68),
    "ibug300w": (private, 68),
    "menpo2d": (menpo, 68),
    "w300vw": (videos, 68),
    "wflw": (wflw, 98),
    "jd106": (jd, 106),
    "dlib_xml": (dlib, 68),
    "table": (csv, 68),
    "plain_list": (plain_list, 68),
    "ljson": (ljson, 68),
}
"""By data set: the function that writes a tiny set, and the number of points of its faces."""
