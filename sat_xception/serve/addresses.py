"""Addresses that a server listens on, and at which clients reach it."""

from __future__ import annotations

import errno
import ipaddress
import socket

from sat_xception.errors import ConfigError

__all__ = ["bound_socket", "bracketed", "is_loopback", "port_error", "reachable"]


def bound_socket(host: str, port: int, flag: str, host_flag: str = "--host") -> socket.socket:
    """Return a socket that is bound to the port but doesn't listen yet.

    Args:
        host: Name or address to listen on.
        port: Port; 0 picks a free one.
        flag: Flag that sets the port, for the message.
        host_flag: Flag that sets the host, for the message; "" if there is none.

    Raises:
        ConfigError: The port is in use or not permitted, or the host isn't an address of this machine.
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
    """Return the error for a port that can't be bound, with the reason and the flags to change; see `bound_socket`."""
    reason = "in use by another program" if error.errno == errno.EADDRINUSE else f"not available: {error.strerror}"
    other = f" or {host_flag}" if host_flag else ""
    return ConfigError(f"port {port} on {host} is {reason}. Choose another with {flag} (0 picks a free one){other}")


def is_loopback(host: str) -> bool:
    """Return whether the host can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable(host: str) -> str:
    """Return the host for a client on this machine; a wildcard address becomes the loopback address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return bracketed(host)


def bracketed(host: str) -> str:
    """Return a host for use before `:port`, with brackets around IPv6 addresses."""
    return f"[{host}]" if ":" in host else host
