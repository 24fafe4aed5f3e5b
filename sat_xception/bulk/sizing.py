"""Estimates of a plan: time, bytes and money, from measured or published rates and stated prices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sat_xception.bulk.measure import Probe
from sat_xception.bulk.plan_document import Estimate
from sat_xception.errors import ConfigError, faults_of
from sat_xception.model.backbones import BACKBONES, DEFAULT_BACKBONE

__all__ = ["SERVED_SHARE", "Backend", "estimate", "read_backends"]

# Throughput of a GPU behind TensorFlow Serving, relative to the GPU alone: 0.69 for a V100 with ResNet-50
# (blog.mapotofu.org/blogs/serving-benchmark).
SERVED_SHARE = 0.65
# Size of a JPEG tile of 256 pixels from common providers; those of UC Merced have 14 KB.
_USUAL_BYTES = 16_000.0
_PRICE = "list price of the machine on demand, from memory in 2026-11: give yours with --prices"


class Backend(BaseModel):
    """A hardware profile.

    Attributes:
        tiles_per_s: Tiles per second of one machine, by backbone; empty if the rate must be measured.
        usd_per_hour: Price of one machine per hour.
        source: Source of the rates.
        price_source: Source of the price.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiles_per_s: Mapping[str, float] = Field(default_factory=dict)
    usd_per_hour: float = Field(0.0, ge=0)
    source: str = ""
    price_source: str = _PRICE


@dataclass(frozen=True)
class _Machine:
    """A machine with published rates: the fraction of them that it reaches, its price per hour, and the source."""

    share: float
    usd_per_hour: float
    source: str


# Each backbone's entry in the registry has its published rates. Where only a similar device was published, the source
# says so.
_MACHINES = {
    "cpu-core": _Machine(0.9, 0.05, "keras.io/api/applications and timm on CPUs, a core, x 0.9"),
    "t4": _Machine(SERVED_SHARE, 0.55, "PaddleClas, FP16, Xception41"),
    "a10": _Machine(SERVED_SHARE, 1.0, "timm on an RTX 3090, x 0.7"),
    "a100": _Machine(SERVED_SHARE, 3.7, "keras.io/api/applications, batch 32"),
    "h100": _Machine(SERVED_SHARE, 11.0, "timm on an RTX Pro 6000 Max-Q, compiled"),
}


def read_backends(path: Path | None) -> dict[str, Backend]:
    """Return the hardware profiles: the built-in ones, or those of a YAML file instead.

    Raises:
        ConfigError: The file can't be read, or has another form.
    """
    if path is None:
        return _built_in()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        given = {
            name: Backend(**{"source": path.name, "price_source": path.name, **facts})
            for name, facts in content.items()
        }
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError) as error:
        raise ConfigError(f"--prices {path} isn't a mapping of backends: {error}; see docs/bulk.md") from None
    except ValidationError as error:
        first = faults_of(error)[0]
        raise ConfigError(f"--prices {path}: {first.field}: {first.why}; see docs/bulk.md") from None
    return {**_built_in(), **given}


def _built_in() -> dict[str, Backend]:
    here = Backend(source="measured here", price_source="a machine that is yours costs nothing here")
    return {"this-machine": here} | {
        name: Backend(
            tiles_per_s={
                backbone: entry.published_tiles_per_s[name] * machine.share
                for backbone, entry in BACKBONES.items()
                if name in entry.published_tiles_per_s
            },
            usd_per_hour=machine.usd_per_hour,
            source=machine.source,
        )
        for name, machine in _MACHINES.items()
    }


def estimate(tiles: int, probe: Probe, backend: Backend, machines: int) -> Estimate:
    """Return the estimate for scoring tiles.

    Args:
        tiles: Number of tiles.
        probe: Measurements.
        backend: Hardware profile. One without rates is this machine.
        machines: Number of machines, which also share the reading of imagery.
    """
    rate, source = _rate(probe, backend)
    reads = probe.fetched_per_s
    if rate is not None and reads is not None and not backend.tiles_per_s and reads < rate:
        rate, source = reads, f"reading the imagery is slower than scoring, which is {rate:,.1f}"
    size = probe.bytes_per_tile or _USUAL_BYTES
    bytes_source = f"{size / 1e3:,.1f} KB a tile, "
    bytes_source += f"measured on {probe.tiles:,}" if probe.bytes_per_tile else "assumed: no tile was measured"
    whole = None if rate is None else rate * machines
    seconds = None if whole is None else tiles / whole
    return Estimate(
        tiles=tiles,
        machines=machines,
        tiles_per_s=whole,
        rate_source=f"{source}, x {machines}" if machines > 1 else source,
        seconds=seconds,
        bytes=tiles * size,
        bytes_source=bytes_source,
        mbit_per_s=None if whole is None else whole * size * 8 / 1e6,
        usd=None if seconds is None else math.ceil(seconds * machines) / 3600 * backend.usd_per_hour,
        price_source=f"${backend.usd_per_hour:g} an hour each; {backend.price_source}",
    )


def _rate(probe: Probe, backend: Backend) -> tuple[float | None, str]:
    if not backend.tiles_per_s:
        if probe.scored_per_s is None:
            return None, "give --model to have it measured, or a --backend whose rate is published"
        return probe.scored_per_s, "measured here"
    backbone = probe.backbone or DEFAULT_BACKBONE
    if backbone not in backend.tiles_per_s:
        known = ", ".join(sorted(backend.tiles_per_s))
        raise ConfigError(f"no rate of {backbone} is known for this --backend, only of {known}; give it with --prices")
    assumed = "" if probe.backbone else f" of {BACKBONES[backbone].title}, as no --model was given"
    return backend.tiles_per_s[backbone], f"{backend.source}{assumed}"
