"""How gateways choose a backend for a request: by turns, at random, late, or always the same one for a client.

Each has `take(weights)`, which is what a gateway's controller tells its proxies, and `choose(request)`, which names the
backend of one HTTP request and the cookies that the answer sets.
"""

import random
import time
import zlib


class SmoothRoundRobin:
    """Weighted round robin as nginx, HAProxy, Kong and Traefik have it: no chance in it, turns are interleaved."""

    def __init__(self):
        self.weights, self._credit = {}, {}

    def take(self, weights):
        if weights != self.weights:
            self.weights, self._credit = dict(weights), dict.fromkeys(weights, 0)

    def choose(self, request):
        for name, weight in self.weights.items():
            self._credit[name] += weight
        chosen = max(self._credit, key=self._credit.get)
        self._credit[chosen] -= sum(self.weights.values())
        return chosen, {}


class RandomChoice:
    """Each request by itself, as Envoy's weighted clusters do."""

    def __init__(self, seed=0):
        self.weights, self._random = {}, random.Random(seed)

    def take(self, weights):
        self.weights = dict(weights)

    def choose(self, request):
        [chosen] = self._random.choices([*self.weights], [*self.weights.values()])
        return chosen, {}


class Late:
    """A gateway whose proxies have new weights some time after its controller has said so of the route.

    The time is in seconds, or in requests, which a slow machine doesn't change.
    """

    def __init__(self, gateway, lag_s=0.0, lag_requests=0):
        self.gateway, self._lag = gateway, lag_requests or lag_s
        self._clock = (lambda: self._requests) if lag_requests else time.monotonic
        self._coming, self._requests = [], 0

    @property
    def weights(self):
        return self.gateway.weights

    def take(self, weights):
        if not self._coming or self._coming[-1][1] != weights:
            # The first ones are there from the start: a proxy that knows no backend at all answers with 500.
            self._coming.append((self._clock() + (self._lag if self._coming else 0), dict(weights)))
        self._arrive()

    def choose(self, request):
        self._requests += 1
        self._arrive()
        return self.gateway.choose(request)

    def _arrive(self):
        due = [weights for at, weights in self._coming if at <= self._clock()]
        if due:
            self.gateway.take(due[-1])


class Affinity:
    """A gateway that keeps a client at the backend that it got first: by connection, by cookie, or by address.

    Who comes anew is dealt out by the weights, so only the address pins one who opens a connection for each request and
    sends no cookies.
    """

    def __init__(self, by, seed=0):
        self.by, self._gateway, self._kept = by, RandomChoice(seed), {}

    @property
    def weights(self):
        return self._gateway.weights

    def take(self, weights):
        self._gateway.take(weights)

    def choose(self, request):
        if self.by == "address":
            # As a hash of the address does: the same backend as long as there is one.
            names = sorted(self.weights)
            return names[zlib.crc32(request.remote.encode()) % len(names)], {}
        client = request.transport if self.by == "connection" else request.cookies.get("backend")
        kept = self._kept.get(client) if self.by == "connection" else client
        if kept not in self.weights:
            kept, _ = self._gateway.choose(request)
        if self.by == "cookie":
            return kept, {"backend": kept}
        self._kept[client] = kept
        return kept, {}
