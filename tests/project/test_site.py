"""Tests of the built documentation: links, every page in a wide and a narrow browser window, and the live demo."""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from PIL import Image

from support.pages import BLOCK, PAGES, run_blocks
from support.paths import HELD_OUT, NODE, ROOT
from support.requirements import required

NODE_MODULES = NODE / "node_modules"
WIDTHS = {"desktop": 1280, "phone": 390}
SCHEMES = {"desktop": "light", "phone": "dark"}
UNDER = "vitzoo"  # a site of a project lies under its name


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages, in a folder below the one that is served."""
    folder = tmp_path_factory.mktemp("served") / UNDER
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_generated_pages_are_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "docs" / "make", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


class Page(HTMLParser):
    """The resources and links of a page."""

    def __init__(self, text):
        super().__init__()
        self.asks, self.links, self.names = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.names |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") not in ("canonical", "prev", "next", "edit"):
            self.asks.append(found["href"])
        elif found.get("src"):
            self.asks.append(found["src"])


def pages_of(site):
    return {path.relative_to(site).as_posix(): Page(path.read_text()) for path in sorted(site.rglob("*.html"))}


def test_links_resolve_and_no_other_host_is_used(site):
    pages = pages_of(site)
    assert len(pages) > 50
    for name, page in pages.items():
        if name == "404.html":  # written for the root of a host
            continue
        here = f"http://site/{name}"
        for ask in page.asks:
            assert urlsplit(ask).scheme in ("", "data"), f"{name} asks for {ask}"
            assert ask.startswith("data:") or (site / unquote(urlsplit(urljoin(here, ask)).path[1:])).is_file(), (name, ask)
        for link in page.links:
            there = urlsplit(urljoin(here, link))
            if there.netloc != "site":
                continue
            path = site / unquote(there.path[1:])
            path = path / "index.html" if path.is_dir() else path
            assert path.is_file(), f"{name} links to {link}"
            if there.fragment and path.suffix == ".html":
                assert unquote(there.fragment) in pages[path.relative_to(site).as_posix()].names, f"{name} links to {link}"
    for path in [*site.rglob("*.css"), *(site / "assets").glob("*.js"), *(site / "assets" / "live").glob("*.js")]:
        assert not re.search(r"(url\(|import |from )['\"(]*https?:", path.read_text()), path


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(site):
    """The address of the served site, with the assets of the live page."""
    required("onnxruntime-web", NODE_MODULES / "onnxruntime-web")
    subprocess.run([sys.executable, ROOT / "docs" / "make", "--live"], check=True, stdout=subprocess.DEVNULL)
    made = ROOT / "docs" / "assets" / "live" / "made"
    shutil.copytree(made, site / "assets" / "live" / "made", dirs_exist_ok=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{UNDER}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    chromium, driver = required("chromium"), required("chromedriver") if shutil.which("chromium") else ""
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    found.set_script_timeout(180)  # axe-core needs seconds for the Python reference, and more on a busy machine
    yield found
    found.quit()


def resize(browser, kind):
    width = WIDTHS[kind]
    scheme = {"name": "prefers-color-scheme", "value": SCHEMES[kind]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    )


def complaints(browser):
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, { resultTypes: ["violations"] }).then((found) => done(found.violations
  .filter((each) => ["serious", "critical"].includes(each.impact))
  .map((each) => `${each.id}: ${each.nodes.length} x ${each.nodes[0].html.slice(0, 160)} | ${each.nodes[0].failureSummary}`)));
"""
LOOK = """return {
  over: document.documentElement.scrollWidth - window.innerWidth,
  images: [...document.images].filter((image) => image.complete && !image.naturalWidth).map((image) => image.src),
  asked: performance.getEntriesByType("resource").map((each) => each.name).filter((name) => !name.startsWith("data:")),
}"""


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page(site, address, browser, width):
    """No message in the console, no broken image, nothing wider than the window, no request to another host."""
    axe = (Path(required("axe-core", NODE_MODULES / "axe-core")) / "axe.min.js").read_text()
    resize(browser, width)
    browser.get(address)
    browser.execute_script("localStorage.clear()")  # the theme keeps the colours of the first visit
    faults = []
    for name in pages_of(site):
        if name == "404.html":
            continue
        browser.get(address + name)
        browser.execute_script("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
        seen = browser.execute_script(LOOK)
        faults += [f"{name}: {what}" for what in complaints(browser)]
        faults += [f"{name}: {seen['over']} pixels too wide"] if seen["over"] > 1 else []
        faults += [f"{name}: broken {image}" for image in seen["images"]]
        faults += [f"{name}: asked {url}" for url in seen["asked"] if not url.startswith(address)]
        browser.execute_script(axe)
        faults += [f"{name}: {what}" for what in browser.execute_async_script(AXE)]
    assert not faults, "\n".join(faults[:20])


def shown(browser):
    script = """return [...document.querySelectorAll(".zoo-table tbody tr")].filter((row) => !row.hidden)
      .map((row) => [...row.cells].map((cell) => cell.textContent))"""
    return browser.execute_script(script)


def test_the_zoos_table_sorts_and_filters(address, browser):
    resize(browser, "desktop")
    browser.get(f"{address}zoo/")
    everything = shown(browser)
    assert len(everything) > 400
    search = browser.find_element("css selector", ".zoo-controls input[type=search]")
    search.send_keys("vit_b16 apache")
    found = shown(browser)
    assert found
    assert all("vit_b16" in row[1] and "apache" in row[9] for row in found)
    search.clear()
    search.send_keys(" ")
    browser.find_element("xpath", "//th/button[text()='M params']").click()
    sizes = [float(row[5]) for row in shown(browser)]
    assert sizes == sorted(sizes)
    browser.find_element("xpath", "//th/button[text()='M params']").click()
    assert [float(row[5]) for row in shown(browser)] == sorted(sizes, reverse=True)
    browser.find_element("xpath", "//th/button[text()='name']").click()
    assert [row[1] for row in shown(browser)] == sorted((row[1] for row in everything), key=str.lower)
    browser.find_element("css selector", ".zoo-controls input[type=checkbox]").click()
    assert all(row[11] for row in shown(browser))
    browser.execute_script("""const family = document.querySelector(".zoo-controls select");
      family.value = "dinov3"; family.dispatchEvent(new Event("input"))""")
    assert {row[0] for row in shown(browser)} == {"dinov3"}
    assert browser.find_element("css selector", ".zoo-controls output").text == f"{len(shown(browser))} of {len(everything)}"


PAINT = """
const [values, done] = arguments, paper = document.querySelector(".live-paper"), pen = paper.getContext("2d");
const answer = document.querySelector(".live-answer");
answer.dataset.digit = "?";
pen.clearRect(0, 0, paper.width, paper.height);
values.forEach((value, at) => {
  pen.globalAlpha = value;
  pen.fillRect((at % 8) * 32, Math.floor(at / 8) * 32, 32, 32);
});
pen.globalAlpha = 0.001;  // a touch of the pen, so that the page reads what is on its paper
for (const type of ["pointerdown", "pointermove", "pointerup"])
  paper.dispatchEvent(new PointerEvent(type, { pointerId: 1, clientX: paper.getBoundingClientRect().x + 128,
                                               clientY: paper.getBoundingClientRect().y + 128, bubbles: true }));
const look = () => (answer.dataset.digit === "?" ? setTimeout(look, 20) : done(answer.dataset.digit));
look();
"""


def test_the_live_page_reads_digits(address, browser):
    """Held-out digits, two of each class, painted on the page's canvas."""
    resize(browser, "desktop")
    browser.get(f"{address}live/")
    from selenium.webdriver.support.ui import WebDriverWait

    place = browser.find_element("css selector", ".live")
    WebDriverWait(browser, 60).until(lambda _: place.get_attribute("data-ready"))
    assert place.get_attribute("data-ready") == "yes", browser.find_element("css selector", ".live-answer").text
    browser.execute_script("document.querySelector('.live-paper').setPointerCapture = () => {}")  # there is no real pointer
    right = []
    for digit in range(10):
        files = sorted(HELD_OUT.glob(f"*_{digit}.png"))[:2]
        assert len(files) == 2
        for file in files:
            values = [value / 255 for value in Image.open(file).convert("L").tobytes()]
            right.append(browser.execute_async_script(PAINT, values) == str(digit))
    assert sum(right) >= 18, right
    browser.find_element("css selector", ".live-clear").click()
    WebDriverWait(browser, 10).until(lambda _: browser.find_element("css selector", ".live-answer").text == "Draw a digit.")
    assert not complaints(browser)


def test_the_browser_tutorial_classifies_its_sample(site, address, browser):
    """The tutorial's page, beside the site, with the file that the tutorial exports and onnxruntime-web from npm."""
    folder = site.parent / "tutorial"
    folder.mkdir()
    run_blocks(ROOT / "docs" / "tutorials" / "browser.md", folder)
    for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        shutil.copy(NODE_MODULES / "onnxruntime-web" / "dist" / name, folder / "page")
    browser.get(f"{address.removesuffix(f'{UNDER}/')}tutorial/page/")
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60).until(lambda _: browser.find_element("id", "answer").text.startswith("class 5: 9"))
    browser.find_element("css selector", "input").send_keys(str(ROOT / "zoo" / "vit_digits" / "samples" / "digit_2.png"))
    WebDriverWait(browser, 60).until(lambda _: browser.find_element("id", "answer").text.startswith("class 2: 9"))


