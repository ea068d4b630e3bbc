"""`--io`: artefacts that take crops or frames, in every command that runs artefacts."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import Once
from tests.helpers import Cli, add_face, face, python, tiny_onnx

from lmconv.building import limits
from lmconv.building.assembling import build
from lmconv.building.plain import plain_graph
from lmconv.building.request import Conversion
from lmconv.faces.crops import load_face_crops
from lmconv.inference.scenes import landmarks_in, on_scene
from lmconv.judging import parity
from lmconv.networks import crop_graph
from lmconv.networks.interfaces import interface_of
from lmconv.networks.seeded import Scene, scene
from lmconv.plugins import TARGETS
from lmconv.sources import resolve as source
from lmconv.store import artifact as artifacts
from lmconv.store import reference as reference_file
from lmconv.types import Float32, Float64, Io, ModelSpec, OpenOptions, Precision, Variant

TARGET_NAMES = ("onnx", "openvino")
RGB = ("--preprocess", "RGB,1/255,0.485:0.456:0.406,0.229:0.224:0.225")


def open_path(path: Path, threads: int = 1) -> Any:
    artifact = artifacts.read(path)
    target = TARGETS.load(artifact.target)
    return target.open(artifact, OpenOptions(threads=threads))


@pytest.fixture(scope="session")
def io_build(tiny: Path, once: Once) -> Path:
    """`build/` with the tiny network in fp32, every target and every io. Not to be changed."""

    def make(folder: Path) -> None:
        plain = plain_graph(source.resolve(str(tiny)), folder / "build")
        for target in TARGET_NAMES:
            for io in ("tensor", "image", "frame"):
                build(
                    Conversion(base=plain, out=folder / "build"),
                    Variant(target=target, precision=Precision.FP32, io=io),
                )

    return once("io", make) / "build"


@pytest.fixture
def built(io_build: Path, tmp_path: Path) -> Path:
    """A copy of `io_build`, `build/tiny` of the folder the test runs in."""
    return Path(shutil.copytree(io_build, tmp_path / "here" / "build", dirs_exist_ok=True)) / "tiny"


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Three faces, one beyond the border of its picture."""
    for index, box in enumerate([(20, 10, 50, 45), (-5, 5, 30, 55), (10.4, 10.6, 17.2, 15.9)]):
        add_face(tmp_path / "faces" / "ibug", f"a{index}", face(*box), seed=index)
    return tmp_path / "faces"


# Export


def test_artefacts_of_each_io_are_written_beside_each_other(cli: Cli, tiny: Path) -> None:
    ran = cli("export", tiny, "--io", "tensor", "--io", "image", "--io", "frame", "--json")
    rows = ran.document["artifacts"]
    assert [(Path(row["path"]).name, row["io"]) for row in rows] == [
        ("onnx-fp32", "tensor"),
        ("onnx-fp32-image", "image"),
        ("onnx-fp32-frame", "frame"),
    ]
    assert len({(row["parameters"], row["flops"]) for row in rows}) == 1


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("io", ["image", "frame"])
def test_the_same_network_gives_the_same_bytes(built: Path, tiny: Path, tmp_path: Path, target: str, io: Io) -> None:
    plain = plain_graph(source.resolve(str(tiny)), tmp_path / "again")
    again = build(
        Conversion(base=plain, out=tmp_path / "again"), Variant(target=target, precision=Precision.FP32, io=io)
    )
    assert again.digest == artifacts.read(built / f"{target}-fp32-{io}").digest


