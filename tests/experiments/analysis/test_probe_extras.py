"""What a page of probes refuses to add: confounders of one subject or of classes, features of a site that is not there."""

from types import SimpleNamespace

import pandas as pd
import pytest

from experiments.analysis.probe_extras import check_confounders, confounders_of, few_features_of
from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import ConfigError
from sparse_autoencoders import SparseAutoencoder


def a_store(are_patients=True):
    return SimpleNamespace(
        images=pd.DataFrame({"group": ["a", "b"]}),
        manifest=SimpleNamespace(images={"units_are_patients": are_patients}),
        sites=("stages.1",),
    )


def test_parts_of_one_subject_have_no_confounders():
    with pytest.raises(ConfigError, match="parts of one subject"):
        check_confounders(a_store(are_patients=False), AttributeTable.empty(2), "area", ["age"])


def test_classes_are_not_one_number_an_image():
    best = SimpleNamespace(kind="categorical", attribute="maker")
    with pytest.raises(ConfigError, match="'maker' is read as classes"):
        confounders_of(best, a_store(), AttributeTable.empty(2), ["age"])


def test_an_autoencoder_of_another_site_is_refused_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(SparseAutoencoder, "load", lambda folder: SimpleNamespace(site="stages.2"))
    with pytest.raises(ConfigError, match=r"reads 'stages\.2', which the store does not hold"):
        few_features_of(tmp_path, a_store(), AttributeTable.empty(2), "area")
