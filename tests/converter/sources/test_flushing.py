"""PyTorch runs with denormal numbers as zero; everything else in the process computes with denormal numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers import Cli

from lmconv.sources.flushing import flushed
from lmconv.sources.pytorch import TorchSource
from lmconv.sources.resolve import open_source, resolve

SMALL = torch.full((1 << 20,), 1e-20)
"""Numbers whose squares are denormal, enough for every thread of PyTorch to get some."""
NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 8)
        self.small = nn.Parameter(torch.full((8,), 1e-40))

    def forward(self, x):
        return self.fc(x.flatten(1)) * 0 + self.small
"""


def denormals() -> int:
    """Counts denormal squares, computed with two threads."""
    torch.set_num_threads(2)
    return int((SMALL * SMALL != 0).sum())


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """Restores the number of PyTorch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    flushed(lambda: torch.set_num_threads(before))


def test_all_threads_of_pytorch_flush_inside_and_none_outside() -> None:
    assert denormals() == len(SMALL)
    assert flushed(denormals) == 0
    assert denormals() == len(SMALL)
    small = np.full(4, 1e-20, np.float32)
    assert (small * small > 0).all()


def test_an_error_inside_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        flushed(lambda: 1 // 0)


def test_a_source_runs_flushed_and_counts_its_denormal_weights_and_its_operations(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "net.py"
    path.write_text(NETWORK, encoding="utf-8")
    torch.save({"fc.weight": torch.ones(8, 192), "fc.bias": torch.ones(8), "small": torch.full((8,), 1e-40)}, "net.pth")
    with open_source(resolve(f"{path}:Net", size=(8, 8), landmarks=4, weights=Path("net.pth"))) as session:
        assert isinstance(session, TorchSource)
        points = session.run({"input": np.ones((2, 3, 8, 8), np.float32)})["landmarks"]
        assert not points.any()
        assert session.denormals == 8
        assert session.flops(np.ones((1, 3, 8, 8), np.float32)) == 2 * 192 * 8
    arguments = ("--input", "3x8x8", "--landmarks", "4", "--weights", "net.pth")
    assert cli("inspect", f"{path}:Net", *arguments, "--json").document["denormals"] == 8
