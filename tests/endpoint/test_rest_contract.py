"""What a client may count on over REST: true of TensorFlow Serving from 2.19 on and of `sat_xception serve`."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest

from tests.endpoint.conftest import b64, rows

# Rounding of another batch size or of another machine.
CLOSE = {"atol": 1e-4}


@pytest.fixture(scope="module")
def wanted(endpoint, images) -> np.ndarray:
    """The endpoint's own answers, one image at a time, in the request form of 2018."""
    return np.array([endpoint.predictions({"instances": rows([data])})[0] for data in images])


def test_one_output_in_rows_is_a_list_of_lists_of_probabilities(wanted, images):
    assert wanted.ndim == 2 and wanted.shape[0] == len(images) and wanted.shape[1] >= 2
    np.testing.assert_allclose(wanted.sum(axis=1), 1, atol=1e-3)


def test_a_batch_answers_in_the_order_of_its_rows(endpoint, images, wanted):
    np.testing.assert_allclose(endpoint.predictions({"instances": rows(images)}), wanted, **CLOSE)
    np.testing.assert_allclose(endpoint.predictions({"instances": rows(images[::-1])}), wanted[::-1], **CLOSE)


def test_the_name_of_the_only_input_may_be_left_out(endpoint, images, wanted):
    np.testing.assert_allclose(endpoint.predictions({"instances": [b64(data) for data in images]}), wanted, **CLOSE)


@pytest.mark.parametrize("named", [True, False])
def test_columns_answer_as_outputs(endpoint, images, wanted, named):
    column = [b64(data) for data in images]
    response = endpoint.post({"inputs": {"image_bytes": column} if named else column})
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["outputs"]
    np.testing.assert_allclose(response.json()["outputs"], wanted, **CLOSE)


def test_a_signature_with_several_outputs_answers_with_objects(endpoint, images, wanted):
    answers = endpoint.predictions({"signature_name": "classify", "instances": rows(images)})
    assert all(answer.keys() == {"probabilities", "label", "score"} for answer in answers)
    np.testing.assert_allclose([answer["probabilities"] for answer in answers], wanted, **CLOSE)
    np.testing.assert_allclose([answer["score"] for answer in answers], wanted.max(axis=1), **CLOSE)
    assert all(isinstance(answer["label"], str) and answer["label"] for answer in answers)
    columns = endpoint.post({"signature_name": "classify", "inputs": [b64(data) for data in images]}).json()["outputs"]
    assert columns.keys() == {"probabilities", "label", "score"}
    assert columns["label"] == [answer["label"] for answer in answers]


def test_pixels_answer_as_their_png_does(endpoint, pixels, wanted):
    answer = endpoint.predictions({"signature_name": "images", "instances": pixels.tolist()})
    np.testing.assert_allclose(answer, wanted, **CLOSE)


def test_the_default_signature_may_be_named(endpoint, images, wanted):
    body = {"signature_name": "serving_default", "instances": rows(images)}
    np.testing.assert_allclose(endpoint.predictions(body), wanted, **CLOSE)


def test_the_version_may_be_pinned(endpoint, images, wanted):
    path = f"/versions/{endpoint.version}:predict"
    np.testing.assert_allclose(endpoint.predictions({"instances": rows(images)}, path), wanted, **CLOSE)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
def test_the_content_type_of_a_request_does_not_matter(endpoint, images, content_type):
    body = json.dumps({"instances": rows(images[:1])}).encode()
    response = endpoint.post(body, **{"Content-Type": content_type})
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] == "application/json"


def test_nan_and_infinity_are_legal_tokens(endpoint, images):
    body = {"instances": rows(images[:1]), "ignored": [float("nan"), float("inf"), float("-inf")]}
    assert endpoint.post(json.dumps(body).encode()).status_code == 200


def test_a_connection_answers_more_than_once(endpoint, images):
    with httpx.Client(timeout=60) as client:
        for _ in range(3):
            response = client.post(f"{endpoint.model_url}:predict", json={"instances": rows(images[:1])})
            assert response.status_code == 200


