"""Errors of requests to Kubeflow Pipelines: what failed, whether it is transient, and what to do about it."""

from __future__ import annotations

import httpx

from sat_xception.errors import ServiceError
from sat_xception.http_clients import retry_after_s

__all__ = ["KfpError", "forward_hint", "no_answer", "not_kubeflow", "refusal", "said"]

_LONGEST_PAUSE_S = 30.0
_PASSING = frozenset({429, 502, 503, 504})
_PORT_FORWARD = "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80"


class KfpError(ServiceError):
    """A request to Kubeflow Pipelines failed.

    Attributes:
        reason: What failed, without the advice.
        status: HTTP status of the response; 0 if there was none.
        passing: Whether the failure is transient, so that the same request may succeed later.
        unclear: Whether the server may have processed the request nevertheless.
        absent: Whether the API server itself reported that the resource doesn't exist.
        pause_s: Seconds of the server's Retry-After; 0 if it sent none.
    """

    def __init__(
        self, reason: str, hint: str = "", status: int = 0, passing: bool = False, unclear: bool = False
    ) -> None:
        """Create the error; `hint` is the advice."""
        super().__init__(f"{reason}; {hint}" if hint else reason)
        self.reason = reason
        self.status = status
        self.passing = passing
        self.unclear = unclear
        self.absent = False
        self.pause_s = 0.0


def forward_hint() -> str:
    """Return the advice for reaching the UI of a cluster without a public address."""
    return f"`{_PORT_FORWARD}` in another terminal, then --endpoint http://localhost:8080"


def no_answer(endpoint: str, error: httpx.HTTPError, timeout_s: float) -> KfpError:
    """Return the error for a request without a complete response."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        certificate = "CERTIFICATE" in str(error)
        hint = "set $SSL_CERT_FILE to the authority's file" if certificate else f"to reach it: {forward_hint()}"
        reason = f"Kubeflow Pipelines can't be reached at {endpoint} ({error})"
        return KfpError(reason, hint, passing=not certificate)
    if isinstance(error, httpx.TimeoutException):
        reason = f"{endpoint} took a request and sent no whole answer within {timeout_s:.3g} s"
        return KfpError(reason, "if it is only slow, raise --request-timeout-s", passing=True, unclear=True)
    reason = f"{type(error).__name__} {error}".strip()
    return KfpError(f"{endpoint} took a request and didn't answer ({reason})", passing=True, unclear=True)


def not_kubeflow(endpoint: str, why: str, token_env: str) -> KfpError:
    """Return the error for a response that hasn't the form of Kubeflow Pipelines' API."""
    return KfpError(
        f"{endpoint} doesn't speak Kubeflow Pipelines' API: {why}",
        f"check --endpoint; if that is a login, put a token into ${token_env}",
    )


def refusal(endpoint: str, answer: httpx.Response, token: str, token_env: str) -> KfpError:
    """Return the error for an HTTP error status."""
    status = answer.status_code
    message = said(answer)
    message = message.replace(token, "***") if token else message
    reason = f"Kubeflow Pipelines at {endpoint} answered HTTP {status}: {message}"
    hint = ""
    if answer.is_redirect or status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        state = "was sent" if token else "is missing"
        hint = f"a bearer token {state}: it comes from ${token_env} or --token-file"
    absent = status == httpx.codes.NOT_FOUND and _is_api_error(answer)
    if status == httpx.codes.NOT_FOUND and not absent:
        hint = "check --endpoint: is it Kubeflow Pipelines?"
    error = KfpError(reason, hint, status, passing=status in _PASSING, unclear=status >= 500)
    error.absent = absent
    error.pause_s = min(retry_after_s(answer.headers.get("retry-after", "")) or 0.0, _LONGEST_PAUSE_S)
    return error


def said(answer: httpx.Response) -> str:
    """Return the server's message: the one in its JSON, or the beginning of the body."""
    content = _json(answer)
    if isinstance(content, dict):
        text = str(content.get("message") or content.get("error") or answer.text)
    else:
        text = answer.headers.get("location") or answer.text or answer.reason_phrase
    return " ".join(text.split())[:600]


def _is_api_error(answer: httpx.Response) -> bool:
    """Return whether a response has the form of the API server's errors, with a gRPC code."""
    content = _json(answer)
    return isinstance(content, dict) and isinstance(content.get("code"), int)


def _json(answer: httpx.Response) -> object:
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None
