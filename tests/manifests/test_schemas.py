"""The check of manifests finds what an API server would refuse, and what it would drop without a word."""

import copy

import jsonschema
import pytest

from tests.manifests import check
from tests.manifests.schemas import Schemas, json_schema


def test_every_object_of_every_overlay_fits_its_schema(overlay, schemas):
    assert list(check.problems(overlay, schemas)) == []


@pytest.mark.parametrize("component", [path.name for path in check.components()])
def test_every_object_of_every_option_fits_its_schema(component, rendered_component, schemas):
    assert list(check.problems(list(rendered_component(component).values()), schemas)) == []


@pytest.mark.parametrize(
    ("kind", "path", "value", "field"),
    [
        ("InferenceService", "spec.predictor.minReplica", 2, "minReplica"),
        ("InferenceService", "spec.predictor.model.storageURI", "gs://b/m", "storageURI"),
        ("InferenceService", "spec.predictor.model.resource", {}, "resource"),
        ("InferenceService", "spec.predictor.securityContext.runAsNonroot", True, "runAsNonroot"),
        ("InferenceService", "spec.predictor.maxReplicas", "4", "spec.predictor.maxReplicas"),
        ("InferenceService", "spec.predictor.model.readinessProbe.httpGet.path", 1, "readinessProbe.httpGet.path"),
        ("InferenceService", "spec.predictor.model.modelFormat", None, "spec.predictor.model.modelFormat"),
        ("InferenceService", "spec.predictor.autoScaling", {"metrics": [{"type": "Externl"}]}, "metrics.0.type"),
        ("InferenceService", "metadata.annotations", {"serving.kserve.io/stop": True}, "annotations"),
        ("ServingRuntime", "spec.supportedModelFormats.0.priority", 0, "priority"),
        ("ServingRuntime", "spec.container", [], "container"),
        ("ServingRuntime", "spec.containers.0.image", 2.2, "image"),
        ("HTTPRoute", "spec.parentRefs.0.port", 65536, "spec.parentRefs.0.port"),
        ("HTTPRoute", "spec.hostnames.0", "School.Example.org", "spec.hostnames.0"),
        ("HTTPRoute", "spec.hostname", ["a.example.org"], "hostname"),
        ("NetworkPolicy", "spec.ingres", [], "ingres"),
        ("PodDisruptionBudget", "spec.maxUnavailable", True, "spec.maxUnavailable"),
        ("ResourceQuota", "spec.hard", ["cpu"], "spec.hard"),
        ("Role", "rules.0.verb", ["get"], "verb"),
        ("Namespace", "metadata.label", {}, "label"),
        ("PodMonitor", "spec.podMetricsEndpoints.0.paths", "/metrics", "paths"),
        ("PrometheusRule", "spec.groups.0.rules.0.for", "five minutes", "spec.groups.0.rules.0.for"),
        ("ClusterStorageContainer", "spec.supportedUriFormats.0.prefx", "gs://", "prefx"),
        ("ClusterStorageContainer", "metadata.namespace", "sat-xception", "metadata.namespace"),
    ],
)
def test_a_mistake_in_an_object_is_found_and_its_field_named(kind, path, value, field, rendered, schemas):
    item = next(item for (of, _), item in rendered("overlays/prod").items() if of == kind)
    assert schemas.errors(item) == []
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target = item
    for part in parents:
        target = target[part]
    target[last] = value
    (error,) = schemas.errors(item)
    assert field in error


def test_an_object_that_belongs_into_a_namespace_must_say_which(rendered, schemas):
    item = rendered("base")["HTTPRoute", "school-classifier-route"]
    del item["metadata"]["namespace"]
    assert schemas.errors(item) == ["metadata.namespace: missing"]


def test_a_kind_without_a_schema_is_an_error_and_not_passed_over(tmp_path, rendered):
    (tmp_path / "empty.yaml").write_text("")
    item = rendered("base")["ServingRuntime", "sat-xception-tfserving"]
    with pytest.raises(LookupError, match="no schema for ServingRuntime"):
        Schemas(tmp_path).errors(item)
    assert "no schema for ServingRuntime" in next(check.problems([item], Schemas(tmp_path)))


