"""What a search has measured so far, on disk after each measurement: one that was interrupted goes on from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lmconv.store.files import canonical, digest, replace_text, writing
from lmconv.types import Json

FILE = "measured.json"


@dataclass(slots=True, kw_only=True)
class Memo:
    """Measurements by name, of one network, target, machine and set of faces.

    Attributes:
        path: The file.
        about: What they were measured on; those of anything else are of no use, and forgotten.
        known: The measurements: JSON values.
        reused: How many were there already.
    """

    path: Path
    about: Json
    known: Json = field(default_factory=dict)
    reused: int = 0

    @classmethod
    def open(cls, folder: Path, about: Json, *, fresh: bool = False) -> Memo:
        """Reads what an earlier search left in a folder; nothing where it measured something else, or was damaged.

        Raises:
            InputError: The folder cannot be written.
        """
        memo = cls(path=folder / FILE, about=about)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            found = json.loads(memo.path.read_text(encoding="utf-8"))
            if not fresh and found["about"] == about and found["digest"] == digest(found["known"]):
                memo.known = found["known"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return memo

    def get(self, name: str, measure: Callable[[], Json]) -> Json:
        """A measurement: that on disk, or a new one, which is kept."""
        if name in self.known:
            self.reused += 1
        else:
            self.known[name] = measure()
            text = canonical({"about": self.about, "known": self.known, "digest": digest(self.known)})
            with writing(self.path):
                replace_text(self.path, text)
        found: Json = self.known[name]
        return found
