"""The server's Prometheus metrics: TensorFlow Serving's, under the same names, and some of our own.

Names, labels and buckets are those of its servables/tensorflow/util.cc, batching_session.cc and prometheus_exporter.cc.
As there, latencies are in microseconds, statuses are codes, and the API is `Predict` over gRPC and `predict` over REST.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sat_xception.serve.protocol import Code

__all__ = ["CONTENT_TYPE", "METRICS_PATH", "Metrics"]

METRICS_PATH = "/monitoring/prometheus/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# monitoring::Buckets::Exponential(scale, factor, count) of TensorFlow.
_LATENCY_BUCKETS = [10 * 1.8**power for power in range(33)]
_QUEUE_BUCKETS = [100 * 1.2**power for power in range(52)]
_SIZE_BUCKETS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


class Metrics:
    """Metrics of one server.

    Attributes:
        answered: Number of predictions that were answered.
        failed: Number of predictions that were refused or failed.
        waiting: Gauge of the requests that wait for a run.
        under_way: Gauge of the admitted requests.
        batch_requests: Histogram of the number of requests merged into a run.
    """

    def __init__(self, name: str, version: Callable[[], int | None]) -> None:
        """Create all metrics.

        Args:
            name: Name of the model. Requests for other names are counted under an empty name, so that clients can't
                create new time series.
            version: Returns the version that answers, or None.
        """
        self._name = name
        self._registry = CollectorRegistry()
        self.answered = self.failed = 0
        self._requests = _PlainCounter(
            ":tensorflow:serving:request_count", "The total number of requests.", ("model_name", "status")
        )
        self._runs = _PlainCounter(
            ":tensorflow:serving:batching_session:wrapped_run_count",
            "Total count of run calls on the wrapped session",
            (),
        )
        for counter in (self._requests, self._runs):
            self._registry.register(counter)
        self._latency = self._histogram(
            ":tensorflow:serving:request_latency",
            "Distribution of wall time (in microseconds) for Tensorflow Serving request.",
            _LATENCY_BUCKETS,
            ("model_name", "API", "entrypoint"),
        )
        self._run_latency = self._histogram(
            ":tensorflow:serving:runtime_latency",
            "Distribution of wall time (in microseconds) for Tensorflow runtime.",
            _LATENCY_BUCKETS,
            ("model_name", "API", "runtime"),
        ).labels(name, "Predict", "TF1")
        self._queued = self._histogram(
            ":tensorflow:serving:batching_session:queuing_latency",
            "Distribution of wall time spent (in microseconds) in queuing",
            _QUEUE_BUCKETS,
            ("thread_pool_name",),
        ).labels("predict")
        self._batch_rows = self._histogram("sat_xception_batch_rows", "Images in a run of the model.", _SIZE_BUCKETS)
        self.batch_requests = self._histogram(
            "sat_xception_batch_requests", "Requests merged into a run of the model.", _SIZE_BUCKETS
        )
        self.waiting = Gauge("sat_xception_queue_length", "Requests that wait for a run.", registry=self._registry)
        self.under_way = Gauge(
            "sat_xception_requests_under_way",
            "Requests that were admitted and not answered yet.",
            registry=self._registry,
        )
        self._refused = Counter(
            "sat_xception_requests_refused",
            "Requests refused with a Retry-After, because too many were in progress.",
            registry=self._registry,
        )
        Gauge(
            "sat_xception_model_version", "Version that answers; NaN for none.", registry=self._registry
        ).set_function(lambda: math.nan if (number := version()) is None else number)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def count_request(self, name: str, api: str, entrypoint: str, code: Code, seconds: float) -> None:
        """Count a prediction, and its duration if it was answered, as TensorFlow Serving does.

        Args:
            name: Requested model.
            api: "predict" over REST, "Predict" over gRPC.
            entrypoint: "REST" or "GRPC".
            code: Status of the response.
            seconds: Duration.
        """
        label = name if name == self._name else ""
        self._requests.add(label, code.name)
        self.answered += code is Code.OK
        self.failed += code is not Code.OK
        if code is Code.OK:
            self._latency.labels(label, api, entrypoint).observe(seconds * 1e6)

    def count_run(self, seconds: float, rows: int) -> None:
        """Count a run of the model."""
        self._runs.add()
        self._run_latency.observe(seconds * 1e6)
        self._batch_rows.observe(rows)

    def count_wait(self, seconds: float) -> None:
        """Count a request's waiting time in the queue."""
        self._queued.observe(seconds * 1e6)

    def count_refusal(self) -> None:
        """Count a request refused with a Retry-After."""
        self._refused.inc()

    def _histogram(self, name: str, text: str, buckets: Iterable[float], labels: Iterable[str] = ()) -> Histogram:
        return Histogram(name, text, labels, registry=self._registry, buckets=list(buckets))


class _PlainCounter(Collector):
    """A counter without the suffix `_total` that Prometheus's client adds to the name of every counter."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], int] = {} if labels else {(): 0}

    def add(self, *labels: str) -> None:
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + 1

    def collect(self) -> Iterator[Metric]:
        # Untyped, because the client also renames a metric of type "counter".
        metric = Metric(self._name, self._text, "unknown")
        for labels, value in dict(self._values).items():
            metric.add_sample(self._name, dict(zip(self._labels, labels, strict=True)), value)
        yield metric
