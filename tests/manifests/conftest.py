"""What tests of manifests share: rendered overlays, and the schemas of KServe's kinds where they are at hand."""

import copy
from functools import cache

import pytest

from tests.manifests import check
from tests.manifests.schemas import Schemas

OVERLAYS = ("base", "overlays/local", "overlays/gpu", "overlays/prod", "overlays/kubeflow")

_rendered = cache(check.render)
_rendered_component = cache(check.render_component)


@pytest.fixture(scope="session")
def schemas():
    """Schemas of every kind that is used."""
    if not check.CRDS.is_dir():
        pytest.skip(f"no CustomResourceDefinitions at {check.CRDS}")
    return Schemas(check.CRDS)


@pytest.fixture(params=OVERLAYS)
def overlay(request):
    """The objects of each overlay, and of the base, in turn."""
    return copy.deepcopy(_rendered(check.ROOT / request.param))


@pytest.fixture
def rendered():
    """Return a function from an overlay's name to its objects, by kind and name."""

    def by_name(name):
        return {(item["kind"], item["metadata"]["name"]): item for item in copy.deepcopy(_rendered(check.ROOT / name))}

    return by_name


@pytest.fixture
def rendered_component():
    """Return a function from an option's name to the objects of the base with it, by kind and name."""

    def by_name(name):
        objects = copy.deepcopy(_rendered_component(check.ROOT / "components" / name))
        return {(item["kind"], item["metadata"]["name"]): item for item in objects}

    return by_name
