"""Acting on what a circuit shows: find the shortcut, remove it, and measure what that changed."""
