"""Engines that make a store's shards elsewhere than in this process; each is a mapper for :func:`mechinterp.capture`."""
