"""Many tiles: score them, and publish what was found."""
