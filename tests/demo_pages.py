"What the tests of the page share: servers, a browser, and what a person does with the page."
import os, re, shutil, socket, subprocess, sys, time
from contextlib import contextmanager

import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from bert_ner.core import ROOT

PATIENCE = int(os.environ.get("BERT_NER_PATIENCE", 120))  # seconds: a busy machine is no failure
TEXT = "Mr. Bush met Paris.\n\n  In New York\ton Monday 🎉 met Paris"
# Voila's own bundle is older than JupyterLab
NOT_OURS = re.compile(r"(Unsatisfied|No satisfying) version .* shared (singleton )?module @jupyterlab/"
                      # JupyterLab on a busy machine
                      r"|Plugin @jupyterlab/.*(too long to|ms to) activate")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


SERVERS = {}    # port -> psutil.Process of the server there


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def running(command, ready, log, **env):
    "Run `command` until the block ends; give what the pattern `ready` finds in its output. No process may be left."
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BERT_NER_")}
    with open(log, "w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env={**clean, "BERT_NER_ROOT": str(ROOT), **env}
        )
    family = []
    try:
        end = time.monotonic() + PATIENCE
        while not (found := re.search(ready, log.read_text())):
            assert process.poll() is None and time.monotonic() < end, f"the server did not start:\n{log.read_text()}"
            time.sleep(.1)
        SERVERS[re.search(r":(\d+)/", found[0])[1]] = psutil.Process(process.pid)
        yield found[0]
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.terminate()
        try: process.wait(60)
        except subprocess.TimeoutExpired: process.kill(); process.wait(); raise
    _, left = psutil.wait_procs(family, timeout=30)
    assert not left, f"left running: {left}"


@contextmanager
def voila(log, port=None, serve="demo", call="serve_page(", **env):
    "The page as `make demo` serves it; gives its address. It must print that and nothing else."
    code = f"from bert_ner.{serve} import *; {call}port={port or free_port()}, browser=False)"
    with running(
        [sys.executable, "-W", "error::UserWarning", "-c", code], r"http://127\.0\.0\.1:\d+/", log, **env
    ) as url:
        yield url
    said = log.read_text().replace("[IPKernelApp] ERROR | KeyboardInterrupt caught in kernel.\n", "")    # Ctrl-C reaches it, too
    assert said == f"The page is at {url} (Ctrl-C stops it)\n"


def kernels(url):
    "The processes of the kernels of the server at `url`."
    def name(p):
        try: return " ".join(p.cmdline())
        except psutil.Error: return ""                                  # it ended just now
    return [
        p for p in SERVERS[re.search(r":(\d+)/", url)[1]].children(recursive=True) if "ipykernel_launcher" in name(p)
    ]


def until(condition, what):
    "Wait until `condition()` is true."
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(.2)


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        pytest.fail(
            "the browser tests need Chromium: install it (Debian: apt-get install chromium), or leave them "
            "out by `-m 'not browser'`"
        )
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser, url, ready=".ner-demo .ner-text", **kw):
    """`url` in a new tab, when `ready` is there.

    Anything on the console, and anything fetched from elsewhere, fails the test."""
    context = browser.new_context(
        **{"viewport": dict(width=1200, height=900), "permissions": ["clipboard-read", "clipboard-write"], **kw}
    )
    tab = context.new_page()
    tab.faults = faults = []
    tab.set_default_timeout(PATIENCE * 1000)
    tab.on(
        "console",
        lambda m: (
            None
            if m.type in ("debug", "info", "log") or NOT_OURS.match(m.text)
            else faults.append(f"{m.type}: {m.text}")
        ),
    )
    tab.on("pageerror", lambda e: faults.append(str(e)))
    tab.on(
        "request",
        lambda r: (
            None
            if r.url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:"))
            else faults.append(r.url)
        ),
    )
    tab.goto(url)
    tab.wait_for_selector(ready)
    yield tab
    context.close()
    assert not faults, faults


@contextmanager
def jupyterlab(folder, notebook="07a_page.ipynb", **env):
    "JupyterLab on a copy of the page's notebook in `folder`; gives the notebook's address."
    (folder/"work").mkdir()
    shutil.copy(ROOT/"nbs"/notebook, folder/"work")
    port, apart = (
        free_port(),
        {f"JUPYTER{k}": str(folder / "jupyter") for k in ("_CONFIG_DIR", "LAB_SETTINGS_DIR", "LAB_WORKSPACES_DIR")},
    )
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        f"--ServerApp.root_dir={folder / 'work'}",
        "--LabApp.expose_app_in_browser=True",
    ]
    with running(command, rf"http://127\.0\.0\.1:{port}/lab\?token=\w+", folder/"log.txt", **env, **apart) as url:
        yield url.replace("/lab?", f"/lab/tree/{notebook}?")


def lab(page, command, **args):
    page.evaluate("([name, args]) => window.jupyterapp.commands.execute(name, args)", [command, args])


@pytest.fixture(scope="module")
def folder(mini_tagger_folder): return mini_tagger_folder   # the tagger that the page shows


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    log = tmp_path_factory.mktemp("voila")/"log.txt"
    with voila(log, BERT_NER_MODEL=str(folder), BERT_NER_TRITON="127.0.0.1:1") as url: yield url


@pytest.fixture(scope="module")
def voila_page(browser, address):
    with opened(browser, address) as page: yield page


