"""Batch of an ONNX file in which the result of a face depends on the other faces."""

from __future__ import annotations

from lmconv.errors import InputError, listed
from lmconv.opsets.training import batchwide
from lmconv.opsets.versions import label
from lmconv.sources.onnx_files.reading import load_source
from lmconv.sources.onnx_files.source import OnnxSource
from lmconv.types import Source


def settle_batch(source: Source, session: OnnxSource, asked: int | None) -> None:
    """Fixes the batch of a file in which the result of a face depends on the other faces of its batch.

    Args:
        source: The file.
        session: The opened file.
        asked: Batch size that the user asked for; None for a free batch.

    Raises:
        InputError: The result depends on the batch, and the user asked for no batch size.
    """
    if not session.original.mixes():
        return
    if asked is None:
        nodes = listed(map(label, batchwide(load_source(source))))
        reason = "the result of an input depends on the other inputs of its batch" + (f": {nodes}" if nodes else "")
        raise InputError(f"{source.label}: {reason}", hint="use --batch 1 for one face at a time, or --batch N")
    session.original.fix(asked)