# what somebody types, and the page that should come first
SEARCHES = {
    "quickstart": "start/",
    "labels": "checkpoints/",
    "TensorRT": "tutorials/serve/",
    "GPU": "tutorials/serve/",
    "int8 accuracy": "precision/",
    "optimum": "tutorials/from-optimum/",
    "browser": "tutorials/browser/",
    "preprocessing": "preprocessing/",
    "dynamic": "sizes/",
    "publish": "publish/",
}
SEARCH = """
const [words] = arguments, input = document.querySelector(".md-search__input");
document.querySelector(".md-search-result__list").replaceChildren();
document.querySelector("#__search").checked = true;
input.focus();
input.value = words;
input.dispatchEvent(new KeyboardEvent("keyup", { bubbles: true }));
"""


def test_the_search_finds_the_right_page_first(address, browser):
    from selenium.webdriver.support.ui import WebDriverWait

    resize(browser, "desktop")
    first = {}
    for words in SEARCHES:
        browser.get(address)
        browser.execute_script(SEARCH, words)
        WebDriverWait(browser, 60).until(lambda _: browser.find_elements("css selector", ".md-search-result__link"))
        link = browser.find_element("css selector", ".md-search-result__link").get_attribute("href")
        first[words] = urlsplit(link).path.removeprefix(f"/{UNDER}/")
    assert not {words: path for words, path in first.items() if not path.startswith(SEARCHES[words])}


