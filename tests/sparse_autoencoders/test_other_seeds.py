"""Which autoencoders count as the same from another seed: what recurs is asked among those alone."""

from dataclasses import replace

import pytest
import torch

from sparse_autoencoders import SparseAutoencoder
from sparse_autoencoders.other_seeds import of_other_seeds

HOW = {"arch": "topk", "k": 4, "prefixes": (0.5, 1.0), "device": "cpu", "checkpoint_minutes": 5.0}


def made(seed, site="late", width=6, **changed):
    generator = torch.Generator().manual_seed(seed or 0)
    rows = torch.nn.functional.normalize(torch.randn(width, 3, generator=generator), dim=1)
    provenance = {
        "seed": seed,
        "store_hash": "s",
        "training_images": ["a", "b"],
        "config": {**HOW, "seeds": [seed]},
        **changed,
    }
    zeros = torch.zeros(width), torch.zeros(3)
    return SparseAutoencoder(site, "topk", rows.T.contiguous(), zeros[0], rows, zeros[1], k=2, provenance=provenance)


def test_another_seed_of_the_same_settings_counts_once():
    first, second, third, again = made(0), made(1), made(2), made(1)
    assert of_other_seeds(first, [first, second, again, third]) == [second, third]


@pytest.mark.parametrize(
    "other",
    [
        made(1, config={**HOW, "k": 8, "seeds": [1]}),
        made(1, config={**HOW, "arch": "batchtopk", "seeds": [1]}),
        made(1, store_hash="another"),
        made(1, training_images=["a"]),
        made(1, site="early"),
        made(1, width=9),
        made(0),
        replace(made(1), provenance={}),
    ],
)
def test_other_settings_tokens_or_the_same_seed_are_no_other_seed(other):
    assert of_other_seeds(made(0), [other]) == []
    assert of_other_seeds(replace(made(0), provenance={}), [other]) == []


def test_where_it_was_computed_is_no_setting_and_a_saved_one_is_known_again(tmp_path):
    there = made(1, config={**HOW, "device": "cuda", "checkpoint_minutes": 1.0, "seeds": [1]})
    there.save(tmp_path)
    saved = SparseAutoencoder.load(tmp_path)
    assert of_other_seeds(made(0), [saved]) == [saved]
    assert of_other_seeds(saved, [made(0)])[0].provenance["seed"] == 0
