"The page in a real browser: served by Voila, and in JupyterLab, over a miniature tagger."
import json, os, re, shutil, socket, subprocess, sys, time
from contextlib import contextmanager

import psutil
import pytest
from playwright.sync_api import expect, sync_playwright

from bert_ner.core import ROOT
from bert_ner.demo import EXAMPLES
from bert_ner.infer import Tagger, best_engine

pytestmark = pytest.mark.browser
PATIENCE = 120  # seconds: a busy machine is no failure
TEXT = "Mr. Bush met Paris.\n\n  In New York\ton Monday 🎉 met Paris"
FLAGS = ("--no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync").split()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def running(command, ready, log, **env):
    "Run `command` until the block ends; give what the pattern `ready` finds in its output. No process may be left."
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BERT_NER_")}
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env={**clean, "BERT_NER_ROOT": str(ROOT), **env})
    family = []
    try:
        end = time.monotonic() + PATIENCE
        while not (found := re.search(ready, log.read_text())):
            assert process.poll() is None and time.monotonic() < end, f"the server did not start:\n{log.read_text()}"
            time.sleep(.1)
        yield found[0]
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.terminate()
        try: process.wait(60)
        except subprocess.TimeoutExpired: process.kill(); process.wait(); raise
    _, left = psutil.wait_procs(family, timeout=30)
    assert not left, f"left running: {left}"


