"""Files for a GPU host, in parts small enough to be copied one by one."""

from __future__ import annotations

import shutil
from pathlib import Path

PART = 60_000_000
"""Largest size of a part, bytes; a larger file gets its own part."""


def split(staging: Path, out: Path) -> list[int]:
    """Moves all files below `staging` to `out/part0`, `out/part1`, …; returns the size of each part, bytes.

    Large files first, each into the first part with room.
    """
    sizes: list[int] = []
    for file in sorted(filter(Path.is_file, staging.rglob("*")), key=lambda path: -path.stat().st_size):
        size = file.stat().st_size
        part = next((index for index, taken in enumerate(sizes) if taken + size <= PART), len(sizes))
        sizes[part : part + 1] = [sum(sizes[part : part + 1]) + size]
        to = out / f"part{part}" / file.relative_to(staging)
        to.parent.mkdir(parents=True, exist_ok=True)
        file.rename(to)
    shutil.rmtree(staging)
    return sizes


def remove(out: Path) -> None:
    """Removes the parts of an earlier preparation."""
    for folder in out.glob("part*"):
        shutil.rmtree(folder)


def gather(out: Path) -> Path:
    """Copies all parts into `out/host`, as on the host; returns that folder."""
    host = out / "host"
    for part in sorted(out.glob("part*")):
        shutil.copytree(part, host, dirs_exist_ok=True)
    return host