def test_without_definitions_of_the_cluster_the_rest_is_still_checked(tmp_path, rendered):
    objects = list(rendered("overlays/prod").values())
    missing = Schemas(tmp_path / "none")
    assert list(check.problems(objects, missing)) == []
    next(item for item in objects if item["kind"] == "Service")["spec"]["port"] = 1
    assert len(list(check.problems(objects, missing))) == 1


def test_a_list_of_definitions_as_kubectl_writes_it_is_read(tmp_path):
    (tmp_path / "crds.yaml").write_text(
        """
        kind: List
        items:
          - kind: CustomResourceDefinition
            spec:
              group: example.org
              scope: Cluster
              names: {kind: Thing}
              versions:
                - name: v1
                  schema: {openAPIV3Schema: {type: object, properties: {size: {type: integer, maximum: 3}}}}
        """
    )
    thing = {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "a"}, "size": 3}
    schemas = Schemas(tmp_path)
    assert schemas.errors(thing) == []
    assert schemas.errors(thing | {"size": 4}) == ["size: 4 is greater than the maximum of 3"]


@pytest.mark.parametrize(
    ("openapi", "fits", "breaks"),
    [
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}, [1, "25%"], [1.5]),
        ({"type": "string", "nullable": True}, [None, "a"], [1]),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, [{"any": 1}], [[]]),
        ({"type": "object", "additionalProperties": {"type": "string"}}, [{"any": "a"}], [{"any": 1}]),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, [{}, {"a": 1}], [{"b": 1}]),
        ({"type": "array", "items": {"type": "object", "properties": {}}}, [[{}]], [[{"b": 1}]]),
        ({"type": "string", "enum": ["a"]}, ["a"], ["b"]),
    ],
)
def test_a_schema_of_a_definition_is_taken_over_strictly(openapi, fits, breaks):
    validator = jsonschema.Draft202012Validator(json_schema(copy.deepcopy(openapi)))
    assert all(validator.is_valid(value) for value in fits)
    assert not any(validator.is_valid(value) for value in breaks)


def test_the_command_names_object_and_field_and_fails(tmp_path, monkeypatch, capsys):
    for name in ("base", "overlays/bad", "tensorboard"):
        (tmp_path / name).mkdir(parents=True)
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: n}\nspec: {ports: [{prt: 80}]}\n"
    (tmp_path / "overlays/bad/s-service.yaml").write_text(service)
    (tmp_path / "overlays/bad/kustomization.yaml").write_text("resources: [s-service.yaml]\n")
    (tmp_path / "base/kustomization.yaml").write_text("resources: [nothing.yaml]\n")
    (tmp_path / "tensorboard/kustomization.yaml").write_text("namePrefix: a-\n")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    monkeypatch.setattr(check, "CRDS", tmp_path / "none")
    monkeypatch.setattr("sys.argv", ["check"])
    assert check.main() == 1
    out = capsys.readouterr().out
    assert "Service/s  spec.ports.0" in out
    assert "nothing.yaml" in out  # kustomize's own error
    assert "only rendered" in out


def test_a_folder_without_definitions_is_a_mistake_and_not_passed_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["check", "--crds", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        check.main()
    assert f"{tmp_path} (--crds, CRDS= of make): no .yaml file there" in capsys.readouterr().err


def test_what_is_still_an_example_is_told(tmp_path, monkeypatch):
    shipped = (check.ROOT / "overlays/prod/site.env").read_text()
    (tmp_path / "overlays/prod").mkdir(parents=True)
    path = tmp_path / "overlays/prod/site.env"
    monkeypatch.setattr(check, "ROOT", tmp_path)
    path.write_text(shipped)
    assert check.examples() == ["host", "google_service_account"]
    path.write_text(shipped.replace("example.org", "example.com").replace("my-project", "schools"))
    assert check.examples() == []