def test_the_recording_shows_its_last_frame(address, browser):
    """Where reduced motion is preferred, and after the button; the recording plays again on request."""
    resize(browser, "desktop")
    browser.get(address)
    button, image = (browser.find_element("css selector", f".home-recording {what}") for what in ("button", "img"))
    shown = "return arguments[0].currentSrc"
    moving, end = f"{address}assets/recording.svg", f"{address}assets/recording_end.svg"
    for label, picture in (("Skip to the end", moving), ("Play again", end), ("Skip to the end", f"{moving}?1")):
        assert button.text == label
        assert image.get_attribute("src").removeprefix(address) == picture.removeprefix(address)
        button.click()
    reduced = {"name": "prefers-reduced-motion", "value": "reduce"}
    for features, picture, running in (([], moving, 11), ([], end, 0), ([reduced], moving, 0)):
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(picture)
        assert browser.execute_script("return document.getAnimations().length") >= running
        assert running or not browser.execute_script("return document.getAnimations().length")
    browser.get(address)
    assert browser.execute_script(shown, browser.find_element("css selector", ".home-recording img")) == end
    assert not browser.find_elements("css selector", ".home-recording button")


def test_snippets_that_do_not_run_are_few():
    """tests/project/test_docs.py runs all blocks but those with a reason; these are all with a reason."""
    marked = [(page.name, reason) for page in PAGES for reason, _, _ in BLOCK.findall(page.read_text()) if reason]
    quoted = [entry for entry in marked if "quoted from" in entry[1]]
    others = [f"{name}: {reason.strip()}" for name, reason in marked if "quoted from" not in reason]
    print(json.dumps(others, indent=1))
    assert len(quoted) + len(others) == len(marked)
    assert len(others) <= 15, others
