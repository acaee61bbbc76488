"""The web site in a real browser: its pages, its search, the playground and its numbers, and who can use them."""

import contextlib
import functools
import http.server
import importlib.util
import itertools
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import torch
from torch.nn import functional as F

from qlung import margins, paths, quality
from qlung.audio.frontends import mel_bank
from qlung.book import lessons
from qlung.quality.aqs import entropy_nats

CHROMIUM = shutil.which("chromium")
MODULES = ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx-mathjax-offline", "playwright", "axe_playwright_python")
MISSING = [name for name in MODULES if importlib.util.find_spec(name) is None]
MISSING += [] if CHROMIUM else ["chromium"]
pytestmark = pytest.mark.skipif(
    bool(MISSING),
    reason=f"not installed: {', '.join(MISSING)} (make site-packages; the browser is Debian's package chromium)",
)
SCRIPT = paths.ROOT / "docs" / "_static" / "playground.js"
PLAYGROUND, LESSON = "docs/playground.html", "notebooks/03_learn_angular_margins.html"
PRACTICE = "notebooks/exercises/03_exercises.html"
EXERCISES = lessons.bank()["EXERCISES"]
ADDRESS = re.compile(r"https?://")


# ---- the site, a server and a browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site as `make site` builds it, every warning an error, with the buttons of a published repository."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(out / "doctrees")]
    command += ["-c", "docs", ".", str(out / "html")]
    env = os.environ | {"QLUNG_REPOSITORY": "https://github.com/somebody/qlung"}
    done = subprocess.run(command, cwd=paths.ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert not done.stderr
    return out / "html"


@pytest.fixture(scope="module")
def address(site):
    """Where a quiet server shows the site."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    """A page of 1280 px; its console errors and requests are kept in ``page.errors`` and ``page.requests``."""
    with new_page(browser) as opened:
        yield opened
        assert not opened.errors


@contextlib.contextmanager
def new_page(browser, width=1280, **settings):
    context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
    opened = context.new_page()
    opened.errors, opened.requests, opened.failed = [], [], []
    opened.on("console", lambda message: opened.errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.on("response", lambda got: opened.failed.append(got.url) if got.status >= 400 else None)
    opened.on("request", lambda request: opened.requests.append(request.url))
    yield opened
    context.close()


class Links(HTMLParser):
    """Addresses, anchors and pictures of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors, self.pictures, self.tags = [], set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "img":
            self.pictures.append(given)
        if tag in ("script", "link", "img", "audio", "source", "iframe"):
            self.tags.append(given.get("src") or (given.get("href") if tag == "link" else None))


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Links]:
    return {path: Links(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}


# ---- pages ---------------------------------------------------------------------------------------------------------


def test_the_site_has_every_notebook_and_every_doc(site):
    sources = [*paths.NOTEBOOKS.glob("[0-9]*.ipynb"), *(paths.ROOT / "docs").glob("*.md"), paths.ROOT / "RESULTS.md"]
    for source in sources:
        assert (site / source.relative_to(paths.ROOT).with_suffix(".html")).is_file(), source
    assert 'url=docs/index.html"' in (site / "index.html").read_text(encoding="utf-8")


def test_every_link_inside_the_site_leads_somewhere(site, pages):
    wrong = []
    for path, found in pages.items():
        for link in found.links:
            target, _, anchor = link.partition("#")
            if ADDRESS.match(link) or link.startswith(("mailto:", "javascript:")):
                continue
            at = (path.parent / urllib.parse.unquote(target)).resolve() if target else path
            at = at / "index.html" if at.is_dir() else at
            missing = anchor and at in pages and urllib.parse.unquote(anchor) not in pages[at].anchors
            if not at.is_file() or missing:
                wrong.append(f"{path.relative_to(site)}: {link}")
    assert not wrong


def test_every_figure_has_a_text(pages):
    for path, found in pages.items():
        for picture in found.pictures:
            assert picture.get("alt") is not None, (path.name, picture)
            assert "_images" not in picture.get("src", "") or len(picture["alt"]) > 30, (path.name, picture)


def test_nothing_is_loaded_from_another_place(pages):
    for path, found in pages.items():
        assert not [tag for tag in found.tags if tag and (ADDRESS.match(tag) or tag.startswith("//"))], path.name


def test_pages_load_without_an_error_and_without_another_origin(address, site, pages, browser):
    with new_page(browser) as page:
        page.goto(address)
        page.wait_for_url("**/docs/index.html")
        for path in pages.keys() - {site / "index.html"}:
            page.goto(f"{address}/{path.relative_to(site).as_posix()}")
        page.wait_for_load_state("networkidle")
        assert not page.errors, page.failed
        assert {urllib.parse.urlsplit(url).netloc for url in page.requests if ADDRESS.match(url)} == {address[7:]}


def test_equations_are_drawn_without_a_network(address, page):
    page.goto(f"{address}/docs/gradient.html")
    page.wait_for_selector("mjx-container")
    assert page.locator("mjx-container").count() > 20
    assert not page.locator("mjx-merror").count()


def test_the_search_finds_margin(address, page):
    page.goto(f"{address}/search.html?q=margin")
    page.wait_for_selector("#search-results li")
    found = page.locator("#search-results li a").evaluate_all("links => links.map(link => link.pathname)")
    assert f"/{LESSON}" in found
    assert "/docs/glossary.html" in found


def test_buttons_open_and_download_a_notebook(address, page):
    page.goto(f"{address}/{LESSON}")
    links = page.locator(".article-header-buttons a, .header-article a").evaluate_all("links => links.map(a => a.href)")
    assert "http://localhost:8888/lab/tree/notebooks/03_learn_angular_margins.ipynb" in links
    name = "somebody/qlung/{}main{}notebooks/03_learn_angular_margins.ipynb"
    assert f"https://colab.research.google.com/github/{name.format('blob/', '/')}" in links
    assert f"https://mybinder.org/v2/gh/{name.format('', '?urlpath=lab/tree/')}" in links
    (download,) = [link for link in links if link.endswith("_sources/notebooks/03_learn_angular_margins.ipynb")]
    assert page.request.get(download).ok
    assert page.locator(".prev-next-footer a").count() == 2


def test_folded_cells_of_jupyterlab_are_folded(address, page):
    page.goto(f"{address}/{LESSON}")
    folded = [cell for cell in nbformat.read(paths.NOTEBOOKS / "03_learn_angular_margins.ipynb", 4).cells
              if cell.metadata.get("jupyter", {}).get("source_hidden")]  # fmt: skip
    assert page.locator("div.cell details:not([open])").count() == len(folded) > 5


def test_sound_plays(address, site, page):
    with_sound = [path for path in (site / "notebooks").glob("*.html") if "<audio" in path.read_text(encoding="utf-8")]
    for path in with_sound:
        page.goto(f"{address}/notebooks/{path.name}")
        seconds = page.locator("audio").evaluate_all("""players => Promise.all(players.map(async player => {
          player.muted = true; await player.play(); player.pause(); return player.duration; }))""")
        assert all(0 < value < 600 for value in seconds), path.name
        assert all(page.locator("audio").evaluate_all("players => players.map(p => Boolean(p.ariaLabel))"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("where", ["docs/index.html", PLAYGROUND, LESSON, PRACTICE, "docs/api.html",
                                   "docs/handout.html", "RESULTS.html"])  # fmt: skip
def test_axe_finds_nothing_serious(address, browser, where, scheme):
    from axe_playwright_python.sync_playwright import Axe

    with new_page(browser, color_scheme=scheme) as page:
        page.goto(f"{address}/{where}")
        page.wait_for_load_state("networkidle")
        found = [(one["id"], one["impact"], [node["target"] for node in one["nodes"]][:3])
                 for one in Axe().run(page).response["violations"]]  # fmt: skip
        assert not [one for one in found if one[1] in ("serious", "critical")]


@pytest.mark.parametrize("where", ["docs/index.html", PLAYGROUND, LESSON, PRACTICE, "docs/api.html", "RESULTS.html",
                                   "README.html", "docs/handout.html", "docs/bad-inputs.html"])  # fmt: skip
def test_a_phone_never_scrolls_sideways(address, browser, where):
    with new_page(browser, 390, has_touch=True, is_mobile=True) as page:
        page.goto(f"{address}/{where}")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_handout_is_one_page(site):
    text = (site / "docs" / "handout.pdf").read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b", text)) == 1


# ---- the playground's numbers --------------------------------------------------------------------------------------


def numbers_of(page, board: str, states: list[dict]) -> list[dict]:
    code = """([board, states]) => {
      const {numbers, start} = qlungPlayground[board]; return states.map(state => numbers({...start, ...state})); }"""
    return page.evaluate(code, [board, states])


@pytest.fixture
def empty(page):
    """A page that has the playground's script and no board."""
    page.set_content("<!DOCTYPE html><title>empty</title><p>nothing")
    page.add_script_tag(content=SCRIPT.read_text(encoding="utf-8"))
    return page


def angle_gradient(theta, margin, scale):
    """dL/dtheta [1/rad] by automatic differentiation, for a clip between prototypes 90 degrees apart."""
    theta = theta.clone().requires_grad_()
    cosine = torch.stack([theta.cos(), theta.sin()], 1)
    logits = margins.angular_margin_logits(cosine, torch.zeros(len(theta), dtype=torch.long), margin, scale)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, 0 * theta.long(), reduction="sum"), theta)
    return gradient


def test_margins_and_forces_are_the_librarys(empty):
    grid = itertools.product((1, 37, 100), (1, 15, 100), (0, 0.2, 0.6), (1, 6, 100), (0, 1), (0.4,))
    names = ("scale_cls", "scale_margin", "target", "imbalance", "aqs", "lam")
    states = [dict(zip(names, values, strict=True)) for values in grid]
    theta = torch.tensor(empty.evaluate("qlungPlayground.angles"), dtype=torch.float64)
    assert len(theta) == 181
    largest = 0.0
    for state, found in zip(states, numbers_of(empty, "margins", states), strict=True):
        counts = torch.tensor([float(state["imbalance"]), 1.0])
        s_a, s_d, lam = (state[setting] for setting in ("scale_cls", "scale_margin", "lam"))
        loss = margins.QLungLoss(counts, s_a, s_d, lam, target=state["target"])
        m_d = loss.margin(torch.arange(2), torch.full((2,), float(state["aqs"])))
        for k, name in enumerate(("common", "rare")):
            ours, margin = found[name], m_d[k].double()
            cls, dfam = angle_gradient(theta, 0.0, s_a), lam * angle_gradient(theta, ours["margin"], s_d)
            curves = {"cls": cls, "dfam": dfam, "total": cls + dfam}
            differences = [torch.tensor(ours[curve], dtype=torch.float64) - wanted for curve, wanted in curves.items()]
            differences += [ours["margin"] - margin, ours["byClass"] + ours["byQuality"] - margin]
            largest = max(largest, *(float(value.abs().max()) for value in differences))
    assert largest < 1e-6


def test_arcface_on_the_board_is_the_librarys(empty):
    states = [{"loss": "arcface", "scale_margin": 64, "fixed": m} for m in (0, 0.5, 1.5)]
    theta = torch.tensor(empty.evaluate("qlungPlayground.angles"), dtype=torch.float64)
    for state, found in zip(states, numbers_of(empty, "margins", states), strict=True):
        wanted = angle_gradient(theta, state["fixed"], 64.0)
        assert (torch.tensor(found["rare"]["total"], dtype=torch.float64) - wanted).abs().max() < 1e-6
        boundary = max(0.0, math.pi / 4 - state["fixed"] / 2)
        assert abs(found["common"]["last"] - boundary) < 1e-12


def test_entropy_level_and_aqs_are_the_librarys(empty):
    """On the board's own spectra: the bank, decibels and entropy of `spectral_entropy`, the formula of the scorer."""
    sounds, spectra = ("breath", "wheeze", "tone", "white"), ("logmel", "power")
    grid = itertools.product(sounds, spectra, (-20, 0, 60), (250, 1600, 8000), (-30, 0, 24))
    states = [dict(zip(("sound", "spectrum", "snr", "lowpass", "gain"), values, strict=True)) for values in grid]
    bank = mel_bank(512, 16000, 20.0, 8000.0).T.double()
    scorer = quality.QualityScorer().fit([0.5], [-20.0])
    for state, found in zip(states, numbers_of(empty, "quality", states), strict=True):
        power = torch.tensor(found["power"], dtype=torch.float64)
        density = power
        if state["spectrum"] == "logmel":
            decibels = 10 * (power @ bank).clamp_min(1e-20).log10()
            density = (decibels - decibels.max() + 80).clamp_min(0)
        h = float(entropy_nats(density) / math.log(len(density)))
        assert abs(found["H"] - h) < 1e-6, state
        assert abs(found["dbfs"] - 10 * math.log10(power.sum())) < 1e-9
        assert abs(found["aqs"] - scorer.score([found["H"]], [found["dbfs"]])[0]) < 1e-6
        assert abs(found["margin"] - (0.25 * found["aqs"] + 0.1)) < 1e-12


def test_aqs_rises_with_a_low_pass_filter_and_with_gain(empty):
    low = numbers_of(empty, "quality", [{"lowpass": hertz} for hertz in (8000, 4000, 2000, 1000, 500, 250)])
    assert all(a["aqs"] < b["aqs"] for a, b in itertools.pairwise(low))
    loud = numbers_of(empty, "quality", [{"gain": gain} for gain in (-30, 0, 24)])
    assert all(a["aqs"] < b["aqs"] for a, b in itertools.pairwise(loud))
    assert max(one["H"] for one in loud) - min(one["H"] for one in loud) < 1e-9


def test_notebooks_hold_the_script_as_it_is():
    for name in ("02_measure_quality", "03_learn_angular_margins"):
        book = nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", 4)
        shown = [output["data"].get("text/html", "") for cell in book.cells for output in cell.get("outputs", [])
                 if "data" in output]  # fmt: skip
        assert any(SCRIPT.read_text(encoding="utf-8") in html for html in shown), f"tools/build_notebooks.py {name}"
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 500


# ---- the playground in the hand ------------------------------------------------------------------------------------


def cells_of(page, board="margins") -> list[str]:
    return page.locator(f'[data-qlung-board="{board}"] .numbers td').all_text_contents()


@pytest.mark.parametrize("where", [PLAYGROUND, LESSON])
def test_a_move_changes_the_picture_and_the_numbers_rightly(address, page, where):
    page.goto(f"{address}/{where}")
    before = page.locator('[data-qlung-board="margins"] svg').evaluate_all("all => all.map(one => one.innerHTML)")
    assert cells_of(page)[3] == "0.1472"
    slider = page.get_by_label("quality, AQS", exact=True)
    slider.evaluate("at => { at.value = 1; at.dispatchEvent(new Event('input', {bubbles: true})); }")
    after = page.locator('[data-qlung-board="margins"] svg').evaluate_all("all => all.map(one => one.innerHTML)")
    assert len(after) == 8  # three panels and five lines of the key
    assert all(a != b for a, b in zip(before[:3], after[:3], strict=True))
    expected = margins.QLungLoss([6, 1]).margin(torch.arange(2), torch.ones(2))
    assert [float(cells_of(page)[i]) for i in (3, 9)] == pytest.approx(expected.tolist(), abs=1e-4)


def test_exact_values_are_typed_and_presets_set_the_papers(address, page):
    page.goto(f"{address}/{PLAYGROUND}")
    page.get_by_label("target margin [rad], exact value").fill("0.1234")
    wanted = 0.5 * float(margins.class_margin(torch.tensor([6.0, 1.0]), 0.1234)[1])
    assert float(cells_of(page)[7]) == pytest.approx(wanted, abs=1e-4)
    page.get_by_label("imbalance, common : rare, exact value").fill("1e9")  # beyond the largest
    page.keyboard.press("Tab")
    assert page.get_by_label("imbalance, common : rare, exact value").input_value() == "100"
    page.get_by_label("quality, AQS, exact value").fill("")  # empty while typing: the old value holds
    assert "NaN" not in "".join(cells_of(page))
    page.get_by_role("button", name="ArcFace (64 / 0.5)").click()
    assert [float(cells_of(page)[i]) for i in (3, 9)] == [0.5, 0.5]
    assert page.get_by_label("quality, AQS, exact value").is_disabled()
    page.get_by_role("button", name="paper (37 / 15 / 0.2)").click()
    values = [page.get_by_label(f"{name}, exact value").input_value() for name in
              ("scale sa of the classifier", "scale sd of the margin loss", "target margin [rad]")]  # fmt: skip
    assert values == ["37", "15", "0.2"]


def test_the_address_holds_the_state(address, page, browser):
    page.goto(f"{address}/{PLAYGROUND}")
    page.get_by_label("imbalance, common : rare, exact value").fill("42")
    page.keyboard.press("Tab")
    link = page.url
    assert "imbalance=42" in link
    with new_page(browser) as other:
        other.goto(link)
        assert cells_of(other) == cells_of(page)
        other.evaluate("location.hash = 'board=quality&lowpass=500&sound=wheeze'")
        other.wait_for_function("document.querySelector('[data-qlung-board=quality] [name=lowpass]').value === '500'")
        other.evaluate("location.hash = 'board=margins&imbalance=<b>&loss=nonsense&aqs=Infinity'")
        assert "NaN" not in "".join(cells_of(other))
        assert not other.errors
    page.get_by_role("button", name="reset").first.click()
    assert "imbalance=6" in page.url


def test_the_keyboard_reaches_every_control(address, page):
    page.goto(f"{address}/{PLAYGROUND}")
    for board in ("margins", "quality"):
        root = f'[data-qlung-board="{board}"]'
        wanted = page.locator(f"{root} :is(button, input, select):enabled").count()
        page.locator(f"{root} button").first.focus()
        reached = set()
        for _ in range(wanted):
            reached.add(page.evaluate(f"""() => [...document.querySelectorAll('{root} :is(button, input, select)')]
              .indexOf(document.activeElement)"""))
            page.keyboard.press("Tab")
        assert len(reached - {-1}) == wanted > 8
    before = cells_of(page)
    page.get_by_label("imbalance, common : rare", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert cells_of(page) != before


def test_a_finger_drags_the_low_pass_filter(address, browser):
    with new_page(browser, 390, has_touch=True) as page:
        page.goto(f"{address}/{PLAYGROUND}")
        svg = page.locator('[data-qlung-board="quality"] svg.drag')
        svg.scroll_into_view_if_needed()
        before, box = float(cells_of(page, "quality")[3]), svg.bounding_box()
        page.touchscreen.tap(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
        assert float(cells_of(page, "quality")[3]) > before
        assert float(page.locator('[data-qlung-board="quality"] [name="lowpass"]').input_value()) < 1000
        assert "lowpass" in page.url
        assert not page.errors


def test_a_benchmark_reports_the_time_of_a_move():
    done = subprocess.run([sys.executable, "benchmarks/playground.py", "--moves", "5"], cwd=paths.ROOT,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {"margins", "quality"} == set(report["boards"])
    assert all(board["ms_per_move"]["median"] > 0 for board in report["boards"].values())


# ---- exercises in the page -----------------------------------------------------------------------------------------


def form_of(page, name: str):
    return page.get_by_role("form", name=f"Answer to {name}", exact=True)


def answer(page, name: str, typed: str) -> str:
    """Type an answer, press Enter, and read what the page says."""
    form = form_of(page, name)
    form.get_by_role("textbox").fill(typed)
    page.keyboard.press("Enter")
    return form.get_by_role("status").inner_text()


def some_answers(exercise) -> list[float]:
    """Right ones, rounded to all digits; the mistakes, rounded; cut off, one unit beside, scaled, and any."""
    page = exercise.page()
    right, found = page["value"], [0.0, 1.0, -1.0, 0.5, 123456.0, 1e-9]
    for digits in range(1, 9):
        unit = 10.0 ** (math.floor(math.log10(abs(right))) + 1 - digits)
        found += [float(f"{value:.{digits - 1}e}") for value in (right, *(value for value, _ in page["mistakes"]))]
        found += [float(f"{k * unit:.7g}") for k in (right // unit, right // unit + 1, right // unit - 1)]
    return found + [right * by for by in (-1, 0.5, 0.97, 0.99, 0.999, 0.9999, 1.0001, 1.001, 1.01, 1.03, 2, 100)]


def test_the_page_says_what_python_says(address, page):
    """Of right, rounded, cut, near and mistaken numbers, for every exercise."""
    page.goto(f"{address}/{PRACTICE}")
    asked = {name: some_answers(exercise) for name, exercise in EXERCISES.items()}
    code = """asked => Object.fromEntries(Object.entries(asked).map(([name, typed]) =>
      [name, typed.map(one => qlungExercises.fault(name, one))]))"""
    said = page.evaluate(code, {name: [repr(number) for number in numbers] for name, numbers in asked.items()})
    replies = {"right": 0, "mistake": 0} | dict.fromkeys(lessons.bank()["REPLIES"].values(), 0)
    for name, numbers in asked.items():
        known = [text for _, text in EXERCISES[name].page()["mistakes"]]
        for number, found in zip(numbers, said[name], strict=True):
            assert found == EXERCISES[name].fault(number), (name, number)
            kind = "mistake" if found in known else found or "right"
            replies[kind] = replies.get(kind, 0) + 1
    assert min(replies["right"], replies["mistake"]) > 50
    for kind in ("sign", "cut", "large", "small"):
        assert replies[lessons.bank()["REPLIES"][kind]] > 5, kind
    for typed, number in {"": None, "four": "four", " 4,63 ": 4.63, "−4.63": -4.63, "NaN": math.nan}.items():
        assert page.evaluate("typed => qlungExercises.fault('margin-3', typed)", typed) == EXERCISES["margin-3"].fault(
            number
        ), typed


def test_every_exercise_has_a_form_below_its_question(address, page):
    page.goto(f"{address}/{PRACTICE}")
    assert page.locator("form.qlung-exercise").count() == len(EXERCISES)
    for name, exercise in EXERCISES.items():
        form = form_of(page, name)
        unit = f" [{exercise.unit}]" if exercise.unit else ""
        assert form.get_by_label(f"Your number{unit}", exact=True).count() == 1
        section = page.locator("section", has=form).last
        assert exercise.title in section.locator("h2").inner_text().replace("’", "'")
        assert "By hand." in section.inner_text()


def test_a_mistake_is_named_hints_come_in_stages_and_the_answer_when_asked(address, page):
    page.goto(f"{address}/{PRACTICE}")
    form, exercise = form_of(page, "margin-7"), EXERCISES["margin-7"]
    assert "divide the counts by their sum first" in answer(page, "margin-7", f"{-0.2 * math.log(100):.3f}")
    assert form.get_by_role("textbox").get_attribute("aria-invalid") is not None
    form.get_by_role("button", name="Hint: which step?").click()
    assert exercise.hints[0] in form.get_by_role("status").inner_text()
    form.get_by_role("button", name="Hint: the formula").click()
    assert exercise.hints[1] in form.get_by_role("status").inner_text()
    assert "0.3907" not in form.inner_text()
    form.get_by_role("button", name="Show the answer").click()
    assert "The answer is 0.3907 rad." in form.inner_text()
    assert "def log_class_margin" in form.inner_text()
    assert "0 of" in page.locator(".qlung-progress").inner_text()
    assert answer(page, "margin-7", "0.39").startswith("Right.")
    assert form.get_by_role("textbox").get_attribute("aria-invalid") is None


def test_the_count_stays_in_the_browser(address, page):
    page.goto(f"{address}/{PRACTICE}")
    progress, total = page.locator(".qlung-progress"), len(EXERCISES)
    assert f"0 of {total} solved" in progress.inner_text()
    assert not progress.get_by_role("button").is_visible()
    for typed in ("4.63", "4.6", "5"):
        answer(page, "margin-3", typed)
    answer(page, "operating-1", "20")
    page.reload()
    assert f"2 of {total} solved" in progress.inner_text()
    assert "solved" in form_of(page, "margin-3").inner_text()
    assert "solved" not in form_of(page, "margin-4").inner_text()
    page.evaluate("localStorage.setItem('qlung-exercises', '{broken')")
    page.reload()
    assert f"0 of {total} solved" in progress.inner_text()
    answer(page, "margin-3", "4.6")
    progress.get_by_role("button", name="Start again").click()
    page.reload()
    assert f"0 of {total} solved" in progress.inner_text()


def test_the_keyboard_answers_an_exercise(address, page):
    page.goto(f"{address}/{PRACTICE}")
    form_of(page, "margin-8").get_by_role("textbox").focus()
    page.keyboard.type("0.38")
    page.keyboard.press("Enter")
    assert "Right." in form_of(page, "margin-8").inner_text()
    reached = []
    for _ in range(3):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent"))
    assert reached == ["Check", "Hint: which step?", "Show the answer"]
    page.keyboard.press("Space")
    assert "The answer is 0.38 rad." in form_of(page, "margin-8").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_answered_forms_are_accessible_and_fit_a_phone(address, browser, scheme):
    from axe_playwright_python.sync_playwright import Axe

    with new_page(browser, 390, color_scheme=scheme) as page:
        page.goto(f"{address}/{PRACTICE}")
        answer(page, "margin-1", "0.14")
        answer(page, "margin-2", "0.83")
        for name, button in (("margin-4", "Hint: which step?"), ("margin-9", "Show the answer")):
            form_of(page, name).get_by_role("button", name=button).click()
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert not page.errors, page.failed  # axe looks for style sheets at places of its own
        found = [(one["id"], one["impact"], [node["target"] for node in one["nodes"]][:3])
                 for one in Axe().run(page).response["violations"]]  # fmt: skip
        assert not [one for one in found if one[1] in ("serious", "critical")]


def test_without_javascript_the_exercises_read_well(address, browser):
    with new_page(browser, java_script_enabled=False) as page:
        page.goto(f"{address}/{PRACTICE}")
        text = page.locator("article").inner_text()
        assert text.count("By hand.") == text.count("In code.") == len(EXERCISES)
        assert not page.locator("form.qlung-exercise").count()
        assert not [name for name, exercise in EXERCISES.items() if exercise.why in text]


# ---- JupyterLab ----------------------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path):
    """Address of JupyterLab with the configuration of `make lab`, on a copy of the book."""
    home = tmp_path / "project"
    ignored = shutil.ignore_patterns("mine", "__pycache__", ".ipynb_checkpoints")
    for name in ("notebooks", "qlung", "tools", ".jupyter", "docs"):
        shutil.copytree(paths.ROOT / name, home / name, ignore=ignored)
    shutil.copy(paths.ROOT / "pyproject.toml", home)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--config=.jupyter/jupyter_lab_config.py", "--allow-root", "--no-browser", f"--port={port}",
             "--IdentityProvider.token=", "--ServerApp.port_retries=0", "--LabApp.news_url=None"]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(home), "JUPYTER_DATA_DIR": str(tmp_path / "data"), "HOME": str(tmp_path)}
    with open(tmp_path / "log", "w", encoding="utf-8") as log:
        job = subprocess.Popen([sys.executable, "-m", "jupyterlab", *flags], cwd=home, env=env, stdout=log, stderr=log)
    try:
        for _ in range(1200):
            assert job.poll() is None, (tmp_path / "log").read_text(encoding="utf-8")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=60).close()
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        job.terminate()
        job.wait(30)


def test_the_board_works_in_jupyterlab_without_a_kernel(lab, browser):
    with new_page(browser) as page:
        page.goto(f"{lab}/lab/tree/notebooks/03_learn_angular_margins.ipynb?reset")
        outer = page.locator(".jp-WindowedPanel-outer").first
        outer.wait_for(timeout=120_000)
        for _ in range(200):  # cells are drawn in idle time, and where they come into view
            if page.locator(".qlung-board .numbers td").count():
                break
            outer.evaluate("at => { at.scrollTop = (at.scrollTop + 700) % at.scrollHeight; }")
            page.wait_for_timeout(200)
        before = cells_of(page)
        assert before[3] == "0.1472"
        page.get_by_label("quality, AQS, exact value").fill("1")
        assert cells_of(page) != before
