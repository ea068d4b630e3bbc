"""Rules for every target, dataset and command; a new plug-in file is tested automatically."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import click
import numpy as np
import pytest
from tests.evaluate.datasets.builders import BUILDERS

from lmconv.data import DATASETS, Dataset
from lmconv.errors import InputError
from lmconv.faces.crops import load_face_crops
from lmconv.faces.lookup import find_dataset
from lmconv.inference.session import landmarks, noise
from lmconv.pipeline import convert
from lmconv.plugins import COMMANDS, TARGETS
from lmconv.sources.resolve import open_source, resolve
from lmconv.store import artifact as artifacts
from lmconv.types import Cpu, OpenOptions, Precision, Target, landmark_spec

# Targets


@pytest.fixture(params=TARGETS.names())
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS.load(request.param)


def test_a_target_has_a_name_a_summary_suffixes_precisions_and_a_scheme_per_cpu(target: Target) -> None:
    assert target.name in TARGETS.names()
    assert target.summary
    assert target.suffixes
    assert all(suffix.startswith(".") for suffix in target.suffixes)
    assert target.precisions
    assert all(isinstance(precision, Precision) for precision in target.precisions)
    assert Precision.FP32 in target.precisions
    for cpu in get_args(Cpu):
        assert target.scheme(cpu).activations in ("uint8", "int8")
        assert target.scheme(cpu).reason


def test_requires_is_an_instruction_to_install_or_none(target: Target) -> None:
    needed = target.requires()
    assert needed is None or re.match("(pip install|a machine with) ", needed)


def test_an_installed_target_computes_the_landmarks_of_the_source(target: Target, tiny: Path, tmp_path: Path) -> None:
    if missing := target.requires():
        pytest.skip(missing)
    source = resolve(str(tiny))
    made = convert(source, target.name, Precision.FP32, out=tmp_path)
    models = sorted(name for name in made.files if name.startswith("model."))
    assert models == sorted(f"model{suffix}" for suffix in target.suffixes)
    images = noise(made.spec, 3, 5)
    with target.open(artifacts.read(made.path), OpenOptions(threads=1)) as session, open_source(source) as original:
        assert isinstance(session.execution_mismatch, str)
        outputs = landmarks(session, made.spec, images)
        np.testing.assert_allclose(outputs, landmarks(original, made.spec, images), rtol=0, atol=1e-5)


def test_outputs_of_a_session_stay_when_the_session_runs_again(target: Target, tiny: Path, tmp_path: Path) -> None:
    if missing := target.requires():
        pytest.skip(missing)
    made = convert(resolve(str(tiny)), target.name, Precision.FP32, out=tmp_path)
    images = noise(made.spec, 2, 5)
    with target.open(made, OpenOptions()) as session:
        first = session.run({"input": images[:1]})["landmarks"]
        kept = first.copy()
        session.run({"input": images[1:]})
    np.testing.assert_array_equal(first, kept)


# Datasets


@pytest.fixture(params=DATASETS.names())
def dataset(request: pytest.FixtureRequest) -> Dataset:
    return DATASETS.load(request.param)


def test_a_dataset_has_a_name_and_a_summary(dataset: Dataset) -> None:
    assert dataset.name in DATASETS.names()
    assert dataset.summary


def test_a_dataset_does_not_match_an_empty_or_missing_folder(dataset: Dataset, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert dataset.matches(empty) is False
    assert dataset.matches(tmp_path / "gone") is False
    for split in ("test", "train", "all"):
        with pytest.raises(InputError):
            dataset.faces(empty, split)


def test_a_dataset_is_recognised_by_its_layout_and_cut_into_crops(dataset: Dataset, tmp_path: Path) -> None:
    build, landmarks = BUILDERS[dataset.name]
    place = build(tmp_path)
    assert find_dataset(place) is dataset
    crops = load_face_crops(place, landmark_spec("toy", "toy", size=(32, 32), landmarks=landmarks))
    assert len(crops.images) == len(set(crops.names)) >= 1
    assert sum(1 for _ in crops.scenes()) == len(crops.images)
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in crops.pictures())


# Commands


@pytest.mark.parametrize("name", COMMANDS.names())
def test_a_command_has_a_name_a_help_and_options(name: str) -> None:
    command = COMMANDS.load(name)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help
    assert command.short_help
    leaves = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    for leaf in leaves:
        options = {option for parameter in leaf.params for option in parameter.opts}
        assert {"--json", "--quiet", "-v", "--verbose"} <= options
        assert leaf.help
