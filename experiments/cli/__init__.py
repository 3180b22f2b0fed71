"""The command line; ``entry.main`` is the console script."""
