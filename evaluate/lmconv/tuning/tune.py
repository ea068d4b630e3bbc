"""What `lmconv tune` does, and `lmconv export --precision mixed` where nothing has been tuned yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lmconv import machine, pipeline, plugins
from lmconv.errors import UsageError
from lmconv.judging.loss import Budget
from lmconv.passes.int8 import settings_of
from lmconv.store import artifact as artifacts
from lmconv.store.files import canonical, writing
from lmconv.tuning.faces import FOLDS, load
from lmconv.tuning.memo import Memo
from lmconv.tuning.search import Found, Point, Search
from lmconv.tuning.trials import Trials
from lmconv.types import Json, Mix, Target
from lmconv.visual import tuning as pictures

TUNED = "tuned.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to tune.

    Attributes:
        budget: What may be lost.
        seconds: How long to search.
        fresh: Whether to measure anew what an earlier search has measured.
    """

    budget: Budget = field(default_factory=Budget)
    seconds: float = 300.0
    fresh: bool = False


def folder(out: Path, model: str, target: str) -> Path:
    """Where a search keeps what it measures, its tables and pictures."""
    return out / model / f"tune-{target}"


def tune(
    base: pipeline.Plain,
    target: str,
    choices: pipeline.Choices,
    crops: pipeline.Crops | None,
    faces: tuple[Path, str],
    out: Path,
    options: Options,
    note: Callable[[str], object],
) -> tuple[Mix, Json]:
    """Searches, writes what was found beside the artefacts, and gives what to build and how it was found.

    Args:
        base: The network's plain graph.
        target: What it is tuned for.
        choices: How its float graphs are made.
        crops: What passes are compared on.
        faces: A folder of annotated faces, and of which split.
        out: Where artefacts go.
        options: Budget and time.
        note: Says how far it is.

    Raises:
        UsageError: The weights are random, or ION is not defined for the points.
        InputError: There are too few faces, or a folder cannot be written.
    """
    start = time.perf_counter()
    spec = base.artifact.spec
    if not artifacts.trained(base.artifact):
        raise UsageError(f"{spec.name} has random weights, and no ION to tune by", hint="give trained weights")
    plugin: Target = plugins.load("targets", target)
    settings = settings_of(plugin.scheme(choices.quantised_for))
    judged = load(*faces, spec, base.model.SerializeToString(), settings.crops)
    kept = folder(out, spec.name, target)
    here = machine.describe()
    about: Json = {
        "source": base.artifact.parents["source"]["sha256"],
        "plain": base.artifact.files["model.onnx"],
        "faces": judged.digest,
        "versions": here["versions"],
        "cpu": [here["cpu"], here["cores"], here["features"]],
        "without": sorted(choices.without),
        "compact_px": choices.compact_px,
        "settings": canonical({**asdict(settings), "float_layers": []}),
        "rewrites": {str(precision): list(passes) for precision, passes in plugin.rewrites.items()},
    }
    memo = Memo.open(kept, about, fresh=options.fresh)
    if memo.known:
        note(f"{len(memo.known)} measurements of an earlier search are taken over (--fresh makes them anew)")
    trials = Trials(base=base, target=plugin, choices=choices, crops=crops, faces=judged, settings=settings, memo=memo)
    found = Search(trials=trials, budget=options.budget, seconds=options.seconds, note=note).run()
    document = _document(found, base, options, len(judged.crops.truth))
    document |= {"model": spec.name, "target": target, "folder": str(kept), "reused": memo.reused}
    document["pictures"] = list(judged.crops.pictures())
    document["seconds"] = round(time.perf_counter() - start, 1)
    title = f"{spec.name}, {target}"
    with writing(kept):
        (kept / TUNED).write_text(canonical(document), encoding="utf-8")
        front = pictures.front(title, document["points"], options.budget.drift)
        (kept / "front.svg").write_text(front, encoding="utf-8")
        (kept / "layers.svg").write_text(pictures.layers(title, document["layers"]), encoding="utf-8")
    return found.chosen.mix, document


def _document(found: Found, base: pipeline.Plain, options: Options, faces: int) -> Json:
    modules = artifacts.modules(base.artifact)
    return {
        "budget": asdict(options.budget),
        "faces": faces,
        "folds": FOLDS,
        "points": [
            {
                "name": point.name,
                "mix": asdict(point.mix),
                "ms": point.ms,
                "faster": point.faster.to_json(),
                "loss": point.loss.to_json(),
                "verdict": point.verdict,
                "why": point.why,
                "front": _on_front(point, found.points),
                "chosen": point is found.chosen,
            }
            for point in found.points
        ],
        "why": found.why,
        "layers": [
            {
                "layer": modules.get(layer.name, layer.name),
                "output": layer.name,
                "drift": layer.drift,
                "cost_ms": layer.cost_ms,
                "int8": layer.int8,
            }
            for layer in found.layers
        ],
    }


def _on_front(point: Point, points: tuple[Point, ...]) -> bool:
    """Whether no other is both faster and loses less."""
    return not any(other.ms < point.ms and other.loss.drift.mean < point.loss.drift.mean for other in points)
