"""Architectures, one per file, as SAELens classes; importing one imports SAELens (six seconds)."""
