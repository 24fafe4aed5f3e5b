"""The embedded sample: synthetic satellite tiles of schools and other sites, for a first run without data or network.

`scene` holds the drawing primitives and the camera, `sites` and `surroundings` draw the objects, `tiles` combines them
into a tile and writes class folders.
"""
