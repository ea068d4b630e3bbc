"""Outputs in the forms that training code returns; an option names the landmarks where several outputs could be."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from tests.corpus.blocks import Head, features
from tests.corpus.registry import POINTS, network
from torch import Tensor, nn


class Parts(nn.Module):
    """Computes landmarks, a score and features."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.score = features(), Head(32), Head(32, 1)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.body(x)
        return self.head(maps), self.score(maps), maps

    def forward(self, x: Tensor) -> Any:
        return self.parts(x)


@network("a tuple that starts with the landmarks", exported=False)
def landmarks_first() -> nn.Module:
    return Parts()


@network(
    "a tuple with the features first, and `--output 1`",
    exported=False,
    options={"output": "1"},
    expected=lambda output: output[1],
)
def landmarks_second() -> nn.Module:
    class Second(Parts):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            landmarks, _, maps = self.parts(x)
            return maps, landmarks

    return Second()


@network(
    "a dict, and `--output landmarks`",
    exported=False,
    options={"output": "landmarks"},
    expected=lambda output: output["landmarks"],
)
def named_in_a_dict() -> nn.Module:
    class Named(Parts):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            landmarks, score, _ = self.parts(x)
            return {"score": score, "landmarks": landmarks}

    return Named()


@dataclasses.dataclass
class Result:
    """Output of a network with named fields."""

    score: Tensor
    landmarks: Tensor


@network(
    "a dataclass, and `--output landmarks`",
    exported=False,
    options={"output": "landmarks"},
    expected=lambda output: output.landmarks,
)
def field_of_a_dataclass() -> nn.Module:
    class Typed(Parts):
        def forward(self, x: Tensor) -> Result:
            landmarks, score, _ = self.parts(x)
            return Result(score=score, landmarks=landmarks)

    return Typed()


class Pair(NamedTuple):
    """Output of a network as a named tuple."""

    landmarks: Tensor
    score: Tensor


@network("a named tuple", exported=False)
def named_tuple() -> nn.Module:
    class Tupled(Parts):
        def forward(self, x: Tensor) -> Pair:
            landmarks, score, _ = self.parts(x)
            return Pair(landmarks, score)

    return Tupled()


@network(
    "a list with the landmarks of each stage, and `--output 1`",
    exported=False,
    options={"output": "1"},
    expected=lambda output: output[1],
)
def stages() -> nn.Module:
    class Stages(Parts):
        def __init__(self) -> None:
            super().__init__()
            self.second = Head(32)

        def forward(self, x: Tensor) -> list[Tensor]:
            landmarks, _, maps = self.parts(x)
            return [landmarks, landmarks + 0.1 * self.second(maps)]

    return Stages()


@network(
    "points with three coordinates, and `--coordinates xy`",
    exported=False,
    options={"coordinates": "xy"},
    expected=lambda output: output[..., :2],
)
def three_coordinates() -> nn.Module:
    return nn.Sequential(features(), Head(32, 3 * POINTS), nn.Unflatten(1, (POINTS, 3)))


@network("landmarks in pixels of the input", exported=False, options={"unit": "pixels"})
def pixels() -> nn.Module:
    class Pixels(Parts):
        def forward(self, x: Tensor) -> Tensor:
            return 32 * self.parts(x)[0]

    return Pixels()


@network("landmarks from -1 to 1", exported=False, options={"unit": "[-1,1]"})
def from_minus_one() -> nn.Module:
    class Centred(Parts):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.parts(x)[0] - 1

    return Centred()


@network("no landmarks: (N, 7) numbers", exported=False)
def seven_numbers() -> nn.Module:
    return nn.Sequential(features(), Head(32, 7))


@network("no landmarks: a class score beside a map", exported=False)
def a_score() -> nn.Module:
    class Score(Parts):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            _, score, maps = self.parts(x)
            return score, maps

    return Score()
