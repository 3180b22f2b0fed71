"""Stimuli of visual experiments with known content, and simulated voxels that see them."""
