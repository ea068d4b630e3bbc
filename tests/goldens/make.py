"""Writes the goldens of this folder: `python tests/goldens/make.py`.

The networks are the real networks with seeded weights: no golden depends on trained files. The weights are drawn only
with `Generator.random`, whose stream NumPy keeps the same between releases.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmconv.plugins import BACKBONES

if TYPE_CHECKING:
    import torch

FOLDER = Path(__file__).parent
MODELS = ("mobilefacenet", "pfld")
NAMES = FOLDER / "state_dicts.json"


def uniform(random: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> NDArray[np.float32]:
    """Float32 numbers from the half-open range [low, high)."""
    return (low + (high - low) * random.random(shape)).astype(np.float32)


def fill(network: torch.nn.Module) -> None:
    """Sets seeded weights for which the landmarks lie between 0 and 1 and differ between inputs."""
    import torch

    random = np.random.default_rng(0)
    state = network.state_dict()
    *_, last = (name for name, value in state.items() if name.endswith(".weight"))
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        shape = tuple(value.shape)
        kind = name.rpartition(".")[2]
        if kind == "running_var":
            numbers = uniform(random, shape, 0.5, 1.5)
        elif kind == "running_mean":
            numbers = uniform(random, shape, -0.1, 0.1)
        elif kind == "bias":
            middle = 0.5 if name.rpartition(".")[0] == last.rpartition(".")[0] else 0.0
            numbers = uniform(random, shape, middle - 0.2, middle + 0.2)
        elif name == last:
            numbers = uniform(random, shape, -0.03, 0.03)
        elif len(shape) == 1:
            numbers = uniform(random, shape, 0.4, 1.0)
        else:
            reach = float(np.sqrt(6 / np.prod(shape[1:])))
            numbers = uniform(random, shape, -reach, reach)
        state[name] = torch.from_numpy(numbers)
    network.load_state_dict(state)


def seeded(model: str) -> torch.nn.Module:
    """A backbone with seeded weights, in evaluation mode."""

    backbone = BACKBONES.load(model)
    network: torch.nn.Module = backbone.module(backbone.spec.landmarks)
    fill(network)
    return network.eval()


def images() -> NDArray[np.float32]:
    """(2, 3, 112, 112) float32, the input of the goldens: noise in squares of 1 pixel, and in squares of 16 pixels."""
    random = np.random.default_rng(1)
    coarse = uniform(random, (1, 3, 7, 7), 0, 1).repeat(16, 2).repeat(16, 3)
    return np.concatenate([uniform(random, (1, 3, 112, 112), 0, 1), coarse])


def landmarks(network: torch.nn.Module, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Landmarks (N, L, 2) float32 in the first output of a network."""
    import torch

    with torch.inference_mode():
        out = network(torch.from_numpy(inputs))
    flat: NDArray[np.float32] = (out[0] if isinstance(out, tuple) else out).numpy()
    return flat.reshape(len(flat), -1, 2)


def shapes(network: torch.nn.Module) -> dict[str, list[int]]:
    """Shape of every tensor of a network's state dict, by name."""
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def main() -> None:
    """Writes every golden."""
    names = {}
    for model in MODELS:
        network = seeded(model)
        np.savez_compressed(FOLDER / f"{model}.npz", landmarks=landmarks(network, images()))
        names[model] = shapes(network)
    rows = (
        f" {json.dumps(model)}: {{\n"
        + ",\n".join(f"  {json.dumps(name)}: {json.dumps(shape)}" for name, shape in table.items())
        + "\n }"
        for model, table in names.items()
    )
    NAMES.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
