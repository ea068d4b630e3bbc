"""Random networks with planted dead channels and traps.

`python -m tests.generated.networks 5000` prints the share of networks with each kind of block, planted channel and
trap. A network is drawn as a recipe. A recipe is small, determines the network, and prints as Python code that makes
the network.
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
"""Modules that register blocks when they are imported."""

LARGEST, SMALLEST = 20, 3
"""Largest and smallest height and width after a block; otherwise a convolution changes the size."""

BYTES, BLOCKS_AT_MOST = 32, 8
"""Number of bytes per block, two per choice; largest number of blocks."""


class Step:
    """One block of a recipe: kind and options."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.kind, self.options = kind, options

    def __repr__(self) -> str:
        return f"Step({', '.join([repr(self.kind), *(f'{name}={value!r}' for name, value in self.options.items())])})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that determines a network."""

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
    """A network and its planted channels."""

    recipe: Recipe
    model: onnx.ModelProto
    planted: tuple[Planted, ...]
    traps: tuple[Trap, ...]
    features: frozenset[str]
    blocks: Mapping[str, int]
    clean: bool
    """True if no channel of the network is dead."""


class Choices:
    """Reads choices from bytes; byte 0 is the first choice, because Hypothesis shrinks failures to 0."""

    def __init__(self, drawn: bytes) -> None:
        self.drawn = iter(drawn)

    def among(self, values: Sequence[Any]) -> Any:
        """Returns one of the values."""
        return values[(next(self.drawn) << 8 | next(self.drawn)) % len(values)]

    def step(self, kinds: Mapping[str, Kind], name: str, *, planting: bool) -> Step:
        """Returns a block of this kind with drawn options."""
        options = {option: self.among(values) for option, values in kinds[name].options.items()}
        return Step(name, **options if planting else {**options, "plan": NOTHING})


def read(drawn: bytes) -> Recipe:
    """Returns the recipe that bytes encode; every block has bytes of its own and shrinks independently."""
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
    """Strategy for recipes; one of eight recipes plants nothing.

    The bytes are a single draw. With several equal draws, Hypothesis repeats some values in every example, and the
    networks become similar.
    """
    size = BYTES * (BLOCKS_AT_MOST + 1)
    return st.binary(min_size=size, max_size=size).map(read)


def build(recipe: Recipe) -> Generated:
    """Builds the network of a recipe."""
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
    """Yields the features of a network, each once, as heading and name."""
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
    """Share of networks with each feature, as a Markdown table."""
    rows = [f"| {heading} | {name} | {count / total:.1%} |" for (heading, name), count in sorted(counts.items())]
    return "\n".join(["| | what | of networks |", "|---|---|---:|", *rows])


def over(count: int, check: Callable[[Generated], None]) -> None:
    """Checks `count` networks, always the same networks; Hypothesis simplifies the recipe of a failing network."""

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(recipes())
    def check_recipe(recipe: Recipe) -> None:
        check(build(recipe))

    check_recipe()


def sample(count: int) -> list[Generated]:
    """Returns the networks that `over` checks."""
    networks: list[Generated] = []
    over(count, networks.append)
    return networks


def main() -> None:
    """Prints the table of features."""
    drawn = sample(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
    sys.stdout.write(table(Counter(item for generated in drawn for item in contents(generated)), len(drawn)) + "\n")


if __name__ == "__main__":
    main()
