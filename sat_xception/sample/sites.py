"""Draw the site in the middle of a tile: a school, or a look-alike (a site that resembles a school from above).

A school is a set of long joined wings around a yard, beside a sports ground. Each look-alike shares some of that: long
roofs (farms, flats), a walled yard (works), a large roof (malls), pitches (parks).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sat_xception.sample.palette import ASPHALT, COURTS, PAVING, TURF, YARDS, Colour
from sat_xception.sample.scene import Block, Frame, Point, Scene

__all__ = ["LOOKALIKES", "draw_school"]

_WHITE: Colour = (216, 214, 206)
_TRACKS: tuple[Colour, ...] = ((164, 104, 84), (150, 120, 100), (140, 138, 136))


def draw_school(scene: Scene, frame: Frame, width: float, depth: float) -> None:
    """Draw a school compound: wings around a yard on one part of the site, sport on the other.

    Args:
        scene: Scene to draw into.
        frame: Axes of the site, with its origin in the middle.
        width: Size of the site along u, in pixels.
        depth: Size of the site along v, in pixels.
    """
    _lay_out(scene, frame, width, depth)
    built = depth * scene.between(0.5, 0.6)
    wings = frame.moved(0, -depth / 2 + built / 2 + 3)
    scene.fill(wings.box(0, 0, width * 0.8, built * 0.85), scene.vary(scene.pick(YARDS)))
    colour, height = scene.pick(scene.palette.halls), scene.between(7, 12)
    roof = scene.flat_roof if scene.chance(0.35) else scene.pitched_roof
    plan, deep = scene.pick(_PLANS), min(scene.between(16, 21), built / 3)
    for block in plan(width * scene.between(0.78, 0.9), built - 6, deep):
        roof(wings, block, scene.vary(colour, 5), height)
    sport = frame.moved(0, built / 2 - 1)
    _sport(scene, sport, width - 10, depth - built - 8)
    _parked(scene, wings.moved(width * 0.3, 0), int(scene.between(0, 5)))
    _edge_trees(scene, frame, width, depth, scene.between(0, 26))


def _plan_l(width: float, depth: float, deep: float) -> list[Block]:
    return [Block(0, (deep - depth) / 2, width, deep), Block((deep - width) / 2, deep / 2, deep, depth - deep)]


def _plan_u(width: float, depth: float, deep: float) -> list[Block]:
    return [*_plan_l(width, depth, deep), Block((width - deep) / 2, deep / 2, deep, depth - deep)]


def _plan_h(width: float, depth: float, deep: float) -> list[Block]:
    sides = [Block(side * (width - deep) / 2, 0, deep, depth) for side in (-1, 1)]
    return [*sides, Block(0, 0, width - 2 * deep, deep)]


def _plan_e(width: float, depth: float, deep: float) -> list[Block]:
    return [*_plan_u(width, depth, deep), Block(0, deep / 2, deep, depth - deep)]


def _plan_court(width: float, depth: float, deep: float) -> list[Block]:
    return [*_plan_u(width, depth, deep), Block(0, (depth - deep) / 2, width - 2 * deep - 6, deep)]


_PLANS = (_plan_l, _plan_u, _plan_h, _plan_e, _plan_court)


def _works(scene: Scene, frame: Frame, width: float, depth: float) -> None:
    """Industrial sheds with a yard, lorries and parked cars."""
    _lay_out(scene, frame, width, depth)
    count = int(scene.between(1, 4))
    wide, deep = (width - 8) / count - 6, depth * scene.between(0.4, 0.62)
    for shed in range(count):
        block = Block((shed - (count - 1) / 2) * (wide + 6), -depth / 2 + deep / 2 + 6, wide, deep)
        roof = scene.flat_roof if scene.chance(0.5) else scene.pitched_roof
        roof(frame, block, scene.vary(scene.pick(scene.palette.halls), 8), scene.between(8, 13))
    _car_park(scene, frame.moved(-width * 0.2, depth / 2 - 18), width * 0.5, 26)
    for _ in range(int(scene.between(1, 7))):
        lorry = frame.box(scene.between(0.12, 0.45) * width, depth / 2 - scene.between(12, 30), 5, 20)
        scene.fill(lorry, scene.vary(_WHITE, 20))
    _edge_trees(scene, frame, width, depth, scene.between(0, 12))


def _mall(scene: Scene, frame: Frame, width: float, depth: float) -> None:
    """One large building beside a large car park."""
    _lay_out(scene, frame, width, depth)
    deep = depth * scene.between(0.42, 0.58)
    block = Block(0, -depth / 2 + deep / 2 + 5, width * scene.between(0.65, 0.92), deep)
    scene.flat_roof(frame, block, scene.vary(scene.pick(scene.palette.halls), 8), scene.between(9, 14))
    _car_park(scene, frame.moved(0, deep / 2 + 4), width * 0.9, depth - deep - 18)
    _edge_trees(scene, frame, width, depth, scene.between(0, 26))


def _farm(scene: Scene, frame: Frame, width: float, depth: float) -> None:
    """Long barns side by side, silos, an open yard."""
    _lay_out(scene, frame, width, depth)
    deep, gap = scene.between(12, 18), scene.between(8, 16)
    count = max(2, min(int(scene.between(2, 6)), int(depth / (deep + gap))))
    wide, height = width * scene.between(0.6, 0.85), scene.between(6, 9)
    colour, roof = scene.pick(scene.palette.halls), scene.flat_roof if scene.chance(0.2) else scene.pitched_roof
    for barn in range(count):
        roof(frame, Block(0, (barn - (count - 1) / 2) * (deep + gap), wide, deep), scene.vary(colour, 6), height)
    for silo in range(int(scene.between(0, 5))):
        scene.disc(frame.point(wide / 2 + 7, silo * 11.0 - 20), 4, scene.vary(_WHITE, 12))
    _edge_trees(scene, frame, width, depth, scene.between(0, 20))


def _flats(scene: Scene, frame: Frame, width: float, depth: float) -> None:
    """Detached blocks of flats among trees and parked cars."""
    _lay_out(scene, frame, width, depth)
    colour, height, deep = scene.pick(scene.palette.halls), scene.between(10, 18), scene.between(14, 19)
    count = int(scene.between(2, 4))
    for column in (-1, 1):
        for row in range(count):
            v = (row - (count - 1) / 2) * depth / count
            block = Block(column * width / 4, v, width * scene.between(0.3, 0.4), deep)
            scene.flat_roof(frame, block, scene.vary(colour, 6), height)
    _car_park(scene, frame, 16, depth * 0.8)
    _edge_trees(scene, frame, width, depth, scene.between(10, 40))


def _park(scene: Scene, frame: Frame, width: float, depth: float) -> None:
    """One or two sports grounds without a school, perhaps with a small clubhouse."""
    _lay_out(scene, frame, width, depth)
    if scene.chance(0.5):
        _sport(scene, frame, width - 16, depth - 16)
    else:
        for side in (-1, 1):
            _sport(scene, frame.moved(0, side * depth / 4), width - 12, depth / 2 - 10)
    if scene.chance(0.5):
        clubhouse = Block(scene.between(-0.3, 0.3) * width, depth / 2 - 6, scene.between(16, 30), 11)
        scene.flat_roof(frame, clubhouse, scene.vary(scene.pick(scene.palette.halls)), 5)
    _edge_trees(scene, frame, width, depth, scene.between(4, 40))


def _vacant(scene: Scene, frame: Frame, width: float, depth: float) -> None:
    """An empty plot: bare or overgrown, with a few trees."""
    _lay_out(scene, frame, width, depth)
    for _ in range(int(scene.between(0, 50))):
        place = frame.point(scene.between(-0.48, 0.48) * width, scene.between(-0.48, 0.48) * depth)
        scene.tree(*place, scene.between(2, 5))


LOOKALIKES: tuple[Callable[[Scene, Frame, float, float], None], ...] = (_works, _mall, _farm, _flats, _park, _vacant)


def _lay_out(scene: Scene, frame: Frame, width: float, depth: float) -> None:
    """Paint the site's ground; most sites have a wall with a gate and a path."""
    ground = scene.pick((scene.palette.grass, scene.palette.earth, scene.pick(PAVING)))
    scene.fill(frame.box(0, 0, width, depth), scene.vary(ground))
    if scene.chance(0.6):
        gate = scene.between(-0.3, 0.3) * width
        left, right, low, high = -width / 2, width / 2, -depth / 2, depth / 2
        corners = ((gate + 5, low), (right, low), (right, high), (left, high), (left, low), (gate - 5, low))
        scene.line([frame.point(gate, low - 6), frame.point(gate, low + 16)], scene.vary(scene.pick(PAVING)), 5)
        scene.wall([frame.point(*corner) for corner in corners], scene.vary(_WHITE, 24))


