"""Store for the measurements of a search, written to disk after each one: an interrupted search can continue."""

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
    """Measurements by name, for one network, target, machine and set of faces.

    Attributes:
        path: File of the measurements.
        conditions: Conditions of the measurements, as JSON: network, target, machine, faces. Measurements under other
            conditions are discarded.
        measurements: The measurements by name, as JSON values.
        reused: Number of requests that a stored measurement has answered.
    """

    path: Path
    conditions: Json
    measurements: Json = field(default_factory=dict)
    reused: int = 0

    @classmethod
    def load(cls, folder: Path, conditions: Json, *, fresh: bool = False) -> Memo:
        """Loads the measurements of earlier searches from a folder; creates the folder if necessary.

        Args:
            folder: Folder of the file.
            conditions: Conditions of the new search.
            fresh: True to discard stored measurements.

        Returns:
            The stored measurements. The result is empty if the file is missing or damaged, or if the stored
            measurements were taken under other conditions.

        Raises:
            InputError: The folder cannot be written.
        """
        memo = cls(path=folder / FILE, conditions=conditions)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            stored = json.loads(memo.path.read_text(encoding="utf-8"))
            if not fresh and stored["about"] == conditions and stored["digest"] == digest(stored["known"]):
                memo.measurements = stored["known"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return memo

    def get(self, name: str, measure: Callable[[], Json]) -> Json:
        """Returns the stored measurement of this name; otherwise measures, and writes the result to disk.

        Raises:
            InputError: The file cannot be written.
        """
        if name in self.measurements:
            self.reused += 1
        else:
            self.measurements[name] = measure()
            document = {"about": self.conditions, "known": self.measurements, "digest": digest(self.measurements)}
            with writing(self.path):
                replace_text(self.path, canonical(document))
        measurement: Json = self.measurements[name]
        return measurement
