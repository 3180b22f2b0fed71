"""Case studies: each a config plus a short module that answers one question with the toolkit."""
