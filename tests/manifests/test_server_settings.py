"""TensorFlow Serving is started with flags and files that it understands, and that belong together."""

import re

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from tests.manifests.pods import inference_pod

# `tensorflow_model_server --help` of 2.20 (tensorflow_serving/model_servers/main.cc), those that are of use here.
FLAGS = {
    "batching_parameters_file",
    "enable_batching",
    "enable_grpc_healthcheck_service",
    "file_system_poll_wait_seconds",
    "grpc_channel_arguments",
    "load_retry_interval_micros",
    "max_num_load_retries",
    "model_base_path",
    "model_name",
    "monitoring_config_file",
    "port",
    "rest_api_port",
    "rest_api_timeout_in_ms",
    "tensorflow_intra_op_parallelism",
}
VARIANTS = ("base", "overlays/local", "overlays/gpu", "overlays/prod", "bulk-batching")


def messages():
    """Return the messages of the two files; PyPI's tensorflow-serving-api doesn't have them.

    After BatchingParameters in servables/tensorflow/session_bundle_config.proto and config/monitoring_config.proto,
    both of tensorflow/serving 2.20.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="of_tests.proto", package="of_tests", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    batching = file.message_type.add(name="BatchingParameters")
    wrapped = ["max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"]
    for name in (*wrapped, "max_execution_batch_size"):
        batching.field.add(name=name, type=field.TYPE_MESSAGE, type_name=".google.protobuf.Int64Value")
    for name, kind in (("thread_pool_name", "StringValue"), ("enable_large_batch_splitting", "BoolValue")):
        batching.field.add(name=name, type=field.TYPE_MESSAGE, type_name=f".google.protobuf.{kind}")
    batching.field.add(name="allowed_batch_sizes", type=field.TYPE_INT64, label=field.LABEL_REPEATED)
    batching.field.add(name="pad_variable_length_inputs", type=field.TYPE_BOOL)
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", type=field.TYPE_BOOL)
    prometheus.field.add(name="path", type=field.TYPE_STRING)
    monitoring = file.message_type.add(name="MonitoringConfig")
    monitoring.field.add(name="prometheus_config", type=field.TYPE_MESSAGE, type_name=".of_tests.PrometheusConfig")
    for message in file.message_type:
        for number, entry in enumerate(message.field, start=1):
            entry.number = number
            entry.label = entry.label or field.LABEL_OPTIONAL
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"of_tests.{name}"))
        for name in ("BatchingParameters", "MonitoringConfig")
    }


@pytest.fixture(params=VARIANTS)
def objects(request, rendered, rendered_component):
    """Objects of each overlay and of the option for bulk inference, by kind and name."""
    return (rendered if "/" in request.param or request.param == "base" else rendered_component)(request.param)


@pytest.fixture
def container(objects):
    """The server's container, with what the endpoint adds to the runtime."""
    (container,) = inference_pod(objects["InferenceService", "school-classifier-template"], objects.values())[
        "containers"
    ]
    return container


@pytest.fixture
def flags(container):
    """Flags and their values."""
    given = [re.fullmatch(r"--(\w+)=(.*)", argument).groups() for argument in container["args"]]
    assert len(dict(given)) == len(given), "a flag is given twice"
    return dict(given)


@pytest.fixture
def files(objects):
    """The files that the server finds beside it, by the place it finds them at."""
    runtime = objects["ServingRuntime", "sat-xception-tfserving"]["spec"]
    volumes = {volume["name"]: volume["configMap"]["name"] for volume in runtime["volumes"] if "configMap" in volume}
    mounts = {mount["name"]: mount["mountPath"] for mount in runtime["containers"][0]["volumeMounts"]}
    return {
        f"{mounts[volume]}/{name}": text
        for volume, config in volumes.items()
        for name, text in objects["ConfigMap", config]["data"].items()
    }


def test_every_flag_is_one_that_the_server_knows(flags):
    assert flags.keys() == FLAGS


def test_the_image_is_one_that_loads_our_models(container, objects):
    name, version, gpu = re.fullmatch(r"([\w/]+):([\d.]+)(-gpu)?", container["image"]).groups()
    assert name == "tensorflow/serving"
    assert tuple(map(int, version.split("."))) >= (2, 19)
    assert bool(gpu) is ("nvidia.com/gpu" in container["resources"]["limits"])


