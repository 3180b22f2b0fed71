"""One file per command, each with a function ``run``; imported only when its command is called."""
