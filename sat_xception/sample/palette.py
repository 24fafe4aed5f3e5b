"""Colours of the sample's tiles, one set for both classes so that a tile's colours say little about its label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ASPHALT", "CARS", "COURTS", "CROPS", "PAVING", "TURF", "WATER", "YARDS", "Colour", "Palette"]

Colour = tuple[int, int, int]

_GRASS: tuple[Colour, ...] = ((98, 118, 70), (120, 130, 84), (86, 106, 64), (136, 136, 94), (110, 116, 74))
_EARTH: tuple[Colour, ...] = ((160, 140, 110), (184, 164, 130), (148, 122, 94), (194, 178, 148), (166, 124, 92))
ASPHALT: tuple[Colour, ...] = ((108, 108, 110), (128, 126, 124), (92, 92, 96), (146, 142, 136))
_LEAVES: tuple[Colour, ...] = ((56, 78, 46), (68, 90, 52), (48, 68, 44), (80, 94, 56), (84, 88, 62))
_HOUSES: tuple[Colour, ...] = (
    (142, 140, 140),
    (100, 102, 106),
    (124, 102, 86),
    (160, 96, 76),
    (150, 130, 112),
    (180, 180, 178),
)
_HALLS: tuple[Colour, ...] = (
    (88, 122, 166),
    (152, 92, 66),
    (220, 218, 210),
    (174, 84, 62),
    (182, 190, 196),
    (104, 134, 122),
)
CROPS: tuple[Colour, ...] = (*_GRASS, *_EARTH, (150, 146, 92), (74, 100, 56), (176, 162, 108))
PAVING: tuple[Colour, ...] = (*ASPHALT, (178, 174, 164), (162, 160, 154), *_EARTH[:3])
COURTS: tuple[Colour, ...] = ((78, 122, 92), (84, 116, 156), (166, 92, 72), (124, 122, 120))
TURF: tuple[Colour, ...] = ((84, 124, 62), (76, 112, 60), (104, 134, 74))
YARDS: tuple[Colour, ...] = ((190, 184, 170), (174, 170, 162), (204, 186, 154))
WATER: tuple[Colour, ...] = ((62, 86, 92), (80, 98, 86), (52, 72, 90), (112, 112, 90))
CARS: tuple[Colour, ...] = (
    (226, 226, 222),
    (168, 170, 172),
    (54, 56, 60),
    (118, 120, 124),
    (140, 50, 46),
    (58, 82, 122),
)


@dataclass(frozen=True)
class Palette:
    """Colours of one tile.

    Attributes:
        ground: Bare ground between objects.
        grass: Lawns and pitches.
        earth: Yards and tracks.
        road: Streets.
        leaves: Trees.
        houses: Roofs of houses; common colours are repeated.
        halls: Roofs of large buildings: sheet metal and tiles.
    """

    ground: Colour
    grass: Colour
    earth: Colour
    road: Colour
    leaves: Colour
    houses: tuple[Colour, ...]
    halls: tuple[Colour, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Palette:
        """Return a random palette."""

        def pick(colours: tuple[Colour, ...]) -> Colour:
            return colours[int(rng.integers(len(colours)))]

        grass, earth = pick(_GRASS), pick(_EARTH)
        common = pick(_HOUSES)
        return cls(
            ground=grass if rng.random() < 0.5 else earth,
            grass=grass,
            earth=earth,
            road=pick(ASPHALT) if rng.random() < 0.75 else earth,
            leaves=pick(_LEAVES),
            houses=(common, common, *(pick(_HOUSES) for _ in range(3))),
            halls=_HALLS,
        )
