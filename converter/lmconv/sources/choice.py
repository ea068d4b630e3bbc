"""The choice of the outputs that hold the landmarks, the same for PyTorch networks and ONNX files.

The rules, in order (docs/outputs.md):

1. `--output` names the output.
2. An output whose name says so (`POINT_NAMES`) and whose shape can be points.
3. The only output whose shape can be points; with `--landmarks`, the only one that can be this number of points.
4. The first output of the source, if no other output has a published number of points.

Several outputs that remain are a question to the user. Without `--landmarks`, the number of points must be one that a
publication has (`lmconv.networks.published`), unless the name says points and the shape is (N, L, 2) or (N, L, 3).
With `--decode`, the same rules apply to heatmaps or to SimCC vectors; of a list of heatmaps of one shape, the last is
taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lmconv.errors import InputError, LmconvError, UsageError
from lmconv.networks.candidates import Candidate, Candidates, Reading
from lmconv.networks.published import NUMBERS, THREE_DIMENSIONAL
from lmconv.networks.units import shown_unit
from lmconv.types import Axes, ChosenOutputs, ModelSpec, OutputOptions, landmark_spec


def choose(candidates: Candidates, spec: ModelSpec, options: OutputOptions) -> ModelSpec:
    """Chooses the outputs of a source that hold the landmarks.

    Args:
        candidates: All outputs of the source.
        spec: Spec of the source; the fields about inputs are complete.
        options: User options.

    Returns:
        The spec, with the fields about outputs.

    Raises:
        UsageError: The user must name an output, or the number of points, or an option fits no output.
        InputError: No output can hold landmarks.
    """
    if options.decode is None:
        return _points(candidates, options, spec)
    if options.unit or options.coordinates:
        name = "--unit" if options.unit else "--coordinates"
        raise UsageError(f"{name} is for points, and --decode for heatmaps", hint=f"leave {name} out")
    return (_vectors if options.decode.method == "simcc" else _maps)(candidates, options, spec)


# Points


def _points(candidates: Candidates, options: OutputOptions, spec: ModelSpec) -> ModelSpec:
    if options.output_slice:
        chosen, (landmarks, axes) = _sliced(candidates, options)
    else:
        chosen, (landmarks, axes) = _one(candidates, options)
    kept = options.coordinates or axes
    unit, reason = shown_unit(chosen.values, landmarks, axes)
    if options.unit:
        unit, reason = options.unit, "--unit"
    names = ChosenOutputs(names=(chosen.name,), axes=axes, unit_reason=reason, left_out=_others(candidates, chosen))
    made = landmark_spec(spec.name, spec.backbone, size=spec.input_size, landmarks=landmarks, axes=kept)
    return replace(
        spec,
        landmarks=landmarks,
        outputs=made.outputs,
        heatmaps=None,
        decode=unit,
        output_slice=options.output_slice,
        chosen=names,
    )


def _one(candidates: Candidates, options: OutputOptions) -> tuple[Candidate, Reading]:
    """Returns the output that holds points, and its points."""
    chosen = _named(candidates, options.output) if options.output is not None else _only(candidates, options)
    return chosen, _read(candidates, chosen, options)


def _named(candidates: Candidates, name: str) -> Candidate:
    found = candidates.named(name)
    if found is None:
        known = ", ".join(output.title for output in candidates.outputs)
        raise UsageError(f"{candidates.source} has no output {name}", hint=f"its outputs: {known}")
    return found


def _only(candidates: Candidates, options: OutputOptions) -> Candidate:
    """Returns the only output that can hold points; see the rules above."""
    possible = _distinct([output for output in candidates.outputs if _fitting(output, options)])
    named = [output for output in possible if output.named_points]
    if len(named) == 1 or len(possible) == 1:
        return (named if len(named) == 1 else possible)[0]
    published = [output for output in possible if any(count in NUMBERS for count, _ in output.readings)]
    if not named and published == [candidates.outputs[0]]:
        return published[0]
    if possible and (named or published or options.landmarks):
        raise _question(candidates, named or possible, "landmarks")
    if possible:
        message = f"{candidates.source} has no output with a published number of points: {candidates.listed}"
        raise UsageError(message, hint="if one holds landmarks: --output NAME --landmarks L")
    raise _none(candidates, options)


def _distinct(outputs: Sequence[Candidate]) -> Sequence[Candidate]:
    """Returns the outputs without those that have the values of an earlier one."""
    return [
        output
        for index, output in enumerate(outputs)
        if not any(np.array_equal(output.values, earlier.values) for earlier in outputs[:index])
    ]


def _fitting(output: Candidate, options: OutputOptions) -> Sequence[Reading]:
    """Returns the ways to read an output as this number of points, or as any number of at least two.

    A flat output is three coordinates per point if the user says so, if a scheme has these points in three dimensions,
    or if it has the user's number of points and two coordinates would give a number that no scheme has.
    """
    planes = [count for count, axes in output.readings if axes == "xy"]
    solid = options.coordinates or (options.landmarks and not any(count in NUMBERS for count in planes))

    def fits(count: int, axes: Axes) -> bool:
        if options.landmarks not in (None, count) or (count < 2 and not options.landmarks):
            return False
        if axes == "xy":
            return options.coordinates != "xyz"
        return bool(_explicit(output) or count in THREE_DIMENSIONAL or solid)

    return [(count, axes) for count, axes in output.readings if fits(count, axes)]


def _explicit(output: Candidate) -> bool:
    """True if the shape of an output shows the number of coordinates."""
    return len([size for size in output.sizes if size != 1]) == 2


def _read(candidates: Candidates, output: Candidate, options: OutputOptions) -> Reading:
    """Returns the number of points of the chosen output, and the coordinates of each."""
    fitting = _fitting(output, options)
    if options.landmarks and fitting:
        return fitting[0]
    sure = [reading for reading in fitting if reading[0] in NUMBERS or (output.named_points and _explicit(output))]
    if sure and not options.landmarks:
        return sure[0]
    readings = fitting or [reading for reading in output.readings if reading[0] > 1] or list(output.readings)
    if options.output is not None and not readings:
        raise UsageError(f"{candidates.source}: {output.label} is not points", hint=_way_out(candidates, options))
    if options.landmarks:
        raise _none(candidates, options)
    counts = " or ".join(f"--landmarks {count}" for count, _ in readings)
    message = f"{candidates.source}: {output.label} would be {readings[0][0]} points, which no published scheme has"
    hint = f"if these are landmarks, {counts}; all outputs: {candidates.listed}"
    raise UsageError(message, hint=hint)


def _none(candidates: Candidates, options: OutputOptions) -> LmconvError:
    """Returns the error for a source without an output that holds (this number of) points."""
    counted = f"{options.landmarks} points" if options.landmarks else "points"
    counted += " with three coordinates" if options.coordinates == "xyz" else ""
    usable = [output for output in candidates.outputs if output.readings or output.is_maps or output.is_vectors]
    kind = UsageError if usable else InputError
    return kind(
        f"{candidates.source} has no output of {counted}: {candidates.listed}", hint=_way_out(candidates, options)
    )


def _way_out(candidates: Candidates, options: OutputOptions) -> str:
    """Returns the hint for a source without a fitting output."""
    if superfluous := _superfluous(candidates, options):
        return superfluous
    if any((options.landmarks, "xyz") in output.readings for output in candidates.outputs) and not options.coordinates:
        return f"for {options.landmarks} points of three coordinates, add --coordinates xyz"
    counts = dict.fromkeys(
        count for output in candidates.outputs for count, axes in output.readings if _likely(output, count)
    )
    if counts:
        return "use " + " or ".join(f"--landmarks {count}" for count in counts)
    vectors = _pairs(candidates)
    if len(vectors) == 2 and vectors[0].sizes[0] == vectors[1].sizes[0]:
        return "if these are SimCC vectors of x and of y: --decode simcc"
    maps = [output for output in candidates.outputs if output.is_maps]
    if maps and len(candidates.outputs) == len(maps):
        return f"if these are heatmaps of {maps[0].sizes[0]} points: use --landmarks {maps[0].sizes[0]} --decode argmax"
    return "landmarks are (N, 2L), (N, L, 2) or (N, L, 3); heatmaps (N, L, h, w) need --decode"


def _superfluous(candidates: Candidates, options: OutputOptions) -> str:
    """Returns the hint to leave out the option without which an output holds the points; empty if there is none."""
    for name in ("decode", "output", "coordinates"):
        if getattr(options, name) is not None:
            try:
                chosen, (landmarks, _) = _one(candidates, replace(options, **{name: None}))
            except LmconvError:
                continue
            return f"leave --{name} out: {chosen.title} holds {landmarks} points"
    return ""


def _likely(output: Candidate, count: int) -> bool:
    """True if a hint may name this number of points: a published one, or else the usual way to read the output."""
    readings = output.readings
    published = any(number in NUMBERS for number, _ in readings)
    return count > 1 and (count in NUMBERS if published else count == readings[0][0])


def _sliced(candidates: Candidates, options: OutputOptions) -> tuple[Candidate, Reading]:
    """Returns the output that has the range `--output-slice`, flattened, and its points."""
    assert options.output_slice
    start, stop = options.output_slice
    pool = [_named(candidates, options.output)] if options.output is not None else candidates.outputs
    holding = [output for output in pool if 0 <= start < stop <= output.count and (stop - start) % 2 == 0]
    possible = [output for output in holding if not output.is_maps] or holding
    if len(possible) == 1:
        landmarks = (stop - start) // 2
        if options.landmarks in (None, landmarks):
            return possible[0], (landmarks, "xy")
        message = f"--output-slice {start}:{stop} is {landmarks} points, not {options.landmarks}"
        raise UsageError(message, hint="leave --landmarks out, or correct the range")
    if possible:
        raise _question(candidates, possible, "these points")
    hint = f"name an even count with --output-slice START:STOP; the outputs: {candidates.listed}"
    raise UsageError(f"numbers {start}:{stop} of {candidates.source} are not points", hint=hint)


# Heatmaps and SimCC vectors


def _maps(candidates: Candidates, options: OutputOptions, spec: ModelSpec) -> ModelSpec:
    part = options.output_slice
    if part and not 0 <= part[0] < part[1]:
        raise UsageError(f"maps {part[0]}:{part[1]} of {candidates.source} are not points", hint="START below STOP")

    def count(output: Candidate) -> int:
        return part[1] - part[0] if part else output.sizes[0]

    def possible(output: Candidate) -> bool:
        return output.is_maps and (not part or part[1] <= output.sizes[0])

    chosen = _of_kind(candidates, options, possible, count, "heatmaps")
    landmarks = _count(candidates, chosen, count(chosen), options)
    names = ChosenOutputs(names=(chosen.name,), left_out=_others(candidates, chosen))
    return _decoded(spec, options, names, (landmarks, *chosen.sizes[1:]))


def _of_kind(
    candidates: Candidates,
    options: OutputOptions,
    possible: Callable[[Candidate], bool],
    count: Callable[[Candidate], int],
    kind: str,
) -> Candidate:
    """Returns the only output of a kind, or the last of a stack; see the rules above."""
    pool = [_named(candidates, options.output)] if options.output is not None else candidates.outputs
    found = [output for output in pool if possible(output)]
    fitting = _distinct([output for output in found if options.landmarks in (None, count(output))])
    if len(fitting) == 1 or _is_stack(fitting):
        return fitting[-1]
    if fitting:
        raise _question(candidates, fitting, kind)
    if found:
        counts = " or ".join(f"--landmarks {count(output)}" for output in found)
        message = f"{candidates.source} has no {kind} of {options.landmarks} points: {candidates.listed}"
        raise UsageError(message, hint=f"use {counts}, or a part of the maps with --output-slice START:STOP")
    raise UsageError(f"{candidates.source} has no {kind}: {candidates.listed}", hint="leave --decode out")


def _is_stack(outputs: Sequence[Candidate]) -> bool:
    """True for the stages of one list, all of one shape: a stacked network, whose last stage is the final prediction.

    Source: A. Newell et al., Stacked Hourglass Networks for Human Pose Estimation, ECCV 2016.
    """
    places = [output.name.rpartition(".") for output in outputs]
    one_list = len({place for place, _, _ in places}) == 1 and all(index.isdecimal() for _, _, index in places)
    return bool(outputs) and one_list and len({output.sizes for output in outputs}) == 1


def _count(candidates: Candidates, output: Candidate, count: int, options: OutputOptions) -> int:
    """Returns the number of points of heatmaps; refuses a number that nobody named and no publication has."""
    if options.landmarks or options.output_slice or count in NUMBERS:
        return count
    message = f"{candidates.source}: {output.label} would be {count} points, which no published scheme has"
    part = f"use --landmarks {count}, or a part of the maps with --output-slice START:STOP"
    raise UsageError(message, hint=_superfluous(candidates, options) or part)


def _vectors(candidates: Candidates, options: OutputOptions, spec: ModelSpec) -> ModelSpec:
    """Chooses the vectors of x and of y."""
    if options.output_slice:
        raise UsageError("--output-slice is for points and heatmaps, not for SimCC", hint="leave it out")
    if options.output is not None:
        pool = [_named(candidates, name.strip()) for name in options.output.split(",")]
    else:
        pool = list(_pairs(candidates))
    pool = [output for output in pool if output.is_vectors and options.landmarks in (None, output.sizes[0])]
    if len(pool) > 2:
        listed = ", ".join(output.name for output in pool)
        raise UsageError(
            f"{candidates.source} has more than two SimCC vectors: {listed}", hint="--output NAME_X,NAME_Y"
        )
    if len(pool) != 2 or pool[0].sizes[0] != pool[1].sizes[0]:
        two = "SimCC has two outputs, (N, L, cells) of x and of y: name these with --output NAME_X,NAME_Y"
        hint = _superfluous(candidates, options) or two
        raise UsageError(f"{candidates.source} has no SimCC vectors: {candidates.listed}", hint=hint)
    landmarks = _count(candidates, pool[0], pool[0].sizes[0], options)
    names = ChosenOutputs(
        names=tuple(output.name for output in pool), split=pool[0].sizes[1], left_out=_others(candidates, *pool)
    )
    return _decoded(spec, options, names, (landmarks, sum(output.sizes[1] for output in pool)))


def _pairs(candidates: Candidates) -> Sequence[Candidate]:
    """Returns the outputs with the shape of SimCC vectors if there are at least two, x before y if names say so."""
    vectors = [output for output in candidates.outputs if output.is_vectors]
    if len(vectors) < 2:
        return ()
    if len(vectors) == 2 and vectors[0].name.lower().endswith("y") and vectors[1].name.lower().endswith("x"):
        vectors.reverse()
    return vectors


def _decoded(spec: ModelSpec, options: OutputOptions, names: ChosenOutputs, sizes: tuple[int, ...]) -> ModelSpec:
    """Returns the spec of a network whose outputs are decoded; `sizes` is the shape of the maps for one input."""
    made = landmark_spec(spec.name, spec.backbone, size=spec.input_size, landmarks=sizes[0], heatmaps=options.decode)
    points, maps = made.outputs
    return replace(
        spec,
        landmarks=sizes[0],
        outputs=(points, replace(maps, shape=("N", *sizes))),
        heatmaps=options.decode,
        output_slice=options.output_slice,
        chosen=names,
    )


# Messages


def _question(candidates: Candidates, possible: Sequence[Candidate], kind: str) -> UsageError:
    """Returns the error that asks the user for an output, with all outputs."""
    names = " or ".join(f"--output {output.title}" for output in possible) if len(possible) < 5 else "--output NAME"
    message = f"{candidates.source} has {len(possible)} outputs that can be {kind}: {candidates.listed}"
    return UsageError(message, hint=f"name one: {names}")


def _others(candidates: Candidates, *chosen: Candidate) -> tuple[str, ...]:
    return tuple(output.label for output in candidates.outputs if output not in chosen)