BAD = {
    "empty": b"",
    "cut short": b'{"instances": [',
    "not an object": b"[1, 2]",
    "neither form": b'{"images": []}',
    "both forms": b'{"instances": ["a"], "inputs": ["a"]}',
    "no rows": b'{"instances": []}',
    "rows that are no list": b'{"instances": {"image_bytes": {"b64": ""}}}',
    "an unknown input": b'{"instances": [{"bytes": {"b64": ""}}]}',
    "a number for bytes": b'{"instances": [{"image_bytes": 7}]}',
    "base64 that is none": b'{"instances": [{"image_bytes": {"b64": "!!!"}}]}',
    "not an image": b'{"instances": [{"image_bytes": {"b64": "anVuaw=="}}]}',
    "an image of no bytes": b'{"instances": [{"image_bytes": {"b64": ""}}]}',
    "true for a pixel": b'{"signature_name": "images", "instances": [[[[1, true, 3]]]]}',
    "a pixel below none": b'{"signature_name": "images", "instances": [[[[1, -3000000000, 3]]]]}',
    "pixels nested too deeply": b'{"signature_name": "images", "instances": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "an image twice in a row": b'{"instances": [{"image_bytes": {"b64": ""}, "image_bytes": {"b64": ""}}]}',
    "one image without a list": b'{"inputs": {"b64": ""}}',
    "one named image without a list": b'{"inputs": {"image_bytes": {"b64": ""}}}',
    "a signature name that is a deep list": b'{"signature_name": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "ragged pixels": b'{"signature_name": "images", "instances": [[[[1, 2, 3]], [[1, 2]]]]}',
    "a fraction for a pixel": b'{"signature_name": "images", "instances": [[[[0.5, 1, 2]]]]}',
    "an unknown signature": b'{"signature_name": "detect", "instances": [{"b64": ""}]}',
    "a signature name that is none": b'{"signature_name": 7, "instances": [{"b64": ""}]}',
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_a_400_with_an_error_and_the_next_one_is_answered(endpoint, images, case):
    response = endpoint.post(BAD[case])
    assert response.status_code == 400, response.text
    assert list(response.json()) == ["error"] and response.json()["error"]
    assert endpoint.post({"instances": rows(images[:1])}).status_code == 200


def test_a_bad_image_among_good_ones_is_a_400(endpoint, images):
    assert endpoint.post({"instances": rows([images[0], b"junk", images[1]])}).status_code == 400


@pytest.mark.parametrize("path", ["/v1/models/no-such-model:predict", "/v1/models/{name}/versions/77:predict"])
def test_an_unknown_model_or_version_is_a_404(endpoint, images, path):
    url = endpoint.url + path.format(name=endpoint.name)
    response = httpx.post(url, json={"instances": rows(images[:1])}, timeout=60)
    assert response.status_code == 404
    assert "Servable not found" in response.json()["error"]


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_classify_and_regress_of_an_unknown_model_are_a_404(endpoint, verb):
    url = f"{endpoint.url}/v1/models/no-such-model:{verb}"
    assert httpx.post(url, json={"examples": [{"x": 1.0}]}, timeout=60).status_code == 404
    assert endpoint.post({"examples": [{"x": 1.0}]}, f":{verb}").status_code == 400


@pytest.mark.parametrize("path", ["/versions/{}", "/versions/{}/metadata", "/versions/{}:predict"])
@pytest.mark.parametrize("version", [2**63, 2**64 - 1, 10**25])
def test_a_version_beyond_int64_is_a_400(endpoint, images, path, version):
    url = endpoint.model_url + path.format(version)
    ask = httpx.post if path.endswith(":predict") else httpx.get
    body = {"json": {"instances": rows(images[:1])}} if ask is httpx.post else {}
    response = ask(url, timeout=60, **body)
    assert response.status_code == 400
    assert "Failed to convert version" in response.json()["error"]


def test_a_key_that_is_not_read_may_be_nested_to_any_depth(endpoint, images):
    deep = b"[" * 50_000 + b"]" * 50_000
    body = json.dumps({"instances": rows(images[:1])}).encode()[:-1] + b', "nested": ' + deep + b"}"
    assert endpoint.post(body).status_code == 200


@pytest.mark.parametrize(
    "path", ["/models/x", "/models/x/version/50", "/models/x/metadata:predict", "/models/x/versions/5/labels/a:predict"]
)
def test_a_post_to_a_malformed_path_is_a_400(endpoint, path):
    response = httpx.post(f"{endpoint.url}/v1{path}", content=b"", timeout=60)
    assert response.status_code == 400
    assert "Malformed request" in response.json()["error"]


@pytest.mark.parametrize("path", [":predict", "/versions/latest"])
def test_a_malformed_path_is_a_400(endpoint, path):
    response = httpx.get(endpoint.model_url + path, timeout=60)
    assert response.status_code == 400
    assert "Malformed request" in response.json()["error"]


@pytest.mark.parametrize("pinned", [False, True])
def test_the_status_says_which_version_is_available(endpoint, pinned):
    path = f"/versions/{endpoint.version}" if pinned else ""
    response = httpx.get(endpoint.model_url + path, timeout=60)
    assert response.status_code == 200
    states = {item["version"]: item for item in response.json()["model_version_status"]}
    assert states[str(endpoint.version)]["state"] == "AVAILABLE"
    assert states[str(endpoint.version)]["status"] == {"error_code": "OK", "error_message": ""}


@pytest.mark.parametrize("path", ["/v1/models/no-such-model", "/v1/models/{name}/versions/77"])
def test_the_status_of_an_unknown_model_or_version_is_a_404(endpoint, path):
    response = httpx.get(endpoint.url + path.format(name=endpoint.name), timeout=60)
    assert response.status_code == 404
    assert response.json()["error"]


@pytest.mark.parametrize("pinned", [False, True])
def test_the_metadata_shows_the_signatures(endpoint, pinned):
    path = f"/versions/{endpoint.version}/metadata" if pinned else "/metadata"
    metadata = httpx.get(endpoint.model_url + path, timeout=60).json()
    assert metadata["model_spec"]["name"] == endpoint.name
    assert metadata["model_spec"]["version"] == str(endpoint.version)
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "classify", "images"} <= signatures.keys()
    default = signatures["serving_default"]
    assert default["method_name"] == "tensorflow/serving/predict"
    assert default["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    assert [dim["size"] for dim in default["inputs"]["image_bytes"]["tensor_shape"]["dim"]] == ["-1"]
    assert default["outputs"]["probabilities"]["dtype"] == "DT_FLOAT"
    assert signatures["images"]["inputs"]["images"]["dtype"] == "DT_UINT8"
