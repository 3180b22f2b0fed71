"""Models whose circuit is known because their weights were set by hand; circuit finding is scored on them.

Nothing that finds circuits imports from here: a finder sees the module and images only.
"""
