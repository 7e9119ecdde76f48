"""Files of a work folder: models with their records, hashes, progress, times."""
