"""The intervention desk: pick an image, move features or channels, see what the model then answers."""