@pytest.mark.parametrize(
    ("precision", "target"),
    [
        ("fp16", "openvino"),
        ("int8", "onnx"),
        pytest.param("fp16", "onnx", marks=pytest.mark.slow),
        pytest.param("int8", "openvino", marks=pytest.mark.slow),
    ],
)
def test_lower_precisions_are_wrapped_too(cli: Cli, tiny: Path, faces: Path, precision: str, target: str) -> None:
    names = [f"build/tiny/{target}-{precision}-{io}" for io in ("image", "frame")]
    for seed in (3, 4, 5):
        add_face(faces / "afw", f"t{seed}", face(20, 10, 50, 45), seed=seed)
    options = ("--precision", precision, "--to", target, "--calibration", faces)
    assert cli("export", tiny, "--io", "image", "--io", "frame", *options).code == 0
    rows = cli("verify", *names, "--data", faces, "--weights", tiny, "--json").document["artifacts"]
    assert [row["gates"] for row in rows] == [dict.fromkeys(rows[0]["gates"], "passed")] * 2


@pytest.mark.parametrize("points", [39, *(pytest.param(count, marks=pytest.mark.slow) for count in (98, 106))])
def test_every_number_of_points_is_wrapped(cli: Cli, tmp_path: Path, points: int) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(tiny_onnx(points=points).SerializeToString())
    for io in ("image", "frame"):
        assert cli("export", path, "--io", io, "--to", "onnx", "--to", "openvino").code == 0
        artifact = artifacts.read(Path(f"build/other/openvino-fp32-{io}"))
        assert artifact.spec.outputs[0].shape == ("N", points, 2)


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_heatmaps_stay_a_second_output(cli: Cli, tmp_path: Path, target: str) -> None:
    from tests.converter.networks.test_heatmaps import heatmap_onnx

    path = heatmap_onnx(tmp_path / "maps.onnx")
    ran = cli(
        "export", path, "--decode", "argmax", "--landmarks", "7", "--io", "image", "--io", "frame", "--to", target
    )
    assert ran.code == 0, ran.err
    for io in ("image", "frame"):
        artifact = artifacts.read(Path(f"build/maps/{target}-fp32-{io}"))
        with open_path(artifact.path) as session:
            outputs = reference_file.answer(session, artifact.spec, reference_file.read(artifact))
        assert outputs.heatmaps is not None
        assert outputs.heatmaps.shape == (2, 7, 8, 8)
    ran = cli("verify", *sorted(Path("build/maps").glob(f"{target}*")), "--weights", path, "--json")
    assert [row["gates"] for row in ran.document["artifacts"]] == [
        {"max_map": "passed", "mean_px": "not judged"},  # frame: needs faces
        {"max_abs": "passed", "max_map": "passed"},
    ]


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_a_fixed_batch_is_verified_and_timed(cli: Cli, tiny: Path, target: str) -> None:
    options = ("--io", "image", "--io", "frame", "--batch", "3", "--to", target)
    assert cli("export", tiny, *options).code == 0
    paths = [f"build/tiny/{target}-fp32-{io}" for io in ("image", "frame")]
    assert cli("verify", *paths, "--weights", tiny).code == 0
    assert cli("bench", *paths, "--batch", "3", "--samples", "64").code == 0


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--io", "picture"), ("picture", "'image'")),
        (("--io", "frame", "--to", "tensorrt"), ("tensorrt fp32 cannot be built with --io frame",)),
        (("--io", "frame", "--to", "openvino", "--precision", "bf16"), ("bf16 cannot be built with --io frame",)),
    ],
)
def test_unsupported_combinations_are_refused(
    cli: Cli, tiny: Path, options: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    cli("export", tiny, *options).refused(2, *parts)


def test_a_combination_that_one_target_lacks_is_left_out(cli: Cli, tiny: Path) -> None:
    ran = cli(
        "export", tiny, "--io", "frame", "--to", "openvino", "--precision", "fp32", "--precision", "bf16", "--json"
    )
    assert ran.code == 0
    assert ran.document["skipped"] == [
        {"target": "openvino", "precision": "bf16", "io": "frame", "reason": "the variant has no --io frame"}
    ]


# Description in the manifest


def test_the_manifest_describes_inputs_and_outputs(built: Path) -> None:
    interface = json.loads((built / "onnx-fp32-frame" / "manifest.json").read_text(encoding="utf-8"))["interface"]
    assert interface == {
        "inputs": [
            {"name": "frame", "dtype": "uint8", "shape": ["H", "W", 3], "layout": "HWC"},
            {"name": "boxes", "dtype": "float32", "shape": ["N", 4], "layout": "NC"},
        ],
        "outputs": [{"name": "landmarks", "dtype": "float32", "shape": ["N", 68, 2], "layout": "NLC"}],
        "colour": "BGR",
        "landmarks": "frame pixels",
    }


def test_inspect_prints_inputs_colours_and_unit(cli: Cli, tiny: Path) -> None:
    assert cli("export", tiny, "--io", "image", *RGB).code == 0
    out = cli("inspect", "build/tiny/onnx-fp32-image").out
    assert "takes      image uint8 (N, 32, 32, 3) NHWC" in out
    assert "units      pixels in RGB, landmarks in pixels of the crop" in out


def test_an_old_manifest_without_io_has_the_input_of_the_network(built: Path) -> None:
    data = artifacts.spec_to_json(artifacts.read(built / "onnx-fp32").spec)
    del data["io"]
    assert artifacts.spec_from_json(data).io == "tensor"


@pytest.mark.parametrize("io", ["tensor", "image", "frame"])
def test_the_reference_holds_what_the_artefact_takes(built: Path, io: Io) -> None:
    made = artifacts.read(built / f"onnx-fp32{'' if io == 'tensor' else f'-{io}'}")
    inputs = reference_file.read(made).inputs
    assert [(tensor.name, tensor.dtype) for tensor in interface_of(made.spec).inputs] == [
        (name, array.dtype.name) for name, array in inputs.items()
    ]


# The same landmarks


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_one_scene_gives_the_same_landmarks_for_every_io(built: Path, target: str, count: int) -> None:
    seeded = scene(count, count)
    points = {}
    for io in ("tensor", "image", "frame"):
        path = built / f"{target}-fp32{'' if io == 'tensor' else f'-{io}'}"
        with open_path(path) as session:
            points[io] = landmarks_in(session, artifacts.read(path).spec, seeded)
    sides = np.array([side for _, _, side in seeded.squares(artifacts.read(built / "onnx-fp32").spec.crop)])
    for io in ("image", "frame"):
        distances = np.linalg.norm(points[io] - points["tensor"], axis=2) * 32 / sides[:, None]
        assert distances.max() < 1e-3


def test_colours_are_read_in_the_order_of_the_manifest(cli: Cli, tiny: Path) -> None:
    options = ("--io", "tensor", "--io", "image", "--io", "frame", *RGB)
    assert cli("export", tiny, *options).code == 0
    blue = np.zeros((60, 60, 3), np.uint8)
    blue[..., 0] = 255
    boxes = np.array([[20, 20, 40, 40]], np.float32)
    points = []
    for name in ("onnx-fp32", "onnx-fp32-image", "onnx-fp32-frame"):
        path = Path("build/tiny") / name
        with open_path(path) as session:
            points.append(landmarks_in(session, artifacts.read(path).spec, Scene(frame=blue, boxes=boxes)))
    np.testing.assert_allclose(points[1], points[0], atol=1e-4)
    np.testing.assert_allclose(points[2], points[0], atol=1e-4)
    with open_path(Path("build/tiny/onnx-fp32-frame")) as session:  # a frame in BGR gives other landmarks
        wrong = session.run({"frame": blue, "boxes": boxes})["landmarks"]
    assert np.abs(wrong - points[0]).max() > 1e-3


# Verify and bench


@pytest.mark.parametrize("with_source", [True, False])
def test_verify_judges_wrapped_artefacts_on_noise_and_faces(
    cli: Cli, built: Path, faces: Path, tiny: Path, with_source: bool
) -> None:
    paths = sorted(path for path in built.glob("*-fp32*"))
    options = ("--weights", tiny) if with_source else ()
    rows = cli("verify", *paths, "--data", faces, "--split", "all", *options, "--json").document["artifacts"]
    assert [row["parity"]["against"] for row in rows] == ["onnx" if with_source else "reference"] * 6
    assert all(row["passed"] for row in rows)
    for row in rows:
        assert (row["parity"]["max_px_faces"] is not None) is with_source
        assert row["limits"] == ({"max_px": 0.05} if row["io"] == "frame" else {"max_abs": 1e-5})


def test_a_crop_that_is_half_a_pixel_off_fails(cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shifted = crop_graph.ALONG_X.replace("Sub (x_parts, WIDTH)", "Sub (x_parts, ZERO_REAL)")
    with monkeypatch.context() as broken:
        broken.setattr(crop_graph, "ALONG_X", shifted)
        cli("export", tiny, "--io", "frame").refused(1, "landmarks are", "off")
        broken.setattr(
            limits, "CROPS", limits.CROPS | {"frame": limits.Crops(landmarks=1.0)}
        )  # otherwise export refuses the artefact
        assert cli("export", tiny, "--io", "frame").code == 0
    ran = cli("verify", "build/tiny/onnx-fp32-frame", "--weights", tiny, "--json")
    assert (ran.code, ran.document["artifacts"][0]["gates"]) == (1, {"max_px": "failed"})


def test_bench_includes_the_work_of_the_host(cli: Cli, built: Path) -> None:
    document = cli("bench", *sorted(built.glob("onnx-fp32*")), "--samples", "64", "--json").document
    timed = {row["io"]: row["timed"] for row in document["rows"]}
    assert timed == {"tensor": "run", **dict.fromkeys(("image", "frame"), "frame and boxes to landmarks")}
    assert all(row["ratio_plain"] is not None for row in document["rows"])
    assert len(document["baselines"]) == 3


DOCS = Path(__file__).parents[2] / "docs" / "io.md"


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL))
def test_the_examples_in_the_docs_run(built: Path, example: str) -> None:
    ran = python(example.replace("build/pfld", str(built)))
    assert (ran.code, ran.out.split()[:3]) == (0, ["(2,", "68,", "2)"]), ran.err


