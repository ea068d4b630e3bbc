"""slim-320, the smaller of the ultra-light detectors; see `lmconv.detectors.rfb320`."""

from __future__ import annotations

from lmconv.detectors.rfb320 import ultra_light

plugin = ultra_light("slim320", "ultra-light slim-320: a little faster than RFB-320, detects fewer small faces")
