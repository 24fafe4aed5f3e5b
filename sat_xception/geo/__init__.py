"""Places: tiles of the Web Mercator grid, and vector layers."""