def test_report_lists_the_io_of_an_artefact(cli: Cli, built: Path) -> None:
    out = cli("report", built.parent).out
    assert "| onnx fp32 frame " in out
    assert "| onnx fp32 " in out


# Real faces


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("target", TARGET_NAMES)
def test_real_faces_have_the_landmarks_of_the_host_path(
    cli: Cli, shared: Path, real_weights: Path, target: str
) -> None:
    options = ("--io", "image", "--io", "frame", "--to", target)
    assert cli("export", "pfld", *options).code == 0
    pfld = source.resolve("pfld")
    faces = load_face_crops(shared / "faces" / "300w_common", pfld.spec)
    with source.open_source(pfld) as session:
        expected = parity.on_faces(session, pfld.spec, faces).landmarks
    limits = {"image": 0.02, "frame": 0.05}
    wrapped = {io: artifacts.read(Path(f"build/pfld/{target}-fp32-{io}")) for io in limits}
    beyond = 0
    with open_path(wrapped["image"].path) as image, open_path(wrapped["frame"].path) as frame:
        for index, shown in enumerate(faces.scenes()):
            for io, session in (("image", image), ("frame", frame)):
                landmarks = on_scene(session, wrapped[io].spec, shown).landmarks
                assert pixels(landmarks - expected[index], pfld.spec).max() < limits[io]
            height, width = shown.frame.shape[:2]
            left, top, side = faces.squares[index]
            beyond += left < 0 or top < 0 or left + side > width or top + side > height
    assert beyond > 5


def pixels(moved: Float32, spec: ModelSpec) -> Float64:
    """(n, L) float64: distances in pixels of the crop, from (n, L, 2) differences in fractions."""
    distance: Float64 = np.linalg.norm(moved * spec.input_size[::-1], axis=2)
    return distance
