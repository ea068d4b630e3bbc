"""Writes known/networks.json, the table behind `lmconv models`: `python weights/count_networks.py`.

Every backbone of lmconv is built and counted. The file of a network that was published as ONNX is needed to count its
parameters, and is found as by `lmconv export`; without the file the previous counts stay.
"""

from __future__ import annotations

import json
from pathlib import Path

from lmconv.commands.models import described, recorded
from lmconv.plugins import BACKBONES
from lmconv.sources import checkpoints
from lmconv.types import Json

TABLE = Path(__file__).parent / "lmconv" / "known" / "networks.json"


def rows() -> dict[str, Json]:
    """The content of networks.json, by network."""
    previous = recorded() if TABLE.exists() else {}
    names = [name for name in BACKBONES.names() if BACKBONES.builtin(name)]
    return {name: row(name, previous.get(name)) for name in names}


def row(name: str, previous: Json | None) -> Json:
    """The entry of one network; `previous` supplies the counts where the network's file is not here."""
    made = described(BACKBONES.load(name), checkpoints.find(name))
    if made["parameters"] is None and previous:
        return made | {key: previous[key] for key in ("parameters", "flops")}
    return made


def main() -> None:
    """Writes the table, one network a line."""
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(made)}" for name, made in rows().items())
    TABLE.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    print(f"{TABLE}: {lines.count(chr(10)) + 1} networks")


if __name__ == "__main__":
    main()
