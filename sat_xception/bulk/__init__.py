"""Score all tiles of an area: plan them, score them shard by shard, prove that none is lost."""