@contextmanager
def voila(log, port=None, **env):
    "The page as `make demo` serves it; gives its address. It must print that and nothing else."
    code = f"from bert_ner.demo import serve_page; serve_page({port or free_port()}, browser=False)"
    with running([sys.executable, "-W", "error::UserWarning", "-c", code], r"http://127\.0\.0\.1:\d+/", log, **env) as url: yield url
    assert log.read_text() == f"The page is at {url} (Ctrl-C stops it)\n"


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path: pytest.fail("the browser tests need Chromium: install it (Debian: apt-get install chromium), or leave them out by `-m 'not browser'`")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser, url, ready=".ner-demo .ner-text", **kw):
    "`url` in a new tab, when `ready` is there. Errors on the console, and anything fetched from elsewhere, fail the test."
    tab = browser.new_page(**{"viewport": dict(width=1200, height=900), **kw})
    tab.set_default_timeout(PATIENCE * 1000)
    faults = []
    tab.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda e: faults.append(str(e)))
    tab.on("request", lambda r: None if r.url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")) else faults.append(r.url))
    tab.goto(url)
    tab.wait_for_selector(ready)
    yield tab
    tab.close()
    assert not faults


@pytest.fixture(scope="module")
def address(mini_tagger_folder, tmp_path_factory):
    log = tmp_path_factory.mktemp("voila")/"log.txt"
    with voila(log, BERT_NER_MODEL=str(mini_tagger_folder), BERT_NER_TRITON="127.0.0.1:1") as url: yield url


@pytest.fixture(scope="module")
def page(browser, address):
    with opened(browser, address) as page: yield page


@pytest.fixture(autouse=True)
def patience(): expect.set_options(timeout=PATIENCE * 1000)


def status(page): return page.locator(".ner-status")
def shown(page): return page.locator(".ner-text").text_content()
def marks(page): return [(m.text_content(), m.get_attribute("data-label")) for m in page.locator(".ner-text mark").all()]


def options(page, label, which="option"): return [o.replace("\xa0", " ") for o in page.get_by_label(label).locator(which).all_text_contents()]


def tag(page, text, n):
    "Type `text`, press the button, wait for `n` entities of it."
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Highlight").click()
    page.wait_for_function("text => document.querySelector('.ner-text').textContent === text", arg=text)
    expect(status(page)).to_have_text(re.compile(rf"^{n} entit(y|ies) in "))


def test_opens_on_an_example(page):
    assert page.title() == "bert-ner: named entities"
    assert page.get_by_role("heading", level=1).text_content().startswith("Named entities")
    assert page.get_by_label("Text", exact=True).input_value() == shown(page) == next(iter(EXAMPLES.values()))
    assert page.get_by_label("Types of entities").locator("li").count() == 8
    assert not page.get_by_label("Triton's address").is_visible()
    assert page.locator("text=/import|Traceback|test_eq/").count() == 0


def test_typed_text_is_highlighted(page, mini_tagger_folder):
    tag(page, TEXT, 5)
    entities = Tagger.load(mini_tagger_folder).tag(TEXT)
    assert [e.text for e in entities] == ["Mr. Bush", "Paris", "New York", "Monday", "Paris"]
    assert marks(page) == [(e.text, e.label) for e in entities]
    for mark, e in zip(page.locator(".ner-text mark").all(), entities):
        assert mark.get_attribute("title").endswith(f"({e.label}), score {e.score:.2f}, characters {e.start} to {e.end}")
    rows = [r.locator("td").all_text_contents() for r in page.locator(".ner-table tbody tr").all()]
    assert [(r[0], r[1][:3], r[2], r[3], r[4]) for r in rows] == [(e.text, e.label, f"{e.score:.3f}", str(e.start), str(e.end)) for e in entities]
    assert options(page, "Example", "option:checked") == ["your own text"]


def test_marks_move_no_text(page):
    tag(page, TEXT, 5)
    where = """box => {
        const last = e => { const r = document.createRange(), w = document.createTreeWalker(e, 4); let n; while (w.nextNode()) n = w.currentNode;
            r.setStart(n, n.length - 1); r.setEnd(n, n.length); const a = r.getBoundingClientRect(), b = e.getBoundingClientRect();
            return [a.x - b.x, a.y - b.y, b.height] };
        const plain = box.cloneNode(); plain.textContent = box.textContent; box.after(plain);
        const both = [last(box), last(plain)]; plain.remove(); return both }"""
    marked, plain = page.locator(".ner-text").evaluate(where)
    assert marked == pytest.approx(plain, abs=.5)
    assert plain[1] > 60  # three lines: white space stays


def test_download(page, mini_tagger_folder):
    tag(page, TEXT, 5)
    with page.expect_download() as download: page.get_by_role("link", name="Download JSON").click()
    assert download.value.suggested_filename == "entities.json"
    with open(download.value.path(), encoding="utf-8") as f: saved = json.load(f)
    assert saved == dict(text=TEXT, engine=best_engine(mini_tagger_folder), entities=[e.as_dict() for e in Tagger.load(mini_tagger_folder).tag(TEXT)])


@pytest.mark.parametrize("text", ["<script>window.broken = 1</script> in Paris", "<img src=x onerror='window.broken = 1'> Paris",
                                  "</div></style><b onclick=\"window.broken = 1\">Paris</b> &amp; &lt;"])
def test_html_stays_text(page, text):
    tag(page, text, 1)
    assert shown(page) == text and marks(page) == [("Paris", "geo")]
    assert page.locator(".ner-text").evaluate("e => [...e.querySelectorAll('*')].map(x => x.tagName)") == ["MARK"]
    assert page.evaluate("window.broken === undefined")


def test_another_example(page):
    page.get_by_label("Example").select_option("Markets")
    expect(page.locator(".ner-text")).to_have_text(re.compile("^Shares of General Motors"))
    assert shown(page) == page.get_by_label("Text", exact=True).input_value() == EXAMPLES["Markets"]
    assert ("New York", "geo") in marks(page)


def test_leaving_the_field_is_enough(page):
    page.get_by_label("Text", exact=True).fill("met in Paris")
    page.get_by_label("Text", exact=True).blur()
    expect(page.locator(".ner-text")).to_have_text("met in Paris")
    assert marks(page) == [("Paris", "geo")]


def test_nothing_to_find(page):
    tag(page, "", 0)
    assert "No entities in this text." in page.locator(".ner-table").text_content()


def test_engines(page):
    tag(page, TEXT, 5)
    before = marks(page)
    assert options(page, "Engine") == ["ONNX Runtime", "ONNX Runtime, int8", "OpenVINO", "Triton server"]
    page.get_by_label("Engine").select_option("ONNX Runtime, int8")
    expect(status(page)).to_have_text(re.compile("^5 entities in .* by ONNX Runtime, int8$"))
    assert marks(page) == before
    page.get_by_label("Engine").select_option("ONNX Runtime")
    expect(status(page)).to_have_text(re.compile("by ONNX Runtime$"))


def test_triton_out_of_reach(page):
    tag(page, TEXT, 5)
    page.get_by_label("Engine").select_option("Triton server")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("127.0.0.1:1")
    assert marks(page) == [] and shown(page) == TEXT  # nothing stale
    assert page.locator(".ner-table").count() == page.get_by_role("link", name="Download JSON").count() == 0
    page.get_by_label("Triton's address").fill("no address")
    page.get_by_label("Triton's address").blur()
    expect(alert).to_contain_text("'no address' is not the address of a server")
    assert "\n" not in alert.text_content() and "Traceback" not in page.content()
    page.get_by_label("Engine").select_option("ONNX Runtime")
    expect(status(page)).to_have_text(re.compile("^5 entities"))
    assert not page.get_by_label("Triton's address").is_visible()


def test_no_model_and_port_taken(browser, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with voila(tmp_path/"log.txt", port, BERT_NER_MODEL=str(tmp_path/"nothing")) as url, opened(browser, url) as page:
            assert f":{port}/" not in url
            assert "`make repro`" in page.get_by_role("alert").text_content()
            assert shown(page) == next(iter(EXAMPLES.values())) and marks(page) == []
            assert "Traceback" not in page.content()


def test_looks(browser, address, tmp_path):
    "Pictures in both themes and on a phone, for a person to look at; nothing is wider than the screen."
    for name, query, size in [("light", "", (1200, 900)), ("dark", "?theme=dark", (1200, 900)), ("phone", "", (390, 844))]:
        with opened(browser, address + query, viewport=dict(width=size[0], height=size[1])) as page:
            tag(page, TEXT, 5)
            page.screenshot(path=tmp_path/f"{name}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
            assert (tmp_path/f"{name}.png").stat().st_size > 10_000


@pytest.mark.pipeline
def test_trained_model(browser, tmp_path):
    "The page with the pipeline's own model finds entities. Its picture goes to the file that BERT_NER_SCREENSHOT names: the README's."
    picture = os.environ.get("BERT_NER_SCREENSHOT") or tmp_path/"page.png"
    with voila(tmp_path/"log.txt") as url, opened(browser, url, viewport=dict(width=1000, height=760), device_scale_factor=2) as page:
        expect(status(page)).to_have_text(re.compile("^[1-9][0-9]* entit"))
        page.screenshot(path=picture, full_page=True)


def test_jupyterlab(browser, mini_tagger_folder, tmp_path):
    "The same notebook in JupyterLab, all cells run, in both themes."
    (tmp_path/"work").mkdir()
    shutil.copy(ROOT/"nbs"/"07a_page.ipynb", tmp_path/"work")
    port, apart = free_port(), {f"JUPYTER{k}": str(tmp_path/"jupyter") for k in ("_CONFIG_DIR", "LAB_SETTINGS_DIR", "LAB_WORKSPACES_DIR")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", f"--ServerApp.root_dir={tmp_path/'work'}", "--LabApp.expose_app_in_browser=True"]
    ready = rf"http://127\.0\.0\.1:{port}/lab\?token=\w+"
    with running(command, ready, tmp_path/"log.txt", BERT_NER_MODEL=str(mini_tagger_folder), **apart) as url:
        with opened(browser, url.replace("/lab?", "/lab/tree/07a_page.ipynb?"), ".jp-NotebookPanel") as page:
            page.wait_for_function("window.jupyterapp.shell.currentWidget?.context?.sessionContext?.session?.kernel?.status === 'idle'")
            page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
            expect(page.locator(".ner-demo .ner-text")).to_have_text(re.compile("^Ministers from Kenya"))
            tag(page, TEXT, 5)
            assert shown(page) == TEXT and marks(page)[0] == ("Mr. Bush", "per")
            page.screenshot(path=tmp_path/"lab-light.png")
            page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
            page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
            page.wait_for_selector("#jupyterlab-splash", state="detached")
            page.screenshot(path=tmp_path/"lab-dark.png")
            with page.expect_download() as download: page.get_by_role("link", name="Download JSON").click()
            with open(download.value.path(), encoding="utf-8") as f: assert json.load(f)["text"] == TEXT
