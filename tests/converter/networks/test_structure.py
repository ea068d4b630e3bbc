"""The tensors in results of every form, by name."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lmconv.networks.structure import tensors

A, B = torch.zeros(1), torch.ones(2)
Pair = namedtuple("Pair", "landmarks score")


@dataclass
class Result:
    landmarks: Any
    score: Any = None


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (A, [""]),
        ((A, B), ["0", "1"]),
        ([A, B], ["0", "1"]),
        (Pair(A, B), ["landmarks", "score"]),
        ({"landmarks": A, 5: B}, ["landmarks", "5"]),
        (OrderedDict(landmarks=A, score=B), ["landmarks", "score"]),
        (Result(A, B), ["landmarks", "score"]),
        (SimpleNamespace(landmarks=A, score=B), ["landmarks", "score"]),
        ({"stages": [Result(A), Result(B)]}, ["stages.0.landmarks", "stages.1.landmarks"]),
        ((None, A, 3, "text", B), ["1", "4"]),
        ((None, {}), []),
    ],
)
def test_every_tensor_is_named_by_its_path(result: Any, names: list[str]) -> None:
    found = tensors(result)
    assert [name for name, _ in found] == names
    assert all(one is other for (_, one), other in zip(found, (A, B), strict=False))
