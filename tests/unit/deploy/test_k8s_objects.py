"""Kubernetes objects with names for their fields: nothing is lost, and another form is an error."""

import pytest

from sat_xception.deploy.k8s_objects import Deployment, HTTPRoute, Status
from sat_xception.deploy.kserve_objects import InferenceService
from sat_xception.errors import ServiceError

ROUTE = {
    "metadata": {"name": "schools-route", "generation": 3, "managedFields": [{"manager": "kubectl"}]},
    "spec": {
        "parentRefs": [{"name": "gateway"}],
        "rules": [{"backendRefs": [{"name": "a", "port": 80, "weight": 0}], "timeouts": {"request": "10s"}}],
    },
}


def test_what_was_read_is_written_back_whole():
    assert HTTPRoute.of(ROUTE).manifest() == ROUTE
    assert HTTPRoute.of({}).manifest() == {}


def test_a_changed_part_keeps_the_fields_without_a_name():
    (rule,) = HTTPRoute.of(ROUTE).spec.rules
    (backend,) = rule.backend_refs
    changed = rule.model_copy(update={"backend_refs": [backend.model_copy(update={"weight": 5})]})
    assert changed.manifest() == {
        "backendRefs": [{"name": "a", "port": 80, "weight": 5}],
        "timeouts": {"request": "10s"},
    }


def test_null_is_as_a_field_that_is_left_out():
    deployment = Deployment.of({"metadata": None, "spec": {"template": {"metadata": {"creationTimestamp": None}}}})
    assert deployment.spec.template.metadata.creation_timestamp == ""
    assert deployment.status.replicas == 0


def test_a_manifest_has_another_predictor_and_only_the_metadata_that_can_be_applied():
    service = InferenceService.of(
        {
            "metadata": {"name": "schools", "resourceVersion": "7", "labels": {"team": "a"}},
            "spec": {"predictor": {"name": "v1"}, "canary": [{"trafficPercent": 10}], "explainer": {"x": 1}},
            "status": {"conditions": []},
        }
    )
    assert service.manifest_with({"name": "v2"}) == {
        "metadata": {"name": "schools", "labels": {"team": "a"}, "annotations": {}},
        "spec": {"predictor": {"name": "v2"}, "explainer": {"x": 1}},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"spec": {"rules": [{"backendRefs": [{"name": "a", "weight": "5"}]}]}}, r"spec\.rules\.0\.backendRefs\.0\.w"),
        ({"spec": {"rules": [{"backendRefs": [{"weight": 5}]}]}}, r"spec\.rules\.0\.backendRefs\.0\.name: Field requ"),
        ({"status": {"parents": "none"}}, r"status\.parents: .*, got 'none'"),
        ([], "another HTTPRoute than"),
    ],
)
def test_an_object_of_another_form_is_an_error_that_names_the_field(content, message):
    with pytest.raises(ServiceError, match=message):
        HTTPRoute.of(content)


def test_the_body_of_an_error_has_causes():
    body = {"kind": "Status", "status": "Failure", "details": {"causes": [{"reason": "X", "field": ".spec"}]}}
    assert [cause.field for cause in Status.of(body).details.causes] == [".spec"]
