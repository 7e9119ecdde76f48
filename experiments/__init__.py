"""The benchmark: flags, folders, stages and reports around the library."""
