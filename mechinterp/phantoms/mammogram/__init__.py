"""Mammograms rendered from physical parameters: compressed breasts in two views, masses, calcifications."""
