"""Verify a version of a model root: load it as the server does, and ask it for its golden tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sat_xception.serve.models import SavedModelSession
from sat_xception.serve.settings import VerifyModelConfig
from sat_xception.served_model.golden import check_answers
from sat_xception.served_model.model_root import check_digests, here
from sat_xception.served_model.settings import ShowModelConfig
from sat_xception.served_model.versions import Report, find_version

__all__ = ["verify_model"]


def verify_model(config: VerifyModelConfig) -> Report:
    """Prove that a version is what was packaged: its files by their digests, the model by its golden tiles.

    Raises:
        ConfigError: There is no such version.
        DataError: A file is missing, damaged or too many.
        ModelError: It doesn't load, or answers otherwise than when it was packaged.
        ServiceError: The bucket can't be read.
    """
    version = here(find_version(ShowModelConfig(**config.model_dump())))
    files = check_digests(version)
    with SavedModelSession(version) as model:

        def predict(images: Sequence[bytes]) -> Any:  # noqa: ANN401 - an array
            return model.predict("serving_default", {"image_bytes": np.array(images, dtype=object)})["probabilities"]

        difference = check_answers(version, predict, str(version))
    return Report(f"verified  {version}: {files} files as packaged, golden tiles answered within {difference:.1g}")
