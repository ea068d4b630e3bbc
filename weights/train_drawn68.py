"""Trains the network `drawn68` on drawn faces and writes `weights/lmconv/known/drawn68.safetensors`.

    python weights/train_drawn68.py

Training takes ten to twenty minutes on two cores and needs only lmconv with PyTorch. Every seed is fixed: the same
machine and the same version of PyTorch give the same weights.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from lmconv.backbones.drawn68 import SIZE, Drawn68
from lmconv.faces.crops import landmark_square
from lmconv.networks import squares
from lmconv.schemes.ibug68 import plugin as ibug68
from lmconv.synthetic.picture import face, stream
from lmconv.synthetic.traits import TRAIN
from lmconv.types import Crop, Float64, Uint8

OUT = Path(__file__).parent / "lmconv" / "known" / "drawn68.safetensors"
SEED = 68
FACES, EPOCHS, BATCH = 14_000, 34, 64
RATE, DECAY = 3e-3, 0.02
"""Highest learning rate, and weight decay; the decay keeps ranges narrow enough for float16 and int8."""
PROCESSES = 2
"""Number of drawing processes and of training threads: fixed, to make the weights independent of the core count."""
HELD_OUT = 500
"""Number of faces held out from training, for the progress report."""
MIN_EYE_DISTANCE = 0.15
"""Lower bound of the eye-corner distance in the loss, as a fraction of the crop: limits the weight of turned faces."""
MIRROR = list(ibug68.mirror)
"""Index of the mirrored landmark, for each landmark."""

RANGES = replace(TRAIN, size=(0.5, 0.9))
"""Trait ranges of the training faces: large faces."""
PICTURE = 112
"""Side of the drawn pictures, pixels: faces have about the size of the network's input crop."""
LARGER = 1.2
"""Side of the stored crop divided by the side of the network's crop: margin for rotation and shift."""


def draw_face(number: int) -> tuple[Uint8, Float64]:
    """Draws face `number`.

    Returns:
        (s, s, 3) uint8 BGR crop, `LARGER` times the side of the network's crop, and (68, 2) float64 landmarks, as
        fractions of this crop.
    """
    cv2.setNumThreads(1)
    picture, points = face(RANGES, stream(SEED, "trainset", number), side=PICTURE)
    left, top, side = landmark_square(points, Crop(scale=LARGER * Crop().scale))
    size = round(LARGER * SIZE)
    return squares.cut(picture, (left, top, side), (size, size)), (points - (left, top)) / side


def draw_faces(numbers: range) -> tuple[Tensor, Tensor]:
    """Draws faces: (n, 3, s, s) uint8 BGR crops and (n, 68, 2) float32 landmarks, fractions of the crop."""
    with multiprocessing.Pool(PROCESSES) as pool:
        faces = list(pool.imap(draw_face, numbers, chunksize=100))
    images = np.stack([image for image, _ in faces]).transpose(0, 3, 1, 2)
    points = np.stack([points for _, points in faces]).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(points)


def mirror_half(images: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Mirrors a random half of the faces."""
    chosen = torch.rand(len(images)) < 0.5
    flipped = torch.tensor([1.0, 0.0]) + torch.tensor([-1.0, 1.0]) * points[:, MIRROR]
    images = torch.where(chosen[:, None, None, None], images.flip(3), images)
    return images, torch.where(chosen[:, None, None], flipped, points)


def cut_crops(images: Tensor, points: Tensor, *, vary: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cuts the network's crops from the stored crops, with random rotation, scale, shift and mirroring.

    Args:
        images: (n, 3, s, s) uint8 stored crops.
        points: (n, 68, 2) float32 landmarks, fractions of the stored crop.
        vary: Strength of the random changes, 0 (none) to 1.

    Returns:
        (n, 3, SIZE, SIZE) float32 crops in [0, 1], and (n, 68, 2) float32 landmarks, fractions of these crops.
    """
    n = len(images)
    if vary:
        images, points = mirror_half(images, points)
    draws = (2 * torch.rand(4, n) - 1) * vary
    angle, scale = draws[0] * math.radians(10), torch.exp(0.05 * draws[1]) / LARGER
    shift = 0.03 * draws[2:].T[:, :, None]
    turn = torch.stack([torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle)], 1).view(n, 2, 2)
    matrix = turn * scale[:, None, None]
    grid = torch.nn.functional.affine_grid(torch.cat([matrix, shift], 2), [n, 3, SIZE, SIZE], align_corners=False)
    crops = torch.nn.functional.grid_sample(images.float() / 255, grid, align_corners=False)
    moved = torch.linalg.solve(matrix, (2 * points - 1).mT - shift).mT
    return crops, (moved + 1) / 2


