"""A scene seen from above: flat ground, raised objects that cast shadows, and the camera that takes the picture.

Positions are tile pixels (0.6 m), x to the right and y down. Everything is drawn at twice the size and reduced, for
smooth edges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from sat_xception.sample.palette import CARS, Colour, Palette

__all__ = ["SIDE", "Block", "Frame", "Point", "Scene"]

T = TypeVar("T")
Point = tuple[float, float]

SIDE = 256
_SCALE = 2


@dataclass(frozen=True)
class Frame:
    """Axes (u, v) on the tile, rotated and possibly mirrored.

    Attributes:
        x: Tile position of the origin, in pixels.
        y: Tile position of the origin, in pixels.
        angle: Direction of the u axis, in radians.
        hand: 1, or -1 where the v axis is mirrored.
    """

    x: float
    y: float
    angle: float
    hand: int = 1

    def point(self, u: float, v: float) -> Point:
        """Return the tile position of (u, v)."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return self.x + u * cos - self.hand * v * sin, self.y + u * sin + self.hand * v * cos

    def box(self, u: float, v: float, width: float, depth: float) -> list[Point]:
        """Return the corners of a rectangle around (u, v), `width` along u and `depth` along v."""
        x, y = self.point(u, v)
        cos, sin = math.cos(self.angle) / 2, math.sin(self.angle) / 2
        ax, ay, bx, by = width * cos, width * sin, -self.hand * depth * sin, self.hand * depth * cos
        near, far = (x - bx, y - by), (x + bx, y + by)
        return [
            (near[0] - ax, near[1] - ay),
            (near[0] + ax, near[1] + ay),
            (far[0] + ax, far[1] + ay),
            (far[0] - ax, far[1] - ay),
        ]

    def moved(self, u: float, v: float, turn: float = 0.0) -> Frame:
        """Return a frame with its origin at (u, v) of this one, rotated by `turn` radians."""
        x, y = self.point(u, v)
        return Frame(x, y, self.angle + self.hand * turn, self.hand)


class Block(NamedTuple):
    """The ground plan of a building: a rectangle around (u, v) of some frame."""

    u: float
    v: float
    width: float
    depth: float


@dataclass(frozen=True)
class _Raised:
    height: float
    outline: list[Point]
    faces: list[tuple[list[Point], Colour]]


