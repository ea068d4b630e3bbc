"""dlib's XML, as its imglab writes it and 300-W is passed around in: a folder with such files, or one of them.

`<dataset><images><image file="..."><box top left width height><part name="00" x y/>...` with pictures named relative
to the XML. A file is of the split that its name speaks of (`labels_ibug_300W_train.xml`), one that is named itself of
every split. Boxes are not used: the networks' crops are around the points. Those without points, and those to be
ignored, are left out. Coordinates stay as stored: whole pixels, the first is (0, 0).

http://dlib.net/imaging.html#load_image_dataset_metadata. An XML needs no DTD and no entities to say this, and one that
declares any is refused before they are expanded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from xml.parsers import expat

from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError
from lmconv.faces import pts
from lmconv.faces.annotations import broken, check_split, listing, numbers, split_of
from lmconv.types import Float64

HEAD = 4096
"""Bytes in which a file has to say that it is such a data set."""


class _Reader:
    """Reads one file without keeping its tree."""

    def __init__(self, path: Path) -> None:
        self.path, self.faces, self.without = path, list[Face](), 0
        self.picture = ""
        self.box: tuple[int, bool, dict[str, tuple[str, str]]] | None = None
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self.begin
        self.parser.EndElementHandler = self.end
        self.parser.StartDoctypeDeclHandler = self.parser.EntityDeclHandler = self.refuse

    def read(self) -> tuple[list[Face], int]:
        """The faces, and how many boxes have no points or are to be ignored."""
        try:
            with self.path.open("rb") as file:
                self.parser.ParseFile(file)
        except expat.ExpatError as error:
            what = f"not XML: {expat.ErrorString(error.code)}"
            raise broken(self.path, error.lineno, what, "restore the file") from error
        except ValueError as error:  # an encoding of more than one byte that is not Unicode
            raise broken(self.path, 1, f"not XML: {error}", "save it in UTF-8") from error
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror}", hint="check the file and its permissions") from error
        return self.faces, self.without

    def refuse(self, *_: object) -> None:
        what = "declares a document type or an entity, which imglab never does: refused"
        raise broken(self.path, self.parser.CurrentLineNumber, what, "remove the declaration if you trust the file")

    def begin(self, tag: str, given: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        if tag == "image":
            self.picture = self._needed(given, "file", tag)
        elif tag == "box":
            self.box = line, given.get("ignore", "0") not in ("0", "false"), {}
        elif tag == "part" and self.box:
            name, x, y = (self._needed(given, key, tag) for key in ("name", "x", "y"))
            if not (name.isdecimal() and name.isascii()) or str(int(name)) in self.box[2]:
                raise broken(self.path, line, f"part {name[:40]!r} is not a number of its own in its box")
            self.box[2][str(int(name))] = x, y

    def end(self, tag: str) -> None:
        if tag != "box" or not self.box:
            return
        (line, ignored, parts), self.box = self.box, None
        if ignored or not parts:
            self.without += 1
            return
        picture = PurePosixPath(self.picture.replace("\\", "/"))
        key, image = str(picture), self.path.parent / picture
        points = self._points(parts, line)
        stem = (self.path.stem,)
        self.faces.append(Face(image=image, annotation=self.path, points=points, subsets=stem, key=key, line=line))

    def _points(self, parts: dict[str, tuple[str, str]], line: int) -> Float64:
        missing = next((number for number in range(len(parts)) if str(number) not in parts), None)
        if missing is not None:
            raise broken(self.path, line, f"a box has {len(parts)} parts, but none is called {missing}")
        fields = [value for number in range(len(parts)) for value in parts[str(number)]]
        return numbers(self.path, line, fields).reshape(-1, 2)

    def _needed(self, given: dict[str, str], key: str, tag: str) -> str:
        if key not in given:
            raise broken(self.path, self.parser.CurrentLineNumber, f"a {tag} has no {key}")
        return given[key]


def _is_one(path: Path) -> bool:
    if path.suffix.lower() != ".xml" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"<dataset" in file.read(HEAD)


def _files(place: Path) -> list[Path]:
    """The file itself, or those that lie in the folder."""
    if place.is_dir():
        return [path for path in pts.entries(place.absolute()) if _is_one(path)]
    return [place.absolute()] if _is_one(place) else []


def _faces(place: Path, split: str) -> Listing:
    check_split(split)
    files, problems = _files(place), list[str]()
    chosen = files
    if place.is_dir() and any(split_of(path.stem) for path in files):
        chosen = [path for path in files if split_of(path.stem) in (("train", "test") if split == "all" else (split,))]
        problems = [f"{path}: left out, its name says no split" for path in files if not split_of(path.stem)]
    if files and not chosen:
        there = ", ".join(path.name for path in files)
        raise InputError(f"{place} has no {split} faces, only {there}", hint="use another --split, or name a file")
    return listing(place, _read(chosen, problems), problems=problems)


def _read(files: list[Path], problems: list[str]) -> Iterator[Face]:
    for path in files:
        faces, without = _Reader(path).read()
        if without:
            problems.append(f"{path}: {without} boxes left out, without points or to be ignored")
        yield from faces


plugin = Dataset(
    name="dlib_xml",
    summary="dlib's XML (imglab): a folder with .xml files, or one of them",
    matches=lambda place: bool(_files(place)),
    faces=_faces,
)
