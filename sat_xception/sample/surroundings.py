"""Draw the surroundings of a site, or of a tile without one: streets, houses, fields, woods, bare land, a river.

Both classes get the same kinds of surroundings, so a model can't recognise a school by its neighbourhood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from sat_xception.sample.palette import CROPS, WATER
from sat_xception.sample.scene import SIDE, Block, Frame, Point, Scene

__all__ = ["surround"]

# Distance from a site, at most 16 pixels off the middle, to the farthest corner of the tile.
_REACH = 205.0


@dataclass(frozen=True)
class _Theme:
    """A kind of neighbourhood.

    Attributes:
        uses: Land uses of its blocks; common uses are repeated.
        block: Smallest and largest side of a block, in pixels.
        house: Smallest and largest side of a house.
        gap: Distance between houses.
        built: Share of the plots with a house.
        trees: Number of trees per plot.
        streets: Share of the lines between blocks that are streets.
    """

    uses: tuple[str, ...]
    block: tuple[float, float]
    house: tuple[float, float] = (12, 18)
    gap: tuple[float, float] = (3, 6)
    built: float = 0.9
    trees: float = 0.4
    streets: float = 1.0


_TOWN = _Theme(("houses",) * 9 + ("bare",), block=(50, 80), house=(11, 17), gap=(1, 4), built=0.95, trees=0.25)
_SUBURB = _Theme(("houses",) * 7 + ("woods", "bare"), block=(60, 100), house=(14, 20), gap=(6, 12), trees=1.3)
_VILLAGE = _Theme(
    ("houses", "houses", "field", "bare"), block=(60, 100), gap=(8, 20), built=0.7, trees=0.9, streets=0.8
)
_FARMLAND = _Theme(("field",) * 6 + ("houses", "woods"), block=(70, 130), gap=(10, 24), built=0.4, streets=0.35)
_FOREST = _Theme(("woods",) * 5 + ("field", "bare"), block=(60, 120), streets=0.3)
_DESERT = _Theme(("bare",) * 5 + ("houses",), block=(60, 120), gap=(8, 24), built=0.5, trees=0.15, streets=0.4)
_SETTLED = (_TOWN, _SUBURB, _VILLAGE)
_THEMES = (*_SETTLED, _FARMLAND, _FOREST, _DESERT)


def surround(scene: Scene, frame: Frame, room: tuple[float, float] | None) -> None:
    """Draw a random neighbourhood over the whole tile.

    Args:
        scene: Scene to draw into.
        frame: Axes of the street grid; its origin is the middle of the site.
        room: Width and depth of the site at the origin, which becomes one block and is left empty; None for no site.
    """
    # Large sites are more likely to be in settlements.
    theme = scene.pick(_SETTLED if room and scene.chance(0.4) else _THEMES)
    margin = scene.between(4, 9)
    columns = _grid(scene, theme, room[0] / 2 + margin if room else None)
    rows = _grid(scene, theme, room[1] / 2 + margin if room else None)
    if room:
        scene.reserve(frame.box(0, 0, *room))
    blocks = []
    for left, right in pairwise(columns):
        for top, bottom in pairwise(rows):
            use, middle = scene.pick(theme.uses), frame.point((left + right) / 2, (top + bottom) / 2)
            if math.dist(middle, (SIDE / 2, SIDE / 2)) > SIDE * 0.72 + math.hypot(right - left, bottom - top) / 2:
                continue
            blocks.append((use, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top))
            _lay(scene, frame, *blocks[-1])
    if scene.chance(0.14):
        _river(scene, frame, max(room) / 2 if room else 0)
    _streets(scene, frame, theme, columns, rows)
    for use, u, v, width, depth in blocks:
        if use == "houses":
            _houses(scene, frame.moved(u, v), theme, width - 10, depth - 10)
        else:
            _plants(scene, frame.moved(u, v), use, width, depth)


def _grid(scene: Scene, theme: _Theme, half: float | None) -> list[float]:
    first = scene.between(*theme.block) / 2 if half is None else half
    shift = scene.between(-40, 40) if half is None else 0.0
    lines = [-first + shift, first + shift]
    while lines[-1] < _REACH:
        lines.append(lines[-1] + scene.between(*theme.block))
    while lines[0] > -_REACH:
        lines.insert(0, lines[0] - scene.between(*theme.block))
    return lines


def _lay(scene: Scene, frame: Frame, use: str, u: float, v: float, width: float, depth: float) -> None:
    palette = scene.palette
    colours = {"houses": palette.ground, "woods": palette.leaves, "bare": palette.earth, "field": scene.pick(CROPS)}
    colour = scene.vary(colours[use], 7)
    scene.fill(frame.box(u, v, width, depth), colour)
    if use == "field" and scene.chance(0.7):
        furrow, step = scene.vary(colour, 14), scene.between(3, 7)
        for row in range(int(depth / step)):
            across = v - depth / 2 + (row + 0.5) * step
            scene.line([frame.point(u - width / 2, across), frame.point(u + width / 2, across)], furrow, step / 3)


def _river(scene: Scene, frame: Frame, clear: float) -> None:
    width = scene.between(12, 40)
    offset = (clear + width / 2 + scene.between(6, 30)) * scene.pick((-1, 1)) if clear else scene.between(-60, 60)
    wave, phase, bend = scene.between(50, 120), scene.between(0, 6), scene.between(2, 8 if clear else 22)
    axes = frame.moved(0, 0, scene.pick((0, math.pi / 2)))
    course = [(step * 10.0, offset + bend * math.sin(step * 10 / wave + phase)) for step in range(-22, 23)]
    points = [axes.point(*place) for place in course]
    scene.line(points, scene.vary(scene.palette.earth), width + 5)
    scene.line(points, scene.vary(scene.pick(WATER)), width)
    for side in (-1, 1):
        bank = [axes.point(u, v + side * (width / 2 + 3)) for u, v in course]
        scene.reserve([*points, *reversed(bank)])


def _streets(scene: Scene, frame: Frame, theme: _Theme, columns: list[float], rows: list[float]) -> None:
    width = scene.between(5, 10)
    axes = ((frame, rows), (frame.moved(0, 0, math.pi / 2), [-column for column in columns]))
    for along, lines in axes:
        for line in lines:
            if not scene.chance(theme.streets):
                continue
            wide = width * (2.2 if scene.chance(0.08) else 1)
            ends = [along.point(-_REACH, line), along.point(_REACH, line)]
            scene.line(ends, scene.vary(scene.palette.road, 4), wide)
            if wide > 11:
                scene.line(ends, (206, 204, 196), 0.6)
            scene.reserve(along.box(0, line, 2 * _REACH, wide + 1))
            for _ in range(int(scene.between(0, 5))):
                scene.car(along, scene.between(-_REACH, _REACH), line + scene.pick((-0.22, 0.22)) * wide)


def _houses(scene: Scene, frame: Frame, theme: _Theme, width: float, depth: float) -> None:
    v = -depth / 2
    while v < depth / 2 - 6:
        deep = scene.between(*theme.house)
        u = -width / 2
        while u < width / 2 - 6:
            wide = scene.between(*theme.house)
            gap = scene.between(*theme.gap)
            place = frame.moved(u + wide / 2, v + deep / 2, scene.between(-0.05, 0.05))
            if _is_in_view((place.x, place.y)) and scene.is_free(place.box(0, 0, wide + 1, deep + 1)):
                if scene.chance(theme.built):
                    roof = scene.pitched_roof if scene.chance(0.7) else scene.flat_roof
                    colour = scene.vary(scene.pick(scene.palette.houses), 12)
                    roof(place, Block(0, 0, wide, deep * scene.between(0.75, 1)), colour, scene.between(4, 8))
                for _ in range(int(scene.between(0, 1 + 2 * theme.trees))):
                    _tree(scene, place, wide / 2 + gap / 2, scene.between(-deep, deep) / 2, 4.5)
            u += wide + gap
        v += deep + scene.between(*theme.gap)


def _plants(scene: Scene, frame: Frame, use: str, width: float, depth: float) -> None:
    room, largest = (90.0, 7.5) if use == "woods" else (scene.between(700, 8000), 4.0)
    for _ in range(int(width * depth / room)):
        _tree(scene, frame, scene.between(-0.5, 0.5) * width, scene.between(-0.5, 0.5) * depth, largest)


def _tree(scene: Scene, frame: Frame, u: float, v: float, largest: float) -> None:
    place = frame.point(u, v)
    if _is_in_view(place) and scene.is_free([place]):
        scene.tree(*place, scene.between(0.45, 1) * largest)


def _is_in_view(place: Point) -> bool:
    return -20 < place[0] < SIDE + 20 and -20 < place[1] < SIDE + 20
