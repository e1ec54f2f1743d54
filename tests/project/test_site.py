"""Tests of the built documentation: links, every page in a wide and a narrow browser window, and the live demo."""

from __future__ import annotations

import functools
import http.server
import json
import os
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
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from support.pages import BLOCK, PAGES, run_blocks
from support.paths import HELD_OUT, NODE, ROOT, TESTS
from support.requirements import required

NODE_MODULES = NODE / "node_modules"
WIDTHS = {"desktop": 1280, "phone": 390}
SCHEMES = {"desktop": "light", "phone": "dark"}
PALETTES = {"light": "default", "dark": "slate"}  # the theme's names
# axe's rules whose results depend on width or colours; the others are the same at every width
OF_LAYOUT = ("color-contrast", "link-in-text-block", "scrollable-region-focusable", "target-size")
UNDER = "vitzoo"  # a site of a project lies under its name


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages, in a folder below the one that is served."""
    folder = tmp_path_factory.mktemp("served") / UNDER
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    environment = os.environ | {"SITE_URL": f"http://127.0.0.1/{UNDER}/"}  # the path is that of the served site, for 404.html
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
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
    """The address of the served site, which contains the assets of the live page where onnxruntime-web is installed."""
    required("onnxruntime-web", NODE_MODULES / "onnxruntime-web")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{UNDER}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    yield from _chromium("--disable-gpu")


@pytest.fixture
def browser_with_webgpu():
    """Chromium with a graphics card that SwiftShader computes."""
    yield from _chromium("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")


def _chromium(*arguments):
    from selenium import webdriver

    chromium, driver = required("chromium"), required("chromedriver") if shutil.which("chromium") else ""
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", *arguments):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    found.set_script_timeout(180)  # axe-core needs seconds for the Python reference, and more on a busy machine
    yield found
    found.quit()


def resize(browser, kind, scheme=None):
    width = WIDTHS[kind]
    media = {"name": "prefers-color-scheme", "value": scheme or SCHEMES[kind]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [media]})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    )


def complaints(browser):
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


AXE = """
const [rules, done] = [arguments[0], arguments[arguments.length - 1]];
const only = rules.length ? { runOnly: { type: "rule", values: rules } } : {};
axe.run(document, { resultTypes: ["violations"], ...only }).then((found) => done(found.violations
  .filter((each) => ["serious", "critical"].includes(each.impact))
  .map((each) => `${each.id}: ${each.nodes.length} x ${each.nodes[0].html.slice(0, 160)} | ${each.nodes[0].failureSummary}`)));
"""
# the page looks for the preferred colours once, and may do so before the browser's emulation of a preference begins
CHOOSE = """
const [scheme] = arguments;
const option = document.querySelector(`.md-option[data-md-color-scheme="${scheme}"]`);
if (document.body.dataset.mdColorScheme !== scheme) option.dispatchEvent(new Event("change"));
return document.body.dataset.mdColorScheme === scheme;
"""
LOOK = """return {
  over: document.documentElement.scrollWidth - window.innerWidth,
  images: [...document.images].filter((image) => image.complete && !image.naturalWidth).map((image) => image.src),
  asked: performance.getEntriesByType("resource").map((each) => each.name).filter((name) => !name.startsWith("data:")),
}"""


@pytest.fixture(scope="module")
def axe():
    return (Path(required("axe-core", NODE_MODULES / "axe-core")) / "axe.min.js").read_text()


def faults_of(browser, address, name, scheme, axe, rules=()):
    """Messages in the console, broken images, anything wider than the window, requests to another host, and what axe finds.

    `rules` are those of axe that are checked; by default all.
    """
    browser.get(address + name)
    browser.execute_script("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
    choose = functools.partial(browser.execute_script, CHOOSE, PALETTES[scheme])
    WebDriverWait(browser, 20).until(lambda _: choose(), f"{name}: not {scheme}")
    seen = browser.execute_script(LOOK)
    faults = complaints(browser)
    faults += [f"{seen['over']} pixels too wide"] if seen["over"] > 1 else []
    faults += [f"broken {image}" for image in seen["images"]]
    faults += [f"asked {url}" for url in seen["asked"] if not url.startswith(address)]
    browser.execute_script(axe)
    faults += browser.execute_async_script(AXE, rules)
    return [f"{name}, {scheme}: {fault}" for fault in faults]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page(site, address, browser, axe, width):
    resize(browser, width)
    rules = OF_LAYOUT if width == "phone" else ()
    faults = [fault for name in pages_of(site) for fault in faults_of(browser, address, name, SCHEMES[width], axe, rules)]
    assert not faults, "\n".join(faults[:20])


@pytest.mark.parametrize("width", WIDTHS)
def test_main_pages_in_the_other_colours(address, browser, axe, width):
    (scheme,) = set(PALETTES) - {SCHEMES[width]}
    resize(browser, width, scheme)
    names = ("", "zoo/", "live/", "benchmarks/", "reference/cli/", "reference/python/", "404.html")
    faults = [fault for name in names for fault in faults_of(browser, address, name, scheme, axe)]
    assert not faults, "\n".join(faults[:20])


def shown(browser):
    script = """return [...document.querySelectorAll(".zoo-full tbody tr")].filter((row) => !row.hidden)
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


