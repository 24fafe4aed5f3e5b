"""The embedded sample: synthetic satellite tiles of schools and other places, for a first run without data or network.

`scene` draws and photographs, `surroundings` and `sites` say what is where, `tiles` puts a tile together and writes
class folders.
"""

from sat_xception.sample.tiles import DEFAULT_COUNTS, SAMPLE_NAME, SAMPLE_SEED, draw_tile, write_sample

__all__ = ["DEFAULT_COUNTS", "SAMPLE_NAME", "SAMPLE_SEED", "draw_tile", "write_sample"]