class Scene:
    """The content of one tile; each method draws at once.

    Attributes:
        palette: Colours of this tile's ground, roofs and plants.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        """Start with bare ground, a random sun direction and a random palette."""
        self._rng = rng
        self._numbers = _numbers(rng)
        self.palette = Palette.draw(rng)
        self._ground = Image.new("RGB", (SIDE * _SCALE, SIDE * _SCALE), self.palette.ground)
        self._draw = ImageDraw.Draw(self._ground)
        self._taken = Image.new("1", (SIDE, SIDE))
        self._draw_taken = ImageDraw.Draw(self._taken)
        self._raised: list[_Raised] = []
        sun, length = rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 1.3)
        self._shadow = (math.cos(sun) * length, math.sin(sun) * length)
        self._light = (-math.cos(sun), -math.sin(sun))

    def chance(self, share: float) -> bool:
        """Return True in `share` of the cases."""
        return next(self._numbers) < share

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * next(self._numbers)

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items, all equally likely."""
        return items[int(next(self._numbers) * len(items))]

    def vary(self, colour: Colour, spread: float = 6) -> Colour:
        """Return the colour with a random change of brightness and hue."""
        shift = self.between(-spread, spread)
        red, green, blue = colour
        return round(red + shift + self.between(-3, 3)), round(green + shift), round(blue + shift + self.between(-3, 3))

    def reserve(self, outline: Sequence[Point]) -> None:
        """Reserve a polygon; `is_free` is False for points in it."""
        self._draw_taken.polygon(outline, fill=1)

    def is_free(self, points: Sequence[Point]) -> bool:
        """Return whether none of these points is reserved; points outside the tile are free."""
        for x, y in points:
            if 0 <= x < SIDE and 0 <= y < SIDE and self._taken.getpixel((int(x), int(y))):
                return False
        return True

    def fill(self, outline: Sequence[Point], colour: Colour) -> None:
        """Paint a polygon on the ground."""
        self._draw.polygon(_scaled(outline), fill=colour)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Paint a line on the ground."""
        self._draw.line(_scaled(points), fill=colour, width=max(1, round(width * _SCALE)), joint="curve")

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """Paint a disc on the ground."""
        self._draw.ellipse(_square(centre, radius), fill=colour)

    def flat_roof(self, frame: Frame, block: Block, colour: Colour, height: float) -> None:
        """Raise a building with a flat roof: a parapet and a few boxes of machinery."""
        u, v, width, depth = block
        outline = frame.box(u, v, width, depth)
        faces = [(outline, _lit(colour, 1.12)), (frame.box(u, v, width - 2.5, depth - 2.5), colour)]
        for _ in range(int(width * depth / self.between(300, 900))):
            a, b = self.between(-0.42, 0.42) * width, self.between(-0.38, 0.38) * depth
            size = self.between(2, 5)
            faces.append((frame.box(u + a + 1, v + b + 1, size, size), _lit(colour, 0.72)))
            faces.append((frame.box(u + a, v + b, size, size), _lit(colour, self.between(0.9, 1.25))))
        self._raised.append(_Raised(height, outline, faces))

    def pitched_roof(self, frame: Frame, block: Block, colour: Colour, height: float) -> None:
        """Raise a building with a ridge along its longer side; the ends are hipped in half of the cases."""
        u, v, width, depth = block
        if depth > width:
            frame, u, v, width, depth = frame.moved(u, v, math.pi / 2), 0.0, 0.0, depth, width
        outline = frame.box(u, v, width, depth)
        hip = depth / 2 if self.chance(0.5) else 0.0
        ridge = [frame.point(u - width / 2 + hip, v), frame.point(u + width / 2 - hip, v)]
        slopes = [[outline[0], outline[1], ridge[1], ridge[0]], [outline[2], outline[3], ridge[0], ridge[1]]]
        if hip:
            slopes += [[outline[1], outline[2], ridge[1]], [outline[3], outline[0], ridge[0]]]
        centre = frame.point(u, v)
        faces = [(slope, _lit(colour, 1 + 0.2 * self._facing(slope[:2], centre))) for slope in slopes]
        self._raised.append(_Raised(height, outline, faces))

    def tree(self, x: float, y: float, radius: float) -> None:
        """Raise a tree: a dark crown, and a lighter one on the sunny side."""
        colour = self.vary(self.palette.leaves, 9)
        lit = (x + self._light[0] * radius * 0.3, y + self._light[1] * radius * 0.3)
        crowns = [(_ring((x, y), radius), _lit(colour, 0.8)), (_ring(lit, radius * 0.6), _lit(colour, 1.12))]
        self._raised.append(_Raised(radius * 1.1, crowns[0][0], crowns))

    def car(self, frame: Frame, u: float, v: float) -> None:
        """Put a car along u."""
        outline = frame.box(u, v, 7, 3.2)
        self._raised.append(_Raised(1.5, outline, [(outline, self.vary(self.pick(CARS), 10))]))

    def wall(self, points: Sequence[Point], colour: Colour) -> None:
        """Put a wall or fence along the points: a light line with its shadow beside it."""
        dx, dy = self._shadow[0] * 1.4, self._shadow[1] * 1.4
        self.line([(x + dx, y + dy) for x, y in points], _lit(self.palette.ground, 0.6), 1.2)
        self.line(points, colour, 1.2)

    def photograph(self) -> Image.Image:
        """Return the tile as a camera saw it: RGB, 256 x 256, with its own texture, shadows, haze, blur and noise."""
        shade = self._texture()
        draw = ImageDraw.Draw(shade)
        for thing in self._raised:
            for part in (0.5, 1.0) if thing.height > 6 else (1.0,):
                dx, dy = self._shadow[0] * thing.height * part, self._shadow[1] * thing.height * part
                draw.polygon(_scaled([(x + dx, y + dy) for x, y in thing.outline]), fill=255)
        depth = self.between(0.4, 0.62)
        bluish = [round(value * depth * band) for band in (0.94, 1, 1.1) for value in range(256)]
        picture = self._ground.copy()
        picture.paste(picture.point(bluish), mask=shade)
        draw = ImageDraw.Draw(picture)
        for thing in sorted(self._raised, key=lambda thing: thing.height):
            for outline, colour in thing.faces:
                draw.polygon(_scaled(outline), fill=colour)
        return self._expose(picture.reduce(_SCALE))

    def _texture(self) -> Image.Image:
        """Return the ground's darkness per pixel, 0 to 90 of 255: blotches of three sizes."""
        texture = Image.fromarray(self._rng.integers(0, 90, (SIDE, SIDE), dtype=np.uint8))
        for cells, share in ((64, self.between(0.4, 0.7)), (12, self.between(0.4, 0.6))):
            blotches = Image.fromarray(self._rng.integers(0, 90, (cells, cells), dtype=np.uint8))
            texture = Image.blend(texture, blotches.resize((SIDE, SIDE), Image.Resampling.BILINEAR), share)
        return texture.resize((SIDE * _SCALE, SIDE * _SCALE), Image.Resampling.NEAREST)

    def _expose(self, picture: Image.Image) -> Image.Image:
        """Return the picture with this camera's blur, colours and noise.

        Saturation, contrast, colour cast and haze are one affine map of the three bands.
        """
        saturation, contrast = self.between(0.75, 1.2), self.between(0.88, 1.12)
        haze = self.between(0, 0.14) if self.chance(0.5) else 0.0
        light = self.between(0.88, 1.12)
        affine: list[float] = []
        for band, veil in enumerate((196, 204, 214)):
            gain = light * self.between(0.96, 1.04) * (1 - haze)
            mix = [(1 - saturation) / 3 + (saturation if band == other else 0) for other in range(3)]
            affine += [*(contrast * gain * share for share in mix), 118 * gain * (1 - contrast) + veil * haze]
        picture = picture.filter(ImageFilter.BoxBlur(self.between(0.05, 0.7))).convert("RGB", tuple(affine))
        noise = self._rng.standard_normal((SIDE, SIDE), dtype=np.float32) * np.float32(self.between(1, 4)) + 128.5
        grain = Image.fromarray(noise.astype(np.uint8))
        return ImageChops.add(picture, Image.merge("RGB", (grain, grain, grain)), offset=-128)

    def _facing(self, eaves: Sequence[Point], centre: Point) -> float:
        dx, dy = (eaves[0][0] + eaves[1][0]) / 2 - centre[0], (eaves[0][1] + eaves[1][1]) / 2 - centre[1]
        return (dx * self._light[0] + dy * self._light[1]) / (math.hypot(dx, dy) or 1)


def _numbers(rng: np.random.Generator) -> Iterator[float]:
    """Yield random numbers in [0, 1), drawn in batches: one NumPy call per number takes longer than the drawing."""
    while True:
        yield from rng.random(1024).tolist()


def _scaled(points: Sequence[Point]) -> list[Point]:
    return [(x * _SCALE, y * _SCALE) for x, y in points]


def _square(centre: Point, radius: float) -> tuple[float, float, float, float]:
    x, y = centre[0] * _SCALE, centre[1] * _SCALE
    return x - radius * _SCALE, y - radius * _SCALE, x + radius * _SCALE, y + radius * _SCALE


_CIRCLE = [(math.cos(step * math.pi / 4), math.sin(step * math.pi / 4)) for step in range(8)]


def _ring(centre: Point, radius: float) -> list[Point]:
    return [(centre[0] + x * radius, centre[1] + y * radius) for x, y in _CIRCLE]


def _lit(colour: Colour, light: float) -> Colour:
    red, green, blue = colour
    return min(255, round(red * light)), min(255, round(green * light)), min(255, round(blue * light))