def test_every_point_of_the_plot_is_named_and_filtered(address, browser):
    resize(browser, "desktop")
    browser.get(f"{address}zoo/")
    points = browser.find_elements("css selector", ".zoo-plot circle")
    with_accuracy = [row for row in shown(browser) if row[8]]
    assert sorted(point.get_attribute("data-name") for point in points) == sorted(row[1] for row in with_accuracy)
    point = browser.find_elements("css selector", ".zoo-plot circle.best")[-1]
    name = point.get_attribute("data-name")
    ActionChains(browser).move_to_element(point).click().perform()
    assert browser.find_element("css selector", ".zoo-point").text.startswith(f"{name}: ")
    assert [row[1] for row in shown(browser)] == [name]
    assert len(browser.find_elements("css selector", ".zoo-plot circle.off")) == len(points) - 1


def test_names_are_copied_by_mouse_and_keyboard(address, browser):
    resize(browser, "desktop")
    browser.get(f"{address}zoo/vit/")
    browser.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    for index, press in enumerate((lambda button: button.click(), lambda button: button.send_keys(Keys.ENTER))):
        name = browser.find_elements("css selector", ".zoo-table td > code")[index].text
        press(browser.find_elements("css selector", ".zoo-copy")[index])
        status = browser.find_element("css selector", ".zoo-status")
        WebDriverWait(browser, 10).until(lambda _, name=name, status=status: status.text == f"Copied {name}")
        script = "navigator.clipboard.readText().then(arguments[0], (error) => arguments[0](String(error)))"
        assert browser.execute_async_script(script) == name


def test_a_phone_shows_image_size_and_parameters_of_the_zoo(address, browser):
    resize(browser, "phone")
    browser.get(f"{address}zoo/")
    script = """const region = document.querySelector(".zoo-full").parentElement.getBoundingClientRect();
      return [...document.querySelectorAll(".zoo-full th")].filter((head) => {
        const box = head.getBoundingClientRect();
        return box.width && box.left >= region.left && box.right <= region.right;
      }).map((head) => head.textContent)"""
    assert browser.execute_script(script) == ["name", "image", "M params", "GMACs", "top-1"]


@pytest.mark.parametrize("width", WIDTHS)
def test_labels_of_charts_are_complete_and_legible(address, browser, width):
    """No text of a chart leaves its picture or another's row, and none is smaller than 10 pixels."""
    resize(browser, width)
    script = """return [...document.querySelectorAll(".charts svg, .zoo-plot svg")].flatMap((picture) => {
      const frame = picture.getBoundingClientRect(), texts = [...picture.querySelectorAll("text")];
      return texts.map((text) => ({ text: text.textContent, box: text.getBoundingClientRect() }))
        .filter(({ box }) => box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1
          || box.bottom > frame.bottom + 1 || box.height < 10).map(({ text }) => text);
    })"""
    for page in ("benchmarks/", "zoo/"):
        browser.get(address + page)
        assert browser.find_elements("css selector", ".charts svg, .zoo-plot svg")
        assert browser.execute_script(script) == [], page


def test_an_address_without_a_page_leads_on(site, address, browser):
    resize(browser, "desktop")
    browser.get(f"{address}404.html")
    links = [link.get_attribute("href") for link in browser.find_elements("css selector", ".md-content__inner li a")]
    assert len(links) == 5
    for link in links:
        path = site / link.removeprefix(address)
        assert (path / "index.html" if path.is_dir() else path).is_file(), link
    field = browser.find_element("css selector", ".missing input")
    field.clear()
    field.send_keys("TorchScript", Keys.ENTER)
    WebDriverWait(browser, 30).until(lambda _: browser.find_elements("css selector", ".md-search-result__link"))


