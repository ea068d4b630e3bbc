"""What every target, dataset, metric and command must have; a new file is tested by being there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import click
import numpy as np
import pytest
from tests.evaluate.datasets.builders import BUILDERS

from lmconv import plugins
from lmconv.data import Dataset, Metric
from lmconv.errors import InputError
from lmconv.faces import crops
from lmconv.inference.session import landmarks, noise
from lmconv.pipeline import convert
from lmconv.sources.resolve import open_source, resolve
from lmconv.store import artifact as artifacts
from lmconv.types import Cpu, OpenOptions, Precision, Target, landmark_spec

# Targets


@pytest.fixture(params=plugins.names("targets"))
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = plugins.load("targets", request.param)
    return found


def test_a_target_declares_itself(target: Target) -> None:
    assert target.name in plugins.names("targets")
    assert target.summary
    assert target.suffixes
    assert all(suffix.startswith(".") for suffix in target.suffixes)
    assert target.precisions
    assert all(isinstance(precision, Precision) for precision in target.precisions)
    assert Precision.FP32 in target.precisions
    for cpu in get_args(Cpu):
        assert target.scheme(cpu).activations in ("uint8", "int8")
        assert target.scheme(cpu).reason


def test_a_target_says_what_is_missing_as_an_instruction(target: Target) -> None:
    needed = target.requires()
    assert needed is None or re.match("(pip install|a machine with) ", needed)


def test_a_target_that_is_here_computes_what_its_source_does(target: Target, tiny: Path, tmp_path: Path) -> None:
    if missing := target.requires():
        pytest.skip(missing)
    source = resolve(str(tiny))
    made = convert(source, target.name, Precision.FP32, out=tmp_path)
    models = sorted(name for name in made.files if name.startswith("model."))
    assert models == sorted(f"model{suffix}" for suffix in target.suffixes)
    images = noise(made.spec, 3, 5)
    with target.open(artifacts.read(made.path), OpenOptions(threads=1)) as session, open_source(source) as original:
        assert isinstance(session.caveat, str)
        found = landmarks(session, made.spec, images)
        np.testing.assert_allclose(found, landmarks(original, made.spec, images), rtol=0, atol=1e-5)


def test_what_a_session_gave_stays_when_it_runs_again(target: Target, tiny: Path, tmp_path: Path) -> None:
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


@pytest.fixture(params=plugins.names("datasets"))
def dataset(request: pytest.FixtureRequest) -> Dataset:
    found: Dataset = plugins.load("datasets", request.param)
    return found


def test_a_dataset_declares_itself(dataset: Dataset) -> None:
    assert dataset.name in plugins.names("datasets")
    assert dataset.summary


def test_a_dataset_is_not_seen_where_it_is_not(dataset: Dataset, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert dataset.matches(empty) is False
    assert dataset.matches(tmp_path / "gone") is False
    for split in ("test", "train", "all"):
        with pytest.raises(InputError):
            dataset.faces(empty, split)


def test_a_dataset_is_found_by_its_layout_and_cut_into_crops(dataset: Dataset, tmp_path: Path) -> None:
    build, landmarks = BUILDERS[dataset.name]
    place = build(tmp_path)
    assert crops.find_dataset(place) is dataset
    found = crops.load(place, landmark_spec("toy", "toy", size=(32, 32), landmarks=landmarks))
    assert len(found.images) == len(set(found.names)) >= 1
    assert sum(1 for _ in found.scenes()) == len(found.images)
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in found.pictures())


# Metrics


@pytest.fixture(params=plugins.names("metrics"))
def metric(request: pytest.FixtureRequest) -> Metric:
    found: Metric = plugins.load("metrics", request.param)
    return found


def test_a_metric_declares_itself(metric: Metric) -> None:
    assert metric.name in plugins.names("metrics")
    assert metric.summary
    assert metric.unit in ("%", "")
    assert metric.better in ("lower", "higher")


def test_a_metric_prefers_smaller_errors(metric: Metric) -> None:
    random = np.random.default_rng(0)
    good, bad = random.uniform(1, 5, 50), random.uniform(6, 15, 50)
    better, worse = metric.compute(good), metric.compute(bad)
    assert isinstance(better, float)
    assert better < worse if metric.better == "lower" else better > worse


def test_a_metric_is_defined_for_one_face(metric: Metric) -> None:
    assert np.isfinite(metric.compute(np.array([4.0])))


# Commands


@pytest.mark.parametrize("name", plugins.names("commands"))
def test_a_command_has_a_name_a_help_and_options(name: str) -> None:
    command = plugins.load("commands", name)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help
    assert command.short_help
    leaves = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    for leaf in leaves:
        options = {option for parameter in leaf.params for option in parameter.opts}
        assert {"--json", "--quiet", "-v", "--verbose"} <= options
        assert leaf.help
