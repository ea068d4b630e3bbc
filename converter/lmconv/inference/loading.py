"""What runs an artefact, where it can be run here."""

from __future__ import annotations

from lmconv.errors import MissingRuntime
from lmconv.plugins import TARGETS
from lmconv.types import Artifact, OpenOptions, Target


def usable(artifact: Artifact, options: OpenOptions) -> Target:
    """The target of an artefact, which can open it here.

    Raises:
        InputError: It must not be loaded, see `Target.check_loadable`.
        MissingRuntime: Its runtime, or the machine it was built for, is not here.
    """
    target = TARGETS.load(artifact.target)
    target.check_loadable(artifact, options)
    if missing := target.requires():
        raise MissingRuntime(f"{artifact.path} needs {artifact.target}, which is not here", hint=missing)
    return target
