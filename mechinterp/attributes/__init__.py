"""Physical quantities of images: their table, and how they are measured."""
