"""The embedded sample: synthetic satellite tiles of schools and other places, for a first run without data or network.

`scene` draws and photographs, `surroundings` and `sites` say what is where, `tiles` puts a tile together and writes
class folders.
"""