def augment(images: Tensor) -> Tensor:
    """Changes crops at random: light, colours, greyscale, resolution, noise, and an occluding rectangle."""
    n, _, size, _ = images.shape
    gain = 1 + 0.3 * (2 * torch.rand(n, 1, 1, 1) - 1) + 0.12 * (2 * torch.rand(n, 3, 1, 1) - 1)
    out = images * gain + 0.12 * (2 * torch.rand(n, 1, 1, 1) - 1)
    grey = torch.rand(n, 1, 1, 1) < 0.2
    out = torch.where(grey, out.mean(1, keepdim=True), out)
    coarse = torch.nn.functional.avg_pool2d(out, 2)
    coarse = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    out = torch.where(torch.rand(n, 1, 1, 1) < 0.25, coarse, out)
    out = out + torch.rand(n, 1, 1, 1) * 0.05 * torch.randn(out.shape)
    for index in torch.nonzero(torch.rand(n) < 0.3).flatten().tolist():
        x, y, w, h = (torch.rand(4) * torch.tensor([size, size, size / 3, size / 3])).int().tolist()
        out[index, :, y : y + h, x : x + w] = torch.rand(3, 1, 1)
    return out.clamp(0, 1)


def batches(images: Tensor, points: Tensor, vary: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the batches of one epoch in random order: augmented crops and landmarks."""
    for chosen in torch.randperm(len(images))[: len(images) // BATCH * BATCH].view(-1, BATCH):
        crop, target = cut_crops(images[chosen], points[chosen], vary=vary)
        yield augment(crop), target


def ion(predicted: Tensor, target: Tensor, min_eye_distance: float = 0.0) -> Tensor:
    """Inter-ocular error of each face, (n,), between two sets of landmarks (n, 68, 2), both fractions of the crop."""
    scale = (target[:, 36] - target[:, 45]).norm(dim=-1).clamp(min=min_eye_distance)
    errors: Tensor = (predicted - target).norm(dim=-1).mean(-1) / scale
    return errors


def error(network: Drawn68, images: Tensor, points: Tensor) -> float:
    """Mean ION of the network, percent."""
    network.eval()
    with torch.inference_mode():
        crop, target = cut_crops(images, points)
        return float(100 * ion(network(crop).view(-1, 68, 2), target).mean())


def train(network: Drawn68) -> None:
    """Trains with a one-cycle learning rate; augmentation becomes weaker towards the end."""
    start = time.monotonic()
    held_out, (images, points) = draw_faces(range(HELD_OUT)), draw_faces(range(HELD_OUT, HELD_OUT + FACES))
    print(f"{HELD_OUT + FACES} faces drawn in {time.monotonic() - start:.0f} s", flush=True)
    network.head.bias.data.copy_(cut_crops(images, points)[1].mean(0).flatten())  # starts from the mean face
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=DECAY)
    steps = EPOCHS * (FACES // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.15)
    for epoch in range(1, EPOCHS + 1):
        network.train()
        for crop, target in batches(images, points, vary=1 - 0.7 * epoch / EPOCHS):
            optimiser.zero_grad()
            predicted = network(crop.contiguous(memory_format=torch.channels_last)).view(-1, 68, 2)
            loss = ion(predicted, target, MIN_EYE_DISTANCE).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch:2d}  {time.monotonic() - start:5.0f} s  ION {error(network, *held_out):.2f} %", flush=True)


def save(network: Drawn68, path: Path) -> None:
    """Writes the weights, with a description of the training as metadata."""
    state = {
        name: value.detach().contiguous()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    # A single entry: the order of several entries differs between runs.
    save_file(state, path, metadata={"made": f"weights/train_drawn68.py: {FACES} drawn faces, seed {SEED}"})


def main() -> None:
    """Trains the network and writes its weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="output file for the weights")
    arguments = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(PROCESSES)
    torch.manual_seed(SEED)
    network = Drawn68(68)
    train(network)
    save(network, arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
