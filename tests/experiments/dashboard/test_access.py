"""Without its token nothing of a run is served, and nothing elsewhere can change it."""

import pytest

from experiments.dashboard.access import OWN_HEADER, address, new_token
from experiments.dashboard.app import make_app

PLACES = (
    "/",
    "/images/slice-001.png",
    "/files/notes.json",
    "/_dash-layout",
    "/_dash-dependencies",
    "/assets/style.css",
)


@pytest.fixture
def app(run_dir, token):
    return make_app(run_dir, token=token).server


@pytest.mark.parametrize("place", [*PLACES, "/api/notes", "/_dash-update-component"])
def test_without_the_token_nothing_is_served(app, place, token):
    for client in (app.test_client(), app.test_client()):
        answer = client.post(place, json={}) if place.startswith(("/api", "/_dash-update")) else client.get(place)
        assert answer.status_code == 403
        assert b"need their token" in answer.data
        client.set_cookie("mechinterp", token)
    wrong = app.test_client()
    assert wrong.get(f"{place}?token={token}x").status_code == 403
    assert wrong.get(f"{place}?token=").status_code == 403


def test_the_token_becomes_a_cookie_that_stays_in_this_browser(app, token):
    client = app.test_client()
    answer = client.get(f"/?token={token}")
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert client.get("/").status_code == 200
    assert client.get("/_dash-layout").status_code == 200


def test_two_runs_served_side_by_side_have_cookies_of_their_own(run_dir):
    names = set()
    for token in ("one", "two"):
        answer = make_app(run_dir, token=token).server.test_client().get(f"/?token={token}")
        names.add(answer.headers["Set-Cookie"].partition("=")[0])
    assert len(names) == 2


def test_a_page_elsewhere_cannot_have_anything_written(app, token):
    client = app.test_client()
    client.get(f"/?token={token}")
    asked = {"slug": "overview", "text": "x", "insteadOf": ""}
    assert client.post("/api/notes", json=asked).status_code == 403
    assert client.post("/api/notes", data=b"not json", headers={OWN_HEADER: "1"}).status_code == 400


def test_a_token_is_long_and_new_every_time():
    tokens = {new_token() for _ in range(50)}
    assert len(tokens) == 50
    assert min(map(len, tokens)) >= 32


def test_an_address_names_hosts_of_both_kinds():
    assert address("127.0.0.1", 80, "a") == "http://127.0.0.1:80/?token=a"
    assert address("::1", 80, "a+b") == "http://[::1]:80/?token=a%2Bb"
