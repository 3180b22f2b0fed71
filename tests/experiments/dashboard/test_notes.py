"""Notes are kept whole, never lost unseen, and shown as text."""

import json

import pytest

from experiments.dashboard.access import OWN_HEADER
from experiments.dashboard.app import make_app
from experiments.dashboard.notes import LONGEST, Notes
from experiments.dashboard.page import Files, Text, Widget, walk
from experiments.dashboard.site import build_pages
from mechinterp.errors import ConfigError, DamagedFileError, DiskError

ATTACK = "</textarea><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


def test_a_note_is_written_read_changed_and_removed(tmp_path):
    notes = Notes(tmp_path)
    assert notes.read() == {}
    assert notes.write("feature/3", "  a vessel \n", instead_of="").text == "a vessel"
    assert Notes(tmp_path).of("feature/3").text == "a vessel"
    assert notes.write("feature/3", "the disc", instead_of="a vessel").text == "the disc"
    assert notes.write("feature/3", "the disc", instead_of="a vessel").text == "the disc"  # asked twice
    assert notes.write("feature/3", "", instead_of="the disc") is None
    assert notes.read() == {}
    assert [p.name for p in tmp_path.iterdir()] == ["notes.json"]


def test_a_note_of_another_window_is_not_lost(tmp_path):
    notes = Notes(tmp_path)
    notes.write("overview", "mine", instead_of="")
    with pytest.raises(ConfigError, match="changed in another window"):
        notes.write("overview", "theirs", instead_of="")
    assert notes.of("overview").text == "mine"


def test_a_note_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=f"{LONGEST + 1:,} characters: at most {LONGEST:,}"):
        Notes(tmp_path).write("overview", "x" * (LONGEST + 1), instead_of="")


def test_a_full_disk_leaves_the_notes_as_they_were(tmp_path, monkeypatch):
    notes = Notes(tmp_path)
    notes.write("overview", "first", instead_of="")

    def full(*_args, **_keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mechinterp.files.os.fsync", full)
    with pytest.raises(DiskError, match="no space left"):
        notes.write("overview", "second", instead_of="first")
    monkeypatch.undo()
    assert notes.of("overview").text == "first"


@pytest.mark.parametrize("content", ['{"format": 9, "notes": {}}', '{"format": 1, "notes": []}', "[1]"])
def test_notes_of_another_kind_are_refused_and_said_on_the_page(tmp_path, results, content):
    (tmp_path / "notes.json").write_text(content)
    with pytest.raises(DamagedFileError, match="holds no notes of format 1"):
        Notes(tmp_path).read()
    pages = build_pages(results, tmp_path)
    for slug in ("feature/3", "notes"):
        said = [line for block in pages[slug].blocks if isinstance(block, Text) for line in block.paragraphs]
        assert any("holds no notes of format 1" in line for line in said)


def test_notes_are_written_where_a_server_keeps_them_and_read_elsewhere(tmp_path, results):
    Notes(tmp_path).write("feature/3", f"seen: {ATTACK}", instead_of="")
    live, still = build_pages(results, tmp_path, live=True), build_pages(results, tmp_path)
    (widget,) = [b for b in live["feature/3"].blocks if isinstance(b, Widget)]
    assert widget.config["text"].endswith(ATTACK)
    assert not [b for b in still["feature/3"].blocks if isinstance(b, Widget) and b.name == "notes"]
    shown = [line for b in still["feature/3"].blocks if isinstance(b, Text) for line in b.paragraphs]
    assert f"seen: {ATTACK}" in shown
    listed = still["notes"]
    assert [b.files[0].path for b in walk(listed.blocks) if isinstance(b, Files)] == ["notes.json"]
    assert any("read-only" in line for b in listed.blocks if isinstance(b, Text) for line in b.paragraphs)


def test_a_note_on_a_page_that_is_no_more_is_still_shown(tmp_path, results):
    Notes(tmp_path).write("feature/999", "gone", instead_of="")
    shown = [
        line for b in build_pages(results, tmp_path)["notes"].blocks if isinstance(b, Text) for line in b.paragraphs
    ]
    assert "gone" in shown


@pytest.fixture
def client(run_dir, results, tmp_path, token):
    (tmp_path / "results.json").write_text(json.dumps(results))
    made = make_app(tmp_path, token=token).server.test_client()
    made.get(f"/?token={token}")
    return made


def post(client, **asked):
    return client.post("/api/notes", json=asked, headers={OWN_HEADER: "1"})


def test_the_server_keeps_a_note_and_refuses_what_belongs_nowhere(client, tmp_path):
    answer = post(client, slug="feature/3", text=ATTACK, insteadOf="")
    assert answer.status_code == 200
    assert answer.json["text"] == ATTACK
    assert Notes(tmp_path).of("feature/3").text == ATTACK
    assert client.get("/files/notes.json").json["notes"]["feature/3"]["text"] == ATTACK
    for asked in (
        {"slug": "feature/../../x", "text": "a", "insteadOf": ""},
        {"slug": "feature/3", "text": 4, "insteadOf": ""},
        {},
    ):
        refused = post(client, **asked)
        assert refused.status_code == 400
        assert "belongs to a page of this run" in refused.json["error"]
    assert "another window" in post(client, slug="feature/3", text="b", insteadOf="").json["error"]
    assert client.post("/api/notes", data=b"x" * 300_000, headers={OWN_HEADER: "1"}).status_code == 413


@pytest.mark.browser
def test_a_note_is_saved_from_the_page_and_found_again(online_tab, served_made, own_run):
    page = online_tab.page
    page.goto(f"{served_made}#/feature/1")
    field = page.get_by_label("Your note on this page")
    field.fill(f"bright spots {ATTACK}")
    field.press("Control+Enter")
    page.wait_for_function(
        "() => document.querySelector('.widget.notes [role=status]').textContent.startsWith('Saved')"
    )
    assert Notes(own_run).of("feature/1").text == f"bright spots {ATTACK}"
    page.wait_for_load_state("networkidle")
    page.reload()
    assert page.get_by_label("Your note on this page").input_value() == f"bright spots {ATTACK}"
    page.evaluate("location.hash = '#/notes'")
    page.wait_for_function("() => document.querySelector('main').textContent.includes('bright spots')")
    assert ATTACK in page.locator("main").inner_text()
    assert page.evaluate("window.hacked === undefined")
    assert online_tab.problems == []


@pytest.mark.browser
def test_a_note_that_cannot_be_saved_is_not_lost(online_tab, served_made, own_run):
    page = online_tab.page
    page.goto(f"{served_made}#/feature/1")
    field = page.get_by_label("Your note on this page")
    field.fill("first")
    Notes(own_run).write("feature/1", "from elsewhere", instead_of="")
    page.get_by_role("button", name="Save").click()
    page.wait_for_function(
        "() => document.querySelector('.widget.notes [role=status]').textContent.startsWith('Not saved')"
    )
    assert field.input_value() == "first"
    assert Notes(own_run).of("feature/1").text == "from elsewhere"
