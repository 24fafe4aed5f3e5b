"""Client credentials for an endpoint: bearer token file, CA bundle, host name."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from sat_xception.errors import ConfigError

__all__ = ["CA_FILE", "TOKEN_FILE", "Access", "hide"]

# Environment variables of the two files, for steps without flags for them, as in a pipeline's pod.
_TOKEN_FILE_ENV, _CA_FILE_ENV = "SAT_XCEPTION_TOKEN_FILE", "SAT_XCEPTION_CA_FILE"
# Names of the two files in messages.
TOKEN_FILE, CA_FILE = f"--token-file (or ${_TOKEN_FILE_ENV})", f"--ca-file (or ${_CA_FILE_ENV})"
_HIDDEN = "***"


@dataclass(frozen=True)
class Access:
    """Credentials that go with every call.

    Attributes:
        token_file: File with a bearer token. It is read again for each call, since tokens are renewed.
        ca_file: PEM file of the CA certificates to trust. Default: those of this machine.
        host: Host name, if the address is that of a gateway: HTTP Host header, gRPC authority, TLS server name.
    """

    token_file: Path | None = None
    ca_file: Path | None = None
    host: str = ""

    @classmethod
    def find(cls, token_file: Path | None = None, ca_file: Path | None = None, host: str = "") -> Access:
        """Return the given credentials; files that aren't given are taken from the environment variables."""
        return cls(token_file or _named(_TOKEN_FILE_ENV), ca_file or _named(_CA_FILE_ENV), host)

    @property
    def host_name(self) -> str:
        """Return the host without its port, as TLS names it."""
        name, colon, port = self.host.rpartition(":")
        return name if colon and port.isdigit() else self.host

    def token(self) -> str:
        """Return the current token in the file; "" without a file.

        Raises:
            ConfigError: The file can't be read, or doesn't hold one token. The message never holds its content.
        """
        if self.token_file is None:
            return ""
        try:
            token = self.token_file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise ConfigError(f"can't read {TOKEN_FILE} {self.token_file}: {error.strerror}") from None
        except UnicodeDecodeError:
            token = ""
        if not token or not token.isprintable() or " " in token:
            raise ConfigError(
                f"{TOKEN_FILE} {self.token_file} must hold one token of printable ASCII, and nothing else"
            )
        return token

    def ssl_context(self) -> ssl.SSLContext:
        """Return the SSL context that checks the endpoint's certificate.

        Raises:
            ConfigError: The CA file can't be used.
        """
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise self._no_authorities(error) from None

    def authorities(self) -> bytes | None:
        """Return the CA certificates to trust, as PEM; None for gRPC's own.

        Raises:
            ConfigError: The CA file can't be used.
        """
        if self.ca_file is None:
            return None
        self.ssl_context()
        try:
            return self.ca_file.read_bytes()
        except OSError as error:
            raise self._no_authorities(error) from None

    def _no_authorities(self, error: Exception) -> ConfigError:
        return ConfigError(f"{CA_FILE} {self.ca_file} must be a PEM file of certificates: {error}")


def _named(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None


def hide(token: str, text: str) -> str:
    """Mask the token in a text: an endpoint's message may repeat the request."""
    return text.replace(token, _HIDDEN) if token else text
