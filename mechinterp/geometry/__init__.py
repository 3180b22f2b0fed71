"""How operators move and widen the places of cells: the machinery behind :mod:`mechinterp.receptive_field`."""