@pytest.fixture
def live(address, browser):
    """The live page, with its model loaded."""
    resize(browser, "desktop")
    browser.get(f"{address}live/")
    place = browser.find_element("css selector", ".live")
    WebDriverWait(browser, 60).until(lambda _: place.get_attribute("data-ready"))
    assert place.get_attribute("data-ready") == "yes", browser.find_element("css selector", ".live-answer").text
    return browser


def test_the_live_page_shows_the_self_check(live):
    """The browser's own verdict on the file. Without a graphics card there is no verdict of WebGPU, and the page says so."""
    line = live.find_element("css selector", ".live-check")
    WebDriverWait(live, 30).until(lambda _: line.get_attribute("data-ok"))
    assert line.get_attribute("data-ok") == "true", line.text
    assert "Self-check in WebAssembly: passed; " in line.text
    assert not complaints(live)
    button = live.find_element("css selector", ".live-gpu")
    assert button.is_displayed() == live.execute_script("return Boolean(navigator.gpu)")
    if button.is_displayed():
        button.click()
        second = live.find_elements("css selector", ".live-check")[1]
        WebDriverWait(live, 60).until(lambda _: second.text)
        assert "WebGPU cannot be checked: this browser has no adapter for it." in second.text or "passed" in second.text
        complaints(live)  # Chromium's own about the adapter


def test_the_live_page_checks_webgpu(address, browser_with_webgpu):
    browser = browser_with_webgpu
    browser.get(f"{address}live/")
    place = browser.find_element("css selector", ".live")
    WebDriverWait(browser, 60).until(lambda _: place.get_attribute("data-ready") == "yes")
    browser.find_element("css selector", ".live-gpu").click()
    line = browser.find_elements("css selector", ".live-check")[1]
    WebDriverWait(browser, 120).until(lambda _: line.text)
    assert "Self-check in WebGPU: passed; " in line.text


PAINT = """
const [values, module, done] = arguments, answer = document.querySelector(".live-answer");
answer.dataset.digit = "?";
import(module).then(({ paint }) => paint(values));
const look = () => (answer.dataset.digit === "?" ? setTimeout(look, 20) : done(answer.dataset.digit));
look();
"""


def test_the_live_page_reads_scans(live, address):
    """Held-out digits, two of each class, painted by the page's own function."""
    right = []
    for digit in range(10):
        files = sorted(HELD_OUT.glob(f"*_{digit}.png"))[:2]
        assert len(files) == 2
        for file in files:
            values = [value / 255 for value in Image.open(file).convert("L").tobytes()]
            right.append(live.execute_async_script(PAINT, values, f"{address}assets/live/live.js") == str(digit))
    assert sum(right) >= 18, right
    assert not complaints(live)


def draw(browser, strokes):
    """Draw strokes, in pixels of the canvas, with the mouse."""
    paper = browser.find_element("css selector", ".live-paper")
    script = "const box = arguments[0].getBoundingClientRect(); return [box.x, box.y, box.width / arguments[0].width]"
    left, top, scale = browser.execute_script(script, paper)
    mouse = ActionBuilder(browser, mouse=PointerInput("mouse", "mouse"), duration=0)
    for stroke in strokes:
        for index, (x, y) in enumerate(stroke):
            mouse.pointer_action.move_to_location(round(left + x * scale), round(top + y * scale))
            if index == 0:
                mouse.pointer_action.pointer_down()
        mouse.pointer_action.pointer_up()
    mouse.perform()


@pytest.mark.parametrize("hand", ["upright", "large", "quick"])
def test_the_live_page_reads_drawn_digits(live, hand):
    """Digits drawn with the mouse: a plain 7 and one with a bar, open and closed 4s, 1s with and without a serif."""
    drawings = json.loads((TESTS / "data" / "drawn_digits.json").read_text())[hand]
    answer = live.find_element("css selector", ".live-answer")
    for digit in "1479":
        live.find_element("css selector", ".live-clear").click()
        WebDriverWait(live, 10).until(lambda _: answer.text == "Draw a digit.")
        draw(live, drawings[digit])
        WebDriverWait(live, 10).until(lambda _, digit=digit: answer.get_attribute("data-digit") == digit)
    assert not complaints(live)


def test_the_browser_tutorial_classifies_its_sample(site, address, browser):
    """The tutorial's page, beside the site, with the file that the tutorial exports and onnxruntime-web from npm."""
    folder = site.parent / "tutorial"
    folder.mkdir()
    run_blocks(ROOT / "docs" / "tutorials" / "browser.md", folder)
    for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        shutil.copy(NODE_MODULES / "onnxruntime-web" / "dist" / name, folder / "page")
    browser.get(f"{address.removesuffix(f'{UNDER}/')}tutorial/page/")
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
    assert len(others) <= 22, others