def _sport(scene: Scene, frame: Frame, width: float, depth: float) -> None:
    """Draw a sports ground around the frame's origin: a marked pitch, a running oval or courts."""
    place = scene.pick((_pitch, _pitch, _oval, _courts))
    place(scene, frame, width, depth)


def _pitch(scene: Scene, frame: Frame, width: float, depth: float) -> None:
    width = min(width, depth * scene.between(1.4, 2.1))
    middle = frame.moved(scene.between(-6, 6), 0)
    surface = scene.pick((*TURF, scene.palette.grass, scene.palette.earth))
    scene.fill(middle.box(0, 0, width, depth), scene.vary(surface))
    line = scene.vary(_WHITE, 10)
    _outline(scene, middle.box(0, 0, width - 6, depth - 6), line)
    scene.line([middle.point(0, -depth / 2 + 3), middle.point(0, depth / 2 - 3)], line, 1.2)
    _outline(scene, _circle(middle, depth * 0.14), line)
    for side in (-1, 1):
        _outline(scene, middle.box(side * (width * 0.44 - 3), 0, width * 0.12, depth * 0.45), line)


def _oval(scene: Scene, frame: Frame, width: float, depth: float) -> None:
    width = min(width, depth * scene.between(1.5, 2))
    scene.fill(_stadium(frame, width, depth), scene.vary(scene.pick((*_TRACKS, scene.palette.earth))))
    scene.fill(_stadium(frame, width - 14, depth - 14), scene.vary(scene.pick(TURF)))
    _outline(scene, _stadium(frame, width - 7, depth - 7), scene.vary(_WHITE), 0.7)


