"""Sources of tiles and fetching: servers, folders, archives, GeoTIFFs and buckets behind one interface."""
