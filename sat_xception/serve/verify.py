"""Verify a version of a model root: check its digests, load it as the server does, and score its golden tiles."""

from __future__ import annotations

from sat_xception.serve.models import SavedModelSession
from sat_xception.serve.settings import VerifyModelConfig
from sat_xception.served_model.golden import check_answers
from sat_xception.served_model.model_root import check_digests, here
from sat_xception.served_model.settings import ShowModelConfig
from sat_xception.served_model.versions import Report, find_version

__all__ = ["verify_model"]


def verify_model(config: VerifyModelConfig) -> Report:
    """Verify that a version is unchanged since packaging: its files by digest, the model by its golden tiles.

    Raises:
        ConfigError: There is no such version.
        DataError: A file is missing, damaged or unexpected.
        ModelError: The model doesn't load, or its outputs differ from those at packaging.
        ServiceError: The bucket can't be read.

    Example:
        print(verify_model(VerifyModelConfig(model_root="models/serving")).summary())
    """
    version = here(find_version(ShowModelConfig(**config.model_dump())))
    files = check_digests(version)
    with SavedModelSession(version) as model:
        difference = check_answers(version, model.probabilities, str(version))
    return Report(f"verified  {version}: {files} files as packaged, golden tiles answered within {difference:.1g}")
