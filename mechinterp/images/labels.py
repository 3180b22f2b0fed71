"""What a label says of an image, where one image may show several findings."""

from __future__ import annotations


def words_of(label: str | None, *, several: bool) -> list[str]:
    """Return the labels of one image.

    Of a model whose outputs do not exclude one another several may stand between bars (``Effusion|Mass``), as in public
    tables of chest radiographs.

    Parameters
    ----------
    label
        As the image carries it; ``None`` where nobody said.
    several
        Whether the model's outputs are findings of their own (a sigmoid each), several of which one image may show.

    Examples
    --------
    >>> words_of("Effusion|Mass", several=True)
    ['Effusion', 'Mass']
    >>> words_of("Effusion|Mass", several=False)
    ['Effusion|Mass']

    """
    if label is None:
        return []
    return [word.strip() for word in label.split("|") if word.strip()] if several else [label]
