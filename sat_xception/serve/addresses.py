"""Addresses a server listens on and clients reach it at."""

from __future__ import annotations

import errno
import ipaddress
import socket

from sat_xception.errors import ConfigError

__all__ = ["bound_socket", "bracketed", "is_loopback", "port_error", "reachable"]


def bound_socket(host: str, port: int, flag: str, host_flag: str = "--host") -> socket.socket:
    """Return a socket that has the port but doesn't listen yet.

    Args:
        host: Name or address to listen on.
        port: The port; 0 is any free one.
        flag: Flag that sets the port.
        host_flag: Flag that sets the host; "" when there is none.

    Raises:
        ConfigError: The port is taken or forbidden, or the host is none of this machine's; it names the flag to change.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(
            f"--host {host} is not an address: {error.strerror}. Use 127.0.0.1, or 0.0.0.0 for every interface"
        ) from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise port_error(host, port, flag, error, host_flag) from None
    return bound


def port_error(host: str, port: int, flag: str, error: OSError, host_flag: str = "--host") -> ConfigError:
    """Return the error that says why a port can't be had, and which flags change it; see `bound_socket`."""
    reason = "in use by another program" if error.errno == errno.EADDRINUSE else f"not to be had: {error.strerror}"
    other = f" or {host_flag}" if host_flag else ""
    return ConfigError(f"port {port} on {host} is {reason}. Choose another with {flag} (0 picks a free one){other}")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable(host: str) -> str:
    """Return the host as a client on this machine writes it; a wildcard address is reached over loopback."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return bracketed(host)


def bracketed(host: str) -> str:
    """Return a host as it stands before `:port`; IPv6 goes in brackets."""
    return f"[{host}]" if ":" in host else host
