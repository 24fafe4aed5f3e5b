"""Turn WKB into geometries row by row: curves become lines, and what can't be read has a reason instead of a geometry.

GEOS reads neither curves nor surfaces as Shapely has them, and one bad geometry ends its reading of all.
Format: OGC 06-103r4 (Simple Features), 8.2; curves and surfaces: ISO/IEC 13249-3; flags of EWKB: PostGIS.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import shapely

__all__ = ["parse_wkb"]

Geometries = npt.NDArray[np.object_]
Coordinates = npt.NDArray[np.float64]

_POINT, _LINE, _POLYGON, _MULTI_POINT, _MULTI_LINE, _MULTI_POLYGON, _COLLECTION = range(1, 8)
_CIRCULAR, _COMPOUND, _CURVE_POLYGON, _MULTI_CURVE, _MULTI_SURFACE = range(8, 13)
_POLYHEDRAL, _TIN, _TRIANGLE = range(15, 18)
_Z, _M, _SRID = 0x80000000, 0x40000000, 0x20000000
# A chord of 4 degrees leaves its arc by 0.06 % of the radius.
_ARC_STEP = np.radians(4.0)
_MAX_DEPTH = 32
# What GEOS says, and what we say instead.
_REASONS = (
    ("closed linestring", "has a ring that isn't closed"),
    ("must contain 0 or >1 elements", "has a line of one point"),
    ("Invalid number of points in LinearRing", "has a ring of fewer than four points"),
    ("Unknown WKB type", "has a geometry of a type that isn't known"),
)


def parse_wkb(values: Sequence[bytes | None]) -> tuple[Geometries, npt.NDArray[np.object_]]:
    """Return geometries `object [n]`, None for missing ones, and why each can't be read; "" if it can.

    Args:
        values: WKB or EWKB of each row; None of a row without a geometry.
    """
    content = np.empty(len(values), dtype=object)
    content[:] = values
    ours = np.array([_is_ours(value) for value in values], dtype=bool)
    found: Geometries = np.empty(len(values), dtype=object)
    found[~ours] = shapely.from_wkb(content[~ours], on_invalid="ignore")
    reasons = np.full(len(values), "", dtype=object)
    for row in np.flatnonzero(ours).tolist():
        try:
            found[row] = _Reader(values[row] or b"").geometry()
        except (struct.error, ValueError, IndexError, shapely.errors.ShapelyError) as error:
            reasons[row] = _reason(error)
    missing = shapely.is_missing(found) & ~ours & np.array([value is not None for value in values], dtype=bool)
    for row in np.flatnonzero(missing).tolist():
        try:
            shapely.from_wkb(values[row])
        except shapely.errors.ShapelyError as error:
            reasons[row] = _reason(error)
    return found, reasons


def _reason(error: Exception) -> str:
    message = str(error)
    return next(
        (ours for theirs, ours in _REASONS if theirs in message), f"has a geometry that can't be read ({message})"
    )


def _is_ours(value: bytes | None) -> bool:
    """Return whether a geometry is, or may hold, a curve or a surface."""
    if value is None or len(value) < 5:
        return False
    kind = int.from_bytes(value[1:5], "little" if value[0] else "big") & 0x1FFFFFFF
    return kind % 1000 >= _COLLECTION


class _Reader:
    """Reads one geometry; heights and measures are left out."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at, self._depth = content, 0, 0

    def geometry(self) -> shapely.Geometry:
        """Return the geometry that begins here."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError(f"collections in collections, more than {_MAX_DEPTH} deep")
        order, kind, axes = self._header()
        if kind == _POINT:
            made = shapely.Point(self._coordinates(order, axes, 1)[0])
        elif kind in (_LINE, _CIRCULAR, _COMPOUND):
            made = shapely.LineString(self._curve(order, kind, axes))
        elif kind in (_POLYGON, _TRIANGLE):
            rings = [self._coordinates(order, axes, self._count(order)) for _ in range(self._count(order))]
            made = _polygon(rings)
        elif kind == _CURVE_POLYGON:
            made = _polygon([self._curve(*self._header()) for _ in range(self._count(order))])
        elif kind in (*range(_MULTI_POINT, _COLLECTION + 1), _MULTI_CURVE, _MULTI_SURFACE, _POLYHEDRAL, _TIN):
            made = _together(kind, [self.geometry() for _ in range(self._count(order))])
        else:
            raise ValueError(f"Unknown WKB type {kind}")
        self._depth -= 1
        return made

    def _header(self) -> tuple[str, int, int]:
        """Return the byte order, the kind of the geometry and the number of its axes."""
        order = "<" if self._content[self._at] else ">"
        (code,) = struct.unpack_from(f"{order}I", self._content, self._at + 1)
        self._at += 9 if code & _SRID else 5
        thousands, kind = divmod(code & 0x1FFFFFFF, 1000)
        return order, kind, 2 + bool(code & _Z or thousands in (1, 3)) + bool(code & _M or thousands in (2, 3))

    def _count(self, order: str) -> int:
        (count,) = struct.unpack_from(f"{order}I", self._content, self._at)
        self._at += 4
        # Each part takes at least four bytes.
        if count > (len(self._content) - self._at) // 4:
            raise ValueError(f"it ends before the last of its {count:,} parts")
        return int(count)

    def _coordinates(self, order: str, axes: int, count: int) -> Coordinates:
        flat = np.frombuffer(self._content, f"{order}f8", count * axes, self._at)
        self._at += count * axes * 8
        points: Coordinates = flat.reshape(count, axes)[:, :2].astype(np.float64)
        return points

    def _curve(self, order: str, kind: int, axes: int) -> Coordinates:
        if kind == _COMPOUND:
            parts = [self._curve(*self._header()) for _ in range(self._count(order))]
            return np.concatenate([*parts[:1], *(part[1:] for part in parts[1:])]) if parts else np.empty((0, 2))
        points = self._coordinates(order, axes, self._count(order))
        if kind != _CIRCULAR:
            return points
        if len(points) % 2 == 0 and len(points):
            raise ValueError(f"an arc of {len(points)} points")
        arcs = [_arc(*points[first : first + 3]) for first in range(0, len(points) - 2, 2)]
        return np.concatenate([points[:1], *arcs])


def _arc(begin: Coordinates, middle: Coordinates, end: Coordinates) -> Coordinates:
    """Return the points after the first of an arc through three points; a circle where it ends where it begins."""
    if np.array_equal(begin, end):
        centre, turn = (begin + middle) / 2, 2 * np.pi
    else:
        (ax, ay), (bx, by) = middle - begin, end - begin
        cross = 2 * (ax * by - ay * bx)
        if not abs(cross) > 1e-12 * (abs(ax) + abs(ay)) * (abs(bx) + abs(by)):
            return np.stack([middle, end])  # on one line
        a, b = ax * ax + ay * ay, bx * bx + by * by
        centre = begin + np.array([by * a - ay * b, ax * b - bx * a]) / cross
        angles = [np.arctan2(*(point - centre)[::-1]) for point in (begin, middle, end)]
        turn = (angles[2] - angles[0]) % (2 * np.pi)
        if (angles[1] - angles[0]) % (2 * np.pi) > turn:
            turn -= 2 * np.pi
    first = np.arctan2(*(begin - centre)[::-1])
    steps = first + turn * np.arange(1, (count := max(2, int(np.ceil(abs(turn) / _ARC_STEP)))) + 1) / count
    points = centre + np.hypot(*(begin - centre)) * np.stack([np.cos(steps), np.sin(steps)], axis=1)
    points[-1] = end
    return np.asarray(points, dtype=np.float64)


def _polygon(rings: list[Coordinates]) -> shapely.Geometry:
    for ring in rings:
        if len(ring) and not np.array_equal(ring[0], ring[-1]):
            raise ValueError("Points of LinearRing do not form a closed linestring")
    return shapely.Polygon(rings[0], rings[1:]) if rings else shapely.Polygon()


def _together(kind: int, parts: list[shapely.Geometry]) -> shapely.Geometry:
    if kind == _MULTI_POINT:
        return shapely.MultiPoint(parts)
    if kind in (_MULTI_LINE, _MULTI_CURVE):
        return shapely.MultiLineString(parts)
    if kind == _COLLECTION:
        return shapely.GeometryCollection(parts)
    return shapely.MultiPolygon(parts)
