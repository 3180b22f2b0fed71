import numpy as np
import plotly.graph_objects as go

from experiments.dashboard.single_page import Shown, write_single_page
from experiments.dashboard.training_page import TrainingPage
from sparse_autoencoders.training import TrainingStatus

EVIL = "<script>alert(1)</script>"
CURVE = {"step": [1, 2], "loss": [2.0, 1.0], "explained_variance": [0.1, 0.5], "l0": [8.0, 8.0], "dead": [0.0, 0.25]}


def test_every_string_is_text_and_nothing_is_fetched(tmp_path):
    figure = go.Figure(go.Scatter(x=[1], y=[2], name=EVIL))
    path = write_single_page(tmp_path / "page.html", EVIL, [EVIL], [Shown(EVIL, figure, EVIL)])
    page = path.read_text()
    assert EVIL not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 7
    assert "\\u003cscript" in page
    assert 'src="http' not in page
    assert 'lang="en"' in page
    assert "refresh" not in page.split("<style>")[0]
    assert "Research use only" in page


def test_the_training_page_says_where_it_stands_and_stops_refreshing(tmp_path):
    page = TrainingPage(tmp_path)
    silent = {"seed-0": np.array([0.0, 3.0]), "seed-1": np.array([0.0, 0.1])}
    heard = {"seed-0": np.array([0.3, 0.0]), "seed-1": np.array([0.01, 0.02])}
    status = TrainingStatus(1000, 2000, 54321.0, {"seed-0": CURVE, "seed-1": CURVE}, silent, heard)
    page.write(status)
    text = page.path.read_text()
    assert "At step 1,000 of 2,000; 54,321 tokens a second" in text
    assert "seed-1: explained variance 0.500" in text
    assert "25.0% dead" in text
    assert "seed-0 (1 of 2 silent)" in text
    assert 'http-equiv="refresh" content="60"' in text
    page.write(
        TrainingStatus(2000, 2000, 1.0, {"seed-0": CURVE}, {"seed-0": silent["seed-0"]}, {"seed-0": heard["seed-0"]})
    )
    text = page.path.read_text()
    assert "Finished step 2,000" in text
    assert 'http-equiv="refresh"' not in text
    page.write(
        TrainingStatus(
            700, 2000, 1.0, {"seed-0": CURVE}, {"seed-0": silent["seed-0"]}, {"seed-0": heard["seed-0"]}, finished=True
        )
    )
    text = page.path.read_text()
    assert "Stopped early at step 700 of 2,000, since held-out tokens gained no more; " in text
    assert 'http-equiv="refresh"' not in text
