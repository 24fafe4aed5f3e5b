"""Many clients at once, and a new version in the middle."""

from __future__ import annotations

import threading
import time

import numpy as np

from sat_xception.serve.client import EndpointClient
from sat_xception.serve.server import RunningServer
from tests.serving_fixtures import NAME, expected, pixels_of, pngs, serve_config, write_version

pytest_plugins = ["tests.serving_fixtures"]
CLIENTS, SECONDS = 32, 2.5


def test_no_request_fails_while_32_clients_ask_and_a_new_version_takes_over(tmp_path):
    write_version(tmp_path / NAME / "1")
    write_version(tmp_path / "staged", seed=1)
    images, stop = pngs(4), threading.Event()
    answers: list[list[np.ndarray]] = [[] for _ in range(CLIENTS)]
    failures: list[Exception] = []

    def load(place: int, address: str) -> None:
        own = [images[place % 4], images[(place + 1) % 4]]
        try:
            with EndpointClient(address, NAME) as client:
                while not stop.is_set():
                    # Not through the client's repetitions: the first answer must be the right one.
                    answers[place].append(client._transport.predict("serving_default", own, 30)["probabilities"])
        except Exception as error:
            failures.append(error)

    with RunningServer(serve_config(tmp_path)) as server:
        addresses = [server.rest_url, f"grpc://{server.grpc_address}"]
        threads = [threading.Thread(target=load, args=(n, addresses[n % 2])) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        time.sleep(SECONDS / 2)
        (tmp_path / "staged").rename(tmp_path / NAME / "2")
        with EndpointClient(server.rest_url, NAME) as client:
            while {2: "AVAILABLE", 1: "END"} != {status.version: status.state for status in client.status()}:
                time.sleep(0.02)
        time.sleep(SECONDS / 2)
        stop.set()
        for thread in threads:
            thread.join()
        result = server.stop()

    assert not failures
    assert result is not None
    assert (result.answered, result.failed) == (sum(map(len, answers)), 0)
    wanted = [expected(pixels_of(4), seed) for seed in (0, 1)]
    seen = set()
    for place, own in enumerate(answers):
        assert own, "a client was never answered"
        rows = [place % 4, (place + 1) % 4]
        for answer in own:
            which = [seed for seed in (0, 1) if np.allclose(answer, wanted[seed][rows], atol=1e-5)]
            assert len(which) == 1
            seen.update(which)
    assert seen == {0, 1}
