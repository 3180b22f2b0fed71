"""One module per page; each has ``build(view) -> Page``, a pure function of the run's results."""
