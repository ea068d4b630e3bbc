"""Random networks with planted dead channels and traps: `python -m tests.generated.networks 5000` says what is in them.

A network is drawn as a recipe, which is small, prints as the Python that makes it, and decides the network.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, shape_inference
from tests.generated import heads
from tests.generated.blocks import convolutions, foreign, gates, joins, spatial, sums
from tests.generated.network import CONSTANTS, Network, Planted, Trap
from tests.generated.registry import BLOCKS, HEADS, NOTHING, Kind

from lmconv.types import OPSET

WRITTEN = (convolutions, foreign, gates, joins, spatial, sums, heads)
"""The modules whose blocks are registered by being imported."""

LARGEST, SMALLEST = 20, 3
"""Sides that a block may leave; beyond them a convolution follows."""

BYTES, BLOCKS_AT_MOST = 32, 8
"""Of which a block is read, two for each choice; how many blocks there may be."""


class Step:
    """One block of a recipe: its kind and its options."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.kind, self.options = kind, options

    def __repr__(self) -> str:
        return f"Step({', '.join([repr(self.kind), *(f'{name}={value!r}' for name, value in self.options.items())])})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that decides a network."""

    seed: int
    size: tuple[int, int]
    channels: int
    constants: str
    named: bool
    shapes: bool
    blocks: tuple[Step, ...]
    head: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A network and what is known about it."""

    recipe: Recipe
    model: onnx.ModelProto
    planted: tuple[Planted, ...]
    traps: tuple[Trap, ...]
    features: frozenset[str]
    blocks: Mapping[str, int]
    clean: bool
    """Whether nothing at all is dead in it."""


class Choices:
    """Reads a recipe from bytes: zero is the first of any choice, which is what a failure shrinks to."""

    def __init__(self, drawn: bytes) -> None:
        self.drawn = iter(drawn)

    def among(self, values: Sequence[Any]) -> Any:
        """One of these."""
        return values[(next(self.drawn) << 8 | next(self.drawn)) % len(values)]

    def step(self, kinds: Mapping[str, Kind], name: str, *, planting: bool) -> Step:
        """A block of this kind."""
        options = {option: self.among(values) for option, values in kinds[name].options.items()}
        return Step(name, **options if planting else {**options, "plan": NOTHING})


def read(drawn: bytes) -> Recipe:
    """The recipe that bytes stand for; every block has its own, so that one may shrink without the others."""
    start, *parts = (Choices(drawn[i : i + BYTES]) for i in range(0, len(drawn), BYTES))
    planting = start.among(range(8)) < 7
    kinds = [(part, part.among([None, *BLOCKS])) for part in parts]
    return Recipe(
        seed=start.among(range(2**16)),
        size=(start.among(range(8, 17)), start.among(range(8, 17))),
        channels=start.among([4, 8, 16]),
        constants=start.among(CONSTANTS),
        named=start.among([True, False]),
        shapes=start.among([True, False]),
        head=start.step(HEADS, start.among(list(HEADS)), planting=planting),
        blocks=tuple(
            part.step(BLOCKS, kind, planting=planting)
            for part, kind in kinds[: start.among(range(2, 9))]
            if kind is not None
        ),
    )


def recipes() -> st.SearchStrategy[Recipe]:
    """Any network; in one of eight nothing is planted.

    The bytes are one draw: of several alike, Hypothesis repeats some with every example, and networks become alike.
    """
    size = BYTES * (BLOCKS_AT_MOST + 1)
    return st.binary(min_size=size, max_size=size).map(read)


def build(recipe: Recipe) -> Generated:
    """Writes a recipe's network."""
    net = Network(
        recipe.seed, channels=recipe.channels, size=recipe.size, constants=recipe.constants, named=recipe.named
    )
    x = net.conv(net.input, net.filters(3, recipe.channels))
    for net.block, step in enumerate(recipe.blocks, 1):
        x = BLOCKS[step.kind].write(net, x, **step.options)
        if max(x.height, x.width) > LARGEST:
            x = net.conv(x, net.filters(x.channels, recipe.channels), stride=2)
        if min(x.height, x.width) < SMALLEST:
            x = net.conv(x, net.filters(x.channels, recipe.channels, 1), padding="wide")
    net.block += 1
    shape = HEADS[recipe.head.kind].write(net, x, **recipe.head.options)
    graph = helper.make_graph(
        net.nodes,
        "generated",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, *recipe.size])],
        [helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, shape), *net.outputs],
        net.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return Generated(
        recipe=recipe,
        model=shape_inference.infer_shapes(model) if recipe.shapes else model,
        planted=tuple(net.planted),
        traps=tuple(net.traps),
        features=frozenset(net.features),
        blocks=net.blocks,
        clean=not net.planted and not net.hidden,
    )


def contents(generated: Generated) -> Iterator[tuple[str, str]]:
    """What a network holds, each once, under a heading."""
    recipe = generated.recipe
    yield from {("block", step.kind) for step in recipe.blocks}
    yield "head", recipe.head.kind
    yield "constants", recipe.constants
    yield from {("planted", planted.kind) for planted in generated.planted}
    yield from {("trap", trap.kind.removeprefix("trap: ")) for trap in generated.traps}
    for name in generated.features:
        head, _, rest = name.partition(" ")
        yield (head, rest) if rest else ("node", name)
    if generated.clean:
        yield "clean", "nothing is dead"


def table(counts: Counter[tuple[str, str]], total: int) -> str:
    """The share of networks that hold each thing, as Markdown."""
    rows = [f"| {heading} | {name} | {count / total:.1%} |" for (heading, name), count in sorted(counts.items())]
    return "\n".join(["| | what | of networks |", "|---|---|---:|", *rows])


def over(count: int, check: Callable[[Generated], None]) -> None:
    """Checks so many networks, always the same ones; the recipe of one that fails is made as simple as it can be."""

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(recipes())
    def each(recipe: Recipe) -> None:
        check(build(recipe))

    each()


def sample(count: int) -> list[Generated]:
    """The networks that `over` checks."""
    found: list[Generated] = []
    over(count, found.append)
    return found


def main() -> None:
    """Prints the distribution."""
    drawn = sample(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
    sys.stdout.write(table(Counter(item for one in drawn for item in contents(one)), len(drawn)) + "\n")


if __name__ == "__main__":
    main()