def _courts(scene: Scene, frame: Frame, width: float, depth: float) -> None:
    colour, line = scene.pick(COURTS), scene.vary(_WHITE, 8)
    wide = depth * scene.between(0.55, 0.7)
    count = max(1, min(int(width / (wide + 4)), int(scene.between(1, 4))))
    for court in range(count):
        middle = frame.moved((court - (count - 1) / 2) * (wide + 4), 0)
        scene.fill(middle.box(0, 0, wide, depth), scene.vary(colour))
        _outline(scene, middle.box(0, 0, wide - 5, depth - 5), line)
        scene.line([middle.point(2.5 - wide / 2, 0), middle.point(wide / 2 - 2.5, 0)], line, 1.2)
        _outline(scene, _circle(middle, wide * 0.15), line)


def _outline(scene: Scene, points: list[Point], colour: Colour, width: float = 1.2) -> None:
    scene.line([*points, points[0]], colour, width)


def _circle(frame: Frame, radius: float) -> list[Point]:
    turns = [step * math.pi / 8 for step in range(16)]
    return [frame.point(radius * math.cos(turn), radius * math.sin(turn)) for turn in turns]


def _stadium(frame: Frame, width: float, depth: float) -> list[Point]:
    """Return the outline of two half circles joined by straight lines, `width` by `depth` overall."""
    radius, straight = depth / 2, (width - depth) / 2
    turns = [(step + 0.5) * math.pi / 12 for step in range(24)]
    return [
        frame.point(math.copysign(straight, math.cos(turn)) + radius * math.cos(turn), radius * math.sin(turn))
        for turn in turns
    ]


def _parked(scene: Scene, frame: Frame, count: int) -> None:
    for place in range(count):
        scene.car(frame, 0, place * 5.0)


def _car_park(scene: Scene, frame: Frame, width: float, depth: float) -> None:
    scene.fill(frame.box(0, 0, width, depth), scene.vary(scene.pick(ASPHALT)))
    used = scene.between(0.15, 0.85)
    for row in range(max(1, int(depth / 17))):
        across = frame.moved(0, row * 17 + 8 - depth / 2, math.pi / 2)
        for place in range(int(width / 4.6)):
            if scene.chance(used):
                scene.car(across, 0, width / 2 - (place + 0.5) * 4.6)


def _edge_trees(scene: Scene, frame: Frame, width: float, depth: float, count: float) -> None:
    for _ in range(int(count)):
        along, side = scene.between(-0.5, 0.5), scene.pick((-0.47, 0.47))
        u, v = (along * width, side * depth) if scene.chance(0.5) else (side * width, along * depth)
        scene.tree(*frame.point(u, v), scene.between(2.5, 5))
