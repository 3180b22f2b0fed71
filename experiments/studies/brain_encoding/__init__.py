"""The brain-encoding study: voxel responses of a visual area, explained by what a model sees."""
