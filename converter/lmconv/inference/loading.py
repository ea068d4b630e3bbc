"""Loads the target of an artefact, if this machine can run the artefact."""

from __future__ import annotations

from lmconv.errors import MissingRuntime
from lmconv.plugins import TARGETS
from lmconv.types import Artifact, OpenOptions, Target


def usable(artifact: Artifact, options: OpenOptions) -> Target:
    """Returns the target of an artefact, which can open the artefact on this machine.

    Raises:
        InputError: The artefact must not be loaded, see `Target.check_loadable`.
        MissingRuntime: The runtime is not installed, or the artefact was built for another machine.
    """
    target = TARGETS.load(artifact.target)
    target.check_loadable(artifact, options)
    if missing := target.requires():
        raise MissingRuntime(f"{artifact.path} needs {artifact.target}, which is not here", hint=missing)
    return target
