"""The documented way to name a network: `from lmconv.source import resolve`."""

from __future__ import annotations

from lmconv.sources.resolve import open_source, recover, resolve

__all__ = ["open_source", "recover", "resolve"]
