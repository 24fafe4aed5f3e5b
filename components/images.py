"""The container image of each step, named in one place.

`IMAGE_REGISTRY` and `IMAGE_TAG` in the environment change the references when a pipeline is compiled.
"""

from __future__ import annotations

import os

from sat_xception import __version__

__all__ = ["image"]


def image(step: str) -> str:
    """Return the reference of a step's image, for instance `sat-xception/train:0.1.0`."""
    registry = os.environ.get("IMAGE_REGISTRY", "sat-xception").rstrip("/")
    return f"{registry}/{step}:{os.environ.get('IMAGE_TAG', __version__)}"
