"""The page: whole, alone, and readable by people who cannot see it; then in a browser, narrow and wide, light and dark."""

import io
import re
from base64 import b64decode
from html import unescape
from html.parser import HTMLParser

import pytest
from PIL import Image

from fedagg.report import report
from fedagg.results import find_runs
from tests.report import browser

LONG = "nnm(f=4)+geometric_median(iterations=32)+server_momentum"
ODD = '<b>cost</b> $5 & "q"'
QUESTION = "Which rule survives <five> attacks & heterogeneity?"
VOID = {"meta", "img", "wbr", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a page holds: its elements with attributes, the text of each kind, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in {*self.open}:
            self.text[tag] = self.text.get(tag, "") + data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def study(tmp_path_factory, make_study, make_run):
    """Two settings, odd names, costs and exclusion, and runs that cannot be used."""
    root = tmp_path_factory.mktemp("study")
    for alpha in (0.1, 1.0):
        fields = {"command": f"fedagg run partition.alpha={alpha} 'attack.method={{z: <1>}}'"}
        config = {"partition": {"alpha": alpha}}
        make_study(root / str(alpha), ["krum", LONG, ODD], ["none", "alie", "y" * 40], 2, 6, config=config, fields=fields)
    names = ("exclusion_precision", "exclusion_recall", "bytes_up")
    for run in find_runs(root):
        with open(run.path / "metrics.csv", "a") as file:
            file.write("".join(f"{r},server,,{name},0.5\n" for r in (1, 2) for name in names))
        (run.path / "timing.csv").write_text("round,phase,seconds\n1,train,0.5\n2,train,0.25\n")
    for number in range(5):
        make_run(root / f"failed{number}", "krum", "alie", 9, [0.1], status="failed", error="<script>alert(1)</script>")
    return root


@pytest.fixture(scope="module")
def done(study):
    return report(study, quiet=True, question=QUESTION)


@pytest.fixture(scope="module")
def html(done):
    return (done.folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_every_element_is_closed(page):
    assert page.open == []


def test_nothing_is_fetched(page, html):
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            if name in attributes:
                assert attributes[name].startswith("#" if tag == "a" else "data:"), (tag, attributes[name][:80])
    assert not page.all("script") + page.all("link") + page.all("iframe") + page.all("object")
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    style = page.text["style"]
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"https?:", re.sub(r'src="data:[^"]*"', "", html))


def test_pictures_are_inside_and_described(page, done):
    pictures = page.all("img")
    assert len(pictures) == 3  # two settings over rounds, and accuracy against alpha
    for picture in pictures:
        assert picture["src"].startswith("data:image/png;base64,iVBOR")
        assert "Panels: none, alie" in picture["alt"]
        named = re.search(r"The numbers are in (\S+\.csv)\.", picture["alt"])
        assert named
        assert (done.folder / named[1]).exists()


def test_pictures_are_small_and_their_ground_is_that_of_their_card(page):
    for picture in page.all("img"):
        data = b64decode(picture["src"].partition(",")[2])
        assert len(data) < 150_000
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_links_lead_somewhere_and_ids_are_unique(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attributes["href"].removeprefix("#") for attributes in page.all("a")]
    assert len(targets) > 10
    assert set(targets) <= set(ids)


def test_tables_have_headers_and_rows_of_one_length(page, html):
    for table in re.findall(r"<table.*?</table>", html, re.DOTALL):
        rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        assert {len(re.findall(r"<t[hd]\b", row)) for row in rows} == {len(re.findall(r'<th scope="col"', rows[0]))}
        assert all(row.startswith('<th scope="row">') for row in rows[1:])
    assert page.all("html")[0]["lang"] == "en"
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")


def test_names_are_text_wherever_they_come_from(page, html):
    assert not page.all("b")
    assert QUESTION in page.text["header"]
    assert ODD in page.text["table"]
    assert "<script>alert(1)</script>" in page.text["details"]


def test_every_section_is_there_in_order(page):
    titles = [
        "What was run",
        "Leaderboard",
        "By other rules",
        "Strategies under attack",
        "Over rounds",
        "Against the Dirichlet alpha",
        "Excluding attackers",
        "Time and communication",
        "Commands",
    ]
    assert page.text["h2"] == "".join(titles)
    assert page.text["nav"].startswith("".join(titles))


def test_protocol_data_and_numbers_of_runs_are_named(page):
    facts = page.text["dl"]
    for words in (
        "36 runs in 18 cells of 2 settings",
        "Protocol final: the value at the last evaluated round.",
        "digits",
        "0, 1",
    ):
        assert words in facts
    notes = page.text["ul"]
    assert "5 of 41 runs left out, not completed" in notes
    assert page.text["p"].count("Measured on the test set of digits.") >= 2


def test_every_run_has_its_command(page, html, study):
    commands = [unescape(words) for words in re.findall(r"<code>(.*?)</code>", html)]
    expected = [run.info["command"] for run in find_runs(study) if run.status == "completed"]
    assert sorted(commands) == sorted(expected)
    assert "".join(commands) == page.text["code"]


def test_the_heat_map_has_the_numbers_of_the_table_and_readable_colours(html, done):
    heat = re.findall(r'<table class="heat">.*?</table>', html, re.DOTALL)
    assert len(heat) == 2
    painted = re.findall(r'style="background:(#\w{6});color:(#\w{6})">([^<]*)<', heat[0])
    assert len(painted) == 3 * 4
    for ground, ink, _ in painted:
        light, dark = sorted((luminance(ground), luminance(ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2, level AA
    cell = done.tables[0].cells["krum", "alie"].estimate
    assert any(words.startswith(f"{100 * cell.mean:.1f} ± ") for *_, words in painted)


def luminance(colour):
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("ground", ["ground", "card"])
@pytest.mark.parametrize("name", ["ink", "quiet", "link"])
def test_contrast_in_both_colour_schemes(page, ground, name):
    for block in re.findall(r":root\s*{([^}]*)}", page.text["style"]):
        colours = dict(re.findall(r"--(\w+): (#\w{6});", block))
        light, dark = sorted((luminance(colours[ground]), luminance(colours[name])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.usefixtures("no_pictures")
def test_without_a_question_there_is_none_and_missing_commands_are_said(tmp_path, make_run):
    make_run(tmp_path / "a")
    html = (report(tmp_path, quiet=True).folder / "report.html").read_text()
    assert 'class="question"' not in html
    assert "not recorded" in html
    assert "Test accuracy (%) of 1 strategy</h1>" in html


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    program = browser.find()
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is installed (apt-get install -y chromium)")
    with browser.opened(program, tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_in_a_browser(tab, done, width, dark):
    file = done.folder / "report.html"
    tab.open(file, width, dark)
    tab.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.requests() == [file.resolve().as_uri()]
    assert tab.value("[...document.images].map(i => i.complete && i.naturalWidth)") == [1440] * 3
    assert tab.value("document.documentElement.scrollWidth") == width
    right = "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll *, .picture *')"
    assert tab.value(right + f" && e.getBoundingClientRect().right > {width}).map(e => e.outerHTML.slice(0, 99))") == []
    ground = tab.value("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(21, 23, 26)" if dark else "rgb(255, 255, 255)")
    assert tab.value("getComputedStyle(document.querySelector('.picture')).backgroundColor") == "rgb(255, 255, 255)"


def test_the_first_column_stays_in_sight(tab, done):
    tab.open(done.folder / "report.html", 400)
    moved = tab.value(
        "(() => { const s = [...document.querySelectorAll('.scroll')].find(e => e.scrollWidth > e.clientWidth + 50);"
        " s.scrollLeft = 50; return [s.scrollLeft, s.querySelector('tbody th').getBoundingClientRect().left"
        " - s.getBoundingClientRect().left]; })()"
    )
    assert moved == [50, 1]  # the frame is one pixel wide