@pytest.fixture(scope="module")
def lab_page(browser, folder, tmp_path_factory):
    top = tmp_path_factory.mktemp("lab")
    with jupyterlab(top, BERT_NER_MODEL=str(folder), BERT_NER_TRITON="127.0.0.1:1") as url:
        with opened(browser, url, ".jp-NotebookPanel") as page:
            page.folder = top
            page.wait_for_function(
                "window.jupyterapp.shell.currentWidget?.context?.sessionContext?.session?.kernel?.status === 'idle'"
            )
            lab(page, "notebook:run-all-cells")
            page.wait_for_selector(".ner-demo .ner-text")
            yield page


@pytest.fixture(scope="module", params=["voila", "lab"])
def page(request):
    "The page, live: every test that asks for it runs twice."
    return request.getfixturevalue(f"{request.param}_page")


@pytest.fixture(autouse=True)
def patience(): expect.set_options(timeout=PATIENCE * 1000)


def box(page): return page.get_by_label("Text", exact=True)
def status(page): return page.locator(".ner-demo p.ner-status[role=status]")
def alert(page): return page.locator(".ner-demo [role=alert]")
def card(page): return page.locator(".ner-card")
def layer(page, side=0): return page.locator(".ner-side .ner-text").nth(side)
def shown(page): return layer(page).text_content()
def marks(page, side=0):
    "Text and label of each, all of one moment."
    read = "marks => marks.map(m => [m.textContent, m.getAttribute('data-label')])"
    return [tuple(m) for m in layer(page, side).locator("mark:not(.ner-off)").evaluate_all(read)]
def rows(page):
    return [[c.strip() for c in r.locator("td").all_text_contents()] for r in page.locator(".ner-list tbody tr").all()]
def options(page, label, which="option"):
    return [o.replace("\xa0", " ") for o in page.get_by_label(label, exact=True).locator(which).all_text_contents()]
def chip(page, label): return page.locator(".ner-legend").get_by_role("button", name=re.compile(f"^{label} "))


def settled(page): expect(page.locator(".ner-sides")).to_have_attribute("aria-busy", "false")


def tag(page, text_column, n):
    "Put `text` into the box, wait for `n` entities of it."
    page.get_by_label("Compare with").select_option("")
    box(page).fill(text_column)
    settled(page)
    assert shown(page) == text_column and len(marks(page)) == n
    assert re.match(rf"{n:,} entit(y|ies) in [\d,.]+ ms by ", status(page).text_content())


def spot(page, word, nth=0, side=0):
    "Where on the screen the `nth` `word` of the text is: left, right, middle height."
    return layer(page, side).evaluate("""(e, [word, nth]) => {
        const w = document.createTreeWalker(e, 4), range = document.createRange(); let n;
        while (n = w.nextNode()) for (let i = -1; (i = n.data.indexOf(word, i + 1)) >= 0;) if (nth-- === 0) {
            range.setStart(n, i); range.setEnd(n, i + word.length);
            const r = range.getBoundingClientRect();
            return [r.left, r.right, (r.top + r.bottom) / 2] } }""", [word, nth])


def click(page, word, nth=0, side=0, twice=False):
    box(page).scroll_into_view_if_needed()
    x, y, h = spot(page, word, nth, side)
    (page.mouse.dblclick if twice else page.mouse.click)((x + y) / 2, h)


def saved(page, name):
    with page.expect_download() as download: page.get_by_role("button", name=name).click()
    with open(download.value.path(), encoding="utf-8", newline="") as f:
        return download.value.suggested_filename, f.read()


def violations(page, within=None, best=False):
    """What axe-core finds that is serious or critical by WCAG 2.1 A and AA; with `best` whatever breaks its best
    practices, landmarks among them."""
    wanted = {"runOnly": ["best-practice"] if best else ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    found = Axe().run(page, context=within, options=wanted).response
    assert len(found["passes"]) >= 8
    return [
        (v["id"], n["html"][:200], n.get("failureSummary"))
        for v in found["violations"]
        if best or v["impact"] in ("serious", "critical")
        for n in v["nodes"]
    ]


def changes(page): return page.locator(".ner-changes")
def kept(page): return re.sub(r",? ?(not|all) saved.*", "", changes(page).text_content())


def correct(page, word, label, nth=0, twice=False):
    "Click `word`, and say in its card that it is a `label`, e.g. `org organization`."
    click(page, word, nth, twice=twice)
    card(page).get_by_role("button", name=label).click()
    settled(page)


def paste(page, text):
    "Paste `text` over everything."
    page.evaluate("text => navigator.clipboard.writeText(text)", text)
    box(page).press("Control+a"); box(page).press("Control+v")
    settled(page)
    assert shown(page) == text


def throw_away(page):
    "All corrections, where there are some: the first click asks, the second does it; a lost focus asks anew."
    settled(page)
    button = page.locator(".ner-fixes button", has_text="Throw away")
    for _ in range(10):
        if not button.is_visible(): break
        button.click(); page.wait_for_timeout(200)
    expect(page.locator(".ner-fixes")).to_be_hidden()
    settled(page)


# Jupyter's own word on what the test did
def kernel_ended(page): page.faults[:] = [f for f in page.faults if "Connection lost, reconnecting" not in f]


def reload(page):
    "Load the page anew, whatever it asks; in JupyterLab the notebook is saved first, for its outputs."
    if in_lab := page.evaluate("!document.body.dataset.voila"):
        lab(page, "docmanager:save")
        page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty")
    accept = lambda dialog: dialog.accept()
    page.on("dialog", accept)
    page.reload()
    if in_lab: page.wait_for_selector(".jp-NotebookPanel")
    page.wait_for_selector(".ner-demo .ner-text")
    settled(page)
    page.remove_listener("dialog", accept)
