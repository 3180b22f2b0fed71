"""The page shows what stands in the JSON, as text, without any network; and a person can read and file it."""

import copy
import json
import re
import shutil
from html.parser import HTMLParser
from importlib.resources import files

import jsonschema
import made_report as made
import pytest
from axe_playwright_python.sync_playwright import Axe

from experiments.dashboard.formatting import format_value
from experiments.report import Report, read_report, write_report
from experiments.report.backing import backed, numerals
from experiments.report.page import report_page
from experiments.report.pdf import find_chromium, print_pdf
from mechinterp.claims import Claim, Control
from mechinterp.errors import ConfigError, DamagedFileError

AXE = {"resultTypes": ["violations"], "preload": False}
EVIL = "<script>alert(1)</script>"
VOID = {"meta", "link", "br", "hr", "img", "input"}
NAMED_CONSTANTS = {"95 % interval over patients"}


class Texts(HTMLParser):
    """Every text of the page, with the nearest element that says where in the JSON it stands."""

    def __init__(self):
        super().__init__()
        self.stack, self.found = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.stack.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self.stack and self.stack.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if not any(tag in {"script", "style", "title"} for tag, _ in self.stack):
            self.found.append((data, next((a for _, a in reversed(self.stack) if "data-path" in a), {})))


def at(record, pointer):
    for part in pointer.strip("/").split("/"):
        part = part.replace("~1", "/").replace("~0", "~")
        record = record[int(part)] if isinstance(record, list) else record[part]
    return record


def texts(page):
    parser = Texts()
    parser.feed(page)
    return parser.found


@pytest.fixture
def record():
    return made.report(
        limits=("Nothing beyond 100 patients.",), provenance={"seed": 7, "versions": {"torch": "2.1"}}
    ).to_json()


def test_every_number_on_the_page_has_a_path_in_the_json(record):
    shown = [t for t in texts(report_page(record)) if re.search(r"\d", t[0]) and t[0].strip() not in NAMED_CONSTANTS]
    assert len(shown) > 100
    for text, attributes in shown:
        assert "data-path" in attributes, text
        value = at(record, attributes["data-path"])
        if isinstance(value, (int, float)) and "data-form" in attributes:
            assert text == format_value(value, attributes["data-form"])
        elif isinstance(value, (int, float)):
            assert text.endswith(format_value(value)) or text == str(value)
        else:
            assert text.removesuffix("…") in value


def test_the_json_keeps_the_published_schema_and_comes_back_the_same(record):
    schema = json.loads(files("experiments.report").joinpath("schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    record = json.loads(json.dumps(record))
    jsonschema.validate(record, schema)
    assert json.loads(json.dumps(Report.from_json(record).to_json())) == record
    assert record["unbacked"] == []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**record, "answers": 1}, schema)


def test_a_verdict_written_by_hand_does_not_survive_reading(record):
    forged = copy.deepcopy(record)
    forged["elements"][0]["claims"][0]["interval"] = [0.1, 0.2]
    again = Report.from_json(forged)
    assert forged["elements"][0]["verdict"]["word"] == "met"
    assert again.verdicts["localization"].word == "not met"


def test_markup_in_names_notes_and_labels_is_text():
    bad = Control(EVIL, 0.1, True, EVIL)
    claim = Claim(EVIL, "correlational", 0.3, EVIL, True, EVIL, (bad,), interval_note=EVIL)
    figure = made.figure()
    figure = type(figure)(EVIL, EVIL, {"data": [{"name": EVIL}], "layout": {}})
    case = made.use_case(title=EVIL, question=EVIL, task=EVIL, licences={"model": EVIL, "data": EVIL})
    report = made.report(
        {"localization": (claim,)}, case=case, figures=(figure,), limits=(EVIL,), provenance={EVIL: EVIL}
    )
    page = report_page(report.to_json())
    assert EVIL not in page
    assert page.count("&lt;script&gt;") > 15
    assert "\\u003cscript" in page


def test_a_sentence_whose_number_stands_nowhere_is_named():
    report = made.report(limits=("It was seen in 4321 eyes, and in 100 patients.",))
    record = report.to_json()
    assert record["unbacked"] == [{"path": "/limits/0", "numerals": ["4321"]}]
    assert "Numbers in words only" in report_page(record)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("block5_conv3 in 12 of 1,024 (0.5 to -0.75), 10% or 7 %", ["12", "1,024", "0.5", "-0.75", "10%", "7 %"]),
        ("p = 1.29e+03 at T1", ["1.29e+03"]),
    ],
)
def test_numbers_are_told_from_names(text, found):
    assert numerals(text) == found


@pytest.mark.parametrize(
    ("shown", "number", "is_backed"),
    [
        ("0.72", 0.7249, True),
        ("0.72", 0.726, False),
        ("72%", 0.7249, True),
        ("1.29e+03", 1290.4, True),
        ("-0.93", -0.9277, True),
    ],
)
def test_a_number_backs_what_it_rounds_to(shown, number, is_backed):
    assert backed(shown, {number}) is is_backed


def test_an_untold_or_damaged_report_is_one_line(tmp_path, record):
    with pytest.raises(ConfigError, match=r"has no report\.json"):
        read_report(tmp_path)
    with pytest.raises(DamagedFileError, match="format 9"):
        Report.from_json({**record, "format": 9})
    with pytest.raises(DamagedFileError, match="lacks or misnames"):
        Report.from_json({"format": 1})


def test_without_a_browser_the_pdf_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="apt-get install chromium"):
        print_pdf(tmp_path / "a.html", tmp_path / "a.pdf")


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed")
@pytest.mark.slow
def test_it_prints_to_a_pdf(tmp_path):
    write_report(tmp_path, made.report())
    made_pdf = print_pdf(tmp_path / "report.html", tmp_path / "report.pdf")
    assert made_pdf.read_bytes().startswith(b"%PDF")
    assert len(made_pdf.read_bytes()) > 20_000


@pytest.mark.browser
@pytest.mark.slow
def test_in_a_browser_without_network_it_has_no_fault_that_axe_calls_serious(tab, tmp_path):
    write_report(tmp_path, made.report(figures=(made.figure(),)))
    tab.page.goto((tmp_path / "report.html").as_uri())
    tab.page.wait_for_selector("#figure-0-0[data-drawn=yes]")
    assert tab.page.locator(".verdicts tbody tr").last.bounding_box()["y"] < 900
    found = Axe().run(tab.page, options=AXE).response["violations"]
    assert [v for v in found if v["impact"] in {"serious", "critical"}] == []
    assert tab.problems == []
    assert [url for url in tab.requested if not url.startswith(("file:", "data:", "blob:"))] == []
