"""dlib's XML, the format of dlib's imglab: a folder with XML files, or one file.

300-W is also distributed in this format. The elements of a file are
`<dataset><images><image file="..."><box top left width height><part name="00" x y/>...`. The paths of the pictures are
relative to the XML file. The split of a file follows from the file's name (`labels_ibug_300W_train.xml`); a file that
the user names itself belongs to every split. The position of a box is ignored, because the networks take crops around
the landmarks. Boxes without landmarks and boxes with `ignore` are left out. Coordinates stay as stored: whole pixels,
the first pixel is (0, 0).

http://dlib.net/imaging.html#load_image_dataset_metadata. The format needs no document type and no entities. A file that
declares a document type or an entity is refused before any entity is expanded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from xml.parsers import expat

from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError
from lmconv.faces import pts
from lmconv.faces.annotations import build_listing, check_split, finite_numbers, line_error, split_in_name
from lmconv.types import Float64

HEAD = 4096
"""Number of bytes at the beginning of a file that must contain `<dataset`."""


class _Reader:
    """Reads one file event by event, without the element tree in memory.

    Attributes:
        path: The file.
        faces: The faces read so far.
        skipped: Number of boxes so far that have no landmarks or are marked `ignore`.
        picture: Path of the current picture, relative to the file.
        box: The open box: line, True if marked `ignore`, x and y by part number; None outside of a box.
        parser: The parser of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.faces, self.skipped = path, list[Face](), 0
        self.picture = ""
        self.box: tuple[int, bool, dict[str, tuple[str, str]]] | None = None
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self.begin
        self.parser.EndElementHandler = self.end
        self.parser.StartDoctypeDeclHandler = self.parser.EntityDeclHandler = self.refuse

    def read(self) -> tuple[list[Face], int]:
        """Returns the faces, and the number of boxes that have no landmarks or are marked `ignore`."""
        try:
            with self.path.open("rb") as file:
                self.parser.ParseFile(file)
        except expat.ExpatError as error:
            message = f"not XML: {expat.ErrorString(error.code)}"
            raise line_error(self.path, error.lineno, message, "restore the file") from error
        except ValueError as error:  # a multi-byte encoding that is not Unicode
            raise line_error(self.path, 1, f"not XML: {error}", "save the file in UTF-8") from error
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror}", hint="check the file and its permissions") from error
        return self.faces, self.skipped

    def refuse(self, *_: object) -> None:
        message = "refused: declares a document type or an entity, which imglab never does"
        hint = "remove the declaration if you trust the file"
        raise line_error(self.path, self.parser.CurrentLineNumber, message, hint)

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        if tag == "image":
            self.picture = self._required(attributes, "file", tag)
        elif tag == "box":
            self.box = line, attributes.get("ignore", "0") not in ("0", "false"), {}
        elif tag == "part" and self.box:
            name, x, y = (self._required(attributes, key, tag) for key in ("name", "x", "y"))
            if not (name.isdecimal() and name.isascii()) or str(int(name)) in self.box[2]:
                raise line_error(self.path, line, f"part {name[:40]!r} is not a number, or occurs twice in the box")
            self.box[2][str(int(name))] = x, y

    def end(self, tag: str) -> None:
        if tag != "box" or not self.box:
            return
        (line, ignored, parts), self.box = self.box, None
        if ignored or not parts:
            self.skipped += 1
            return
        picture = PurePosixPath(self.picture.replace("\\", "/"))
        key, image = str(picture), self.path.parent / picture
        points = self._points(parts, line)
        stem = (self.path.stem,)
        self.faces.append(Face(image=image, annotation=self.path, points=points, subsets=stem, key=key, line=line))

    def _points(self, parts: dict[str, tuple[str, str]], line: int) -> Float64:
        missing = next((number for number in range(len(parts)) if str(number) not in parts), None)
        if missing is not None:
            raise line_error(self.path, line, f"a box has {len(parts)} parts, but no part is called {missing}")
        fields = [value for number in range(len(parts)) for value in parts[str(number)]]
        return finite_numbers(self.path, line, fields).reshape(-1, 2)

    def _required(self, attributes: dict[str, str], key: str, tag: str) -> str:
        if key not in attributes:
            raise line_error(self.path, self.parser.CurrentLineNumber, f"<{tag}> has no attribute {key}")
        return attributes[key]


def _is_dlib_xml(path: Path) -> bool:
    if path.suffix.lower() != ".xml" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"<dataset" in file.read(HEAD)


def _files(source: Path) -> list[Path]:
    """Returns the file itself, or the XML files in the folder."""
    if source.is_dir():
        return [path for path in pts.entries(source.absolute()) if _is_dlib_xml(path)]
    return [source.absolute()] if _is_dlib_xml(source) else []


def _faces(source: Path, split: str) -> Listing:
    check_split(split)
    files, problems = _files(source), list[str]()
    chosen = files
    if source.is_dir() and any(split_in_name(path.stem) for path in files):
        splits = ("train", "test") if split == "all" else (split,)
        chosen = [path for path in files if split_in_name(path.stem) in splits]
        nameless = [path for path in files if not split_in_name(path.stem)]
        problems = [f"{path}: left out, because its name contains neither train nor test" for path in nameless]
    if files and not chosen:
        names = ", ".join(path.name for path in files)
        raise InputError(f"{source} has no {split} faces, only {names}", hint="use another --split, or name a file")
    return build_listing(source, _read(chosen, problems), problems=problems)


def _read(files: list[Path], problems: list[str]) -> Iterator[Face]:
    for path in files:
        faces, skipped = _Reader(path).read()
        if skipped:
            problems.append(f"{path}: {skipped} boxes left out, without points or marked ignore")
        yield from faces


plugin = Dataset(
    name="dlib_xml",
    summary="dlib's XML (imglab): a folder with .xml files, or one .xml file",
    matches=lambda source: bool(_files(source)),
    faces=_faces,
)