def test_a_model_that_cannot_be_loaded_ends_the_server_at_once(flags):
    assert flags["max_num_load_retries"] == flags["load_retry_interval_micros"] == "0"
    assert flags["file_system_poll_wait_seconds"] == "0"


def test_ports_and_probes_are_those_of_the_flags(container, flags):
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    # The first one becomes port 80 of the Service, which the route's weights name.
    assert list(ports) == ["http1", "grpc"]
    assert ports == {"http1": flags["rest_api_port"], "grpc": flags["port"]}
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": f"/v1/models/{flags['model_name']}", "port": 8080}
    assert container["livenessProbe"]["tcpSocket"] == {"port": 8080}


def test_the_model_has_the_endpoints_name_in_both_halves(flags):
    assert flags["model_name"] == "school-classifier"


def test_threads_follow_the_pods_limit(container, flags):
    variable = re.fullmatch(r"\$\((\w+)\)", flags["tensorflow_intra_op_parallelism"])[1]
    (entry,) = (entry for entry in container["env"] if entry["name"] == variable)
    assert entry["valueFrom"]["resourceFieldRef"]["resource"] == "limits.cpu"
    assert "cpu" in container["resources"]["limits"]


def test_the_files_parse_and_batches_fit_together(flags, files):
    kinds = messages()
    batching = text_format.Parse(files[flags["batching_parameters_file"]], kinds["BatchingParameters"]())
    assert batching.num_batch_threads.value >= 1
    # Bulk inference sends up to 256 tiles a call; a larger call than max_batch_size is an error.
    assert batching.max_batch_size.value >= 256
    if batching.enable_large_batch_splitting.value:
        assert 0 < batching.max_execution_batch_size.value <= batching.max_batch_size.value
    else:
        assert not batching.HasField("max_execution_batch_size")
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    if sizes:
        assert sizes[-1] == batching.max_batch_size.value
        assert not batching.enable_large_batch_splitting.value


def test_metrics_are_where_they_are_looked_for(flags, files, objects, rendered):
    monitoring = text_format.Parse(files[flags["monitoring_config_file"]], messages()["MonitoringConfig"]())
    assert monitoring.prometheus_config.enable
    (endpoint,) = rendered("overlays/prod")["PodMonitor", "school-classifier"]["spec"]["podMetricsEndpoints"]
    runtime = objects["ServingRuntime", "sat-xception-tfserving"]["spec"]
    assert endpoint["path"] == monitoring.prometheus_config.path
    assert runtime["annotations"]["prometheus.kserve.io/path"] == endpoint["path"]
    assert endpoint["port"] in [port["name"] for port in runtime["containers"][0]["ports"]]


def test_a_mistake_in_a_file_would_be_found():
    with pytest.raises(text_format.ParseError, match="max_batch_sise"):
        text_format.Parse("max_batch_sise { value: 1 }", messages()["BatchingParameters"]())


def test_other_batches_mean_another_config_and_so_another_runtime(rendered, rendered_component):
    def config_of(objects):
        return objects["ServingRuntime", "sat-xception-tfserving"]["spec"]["volumes"][0]["configMap"]["name"]

    names = {
        config_of(rendered("base")),
        config_of(rendered("overlays/gpu")),
        config_of(rendered_component("bulk-batching")),
    }
    assert len(names) == 3
    assert config_of(rendered("overlays/prod")) in names


def test_grpc_reaches_one_half_directly(rendered):
    objects = rendered("overlays/prod")
    ports = objects["ServingRuntime", "sat-xception-tfserving"]["spec"]["containers"][0]["ports"]
    for half in "ab":
        spec = objects["Service", f"school-classifier-{half}-grpc"]["spec"]
        assert spec["clusterIP"] == "None"
        assert spec["selector"]["serving.kserve.io/inferenceservice"] == f"school-classifier-{half}"
        assert spec["ports"][0]["targetPort"] in [port["name"] for port in ports]


def test_a_key_of_a_storage_account_is_the_endpoints_alone(rendered_component):
    objects = rendered_component("storage-secret")
    accounts = {name: item.get("secrets") for (kind, name), item in objects.items() if kind == "ServiceAccount"}
    assert accounts == {"sat-xception-model-reader": [{"name": "sat-xception-storage"}], "sat-xception-deployer": None}
    assert not [kind for kind, _ in objects if kind == "Secret"]
