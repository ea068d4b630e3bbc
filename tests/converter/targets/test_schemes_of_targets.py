"""The int8 schemes of the targets: the table in the docs agrees with the code."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from lmconv import machine
from lmconv.plugins import TARGETS
from lmconv.types import Cpu

PAGE = Path(__file__).parents[3] / "docs" / "precision.md"


def test_the_docs_list_the_scheme_of_every_target() -> None:
    targets = TARGETS.load_all()
    schemes = [(name, cpu, target.scheme(cpu)) for name, target in targets.items() for cpu in get_args(Cpu)]
    rows = [
        f"| {name} | {cpu} | {scheme.activations} | {scheme.weights} | {'yes' if scheme.bracket else 'no'} "
        f"| {'yes' if scheme.fuse_sums else 'no'} | {scheme.balance:g} | {scheme.float_stem} | {scheme.reason} |"
        for name, cpu, scheme in schemes
    ]
    columns = ("target", "cpu", "activations", "weights", "bracket", "sums", "balance", "stem", "why")
    header = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    assert header + "\n".join(rows) + "\n\n" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "kind"), [("x86_64", "x86"), ("AMD64", "x86"), ("aarch64", "arm"), ("arm64", "arm"), ("armv7l", "arm")]
)
def test_the_machine_name_gives_the_kind_of_cpu(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: name)
    assert machine.this_cpu() == kind
