"The page of an executed notebook: figures first, code folded, nothing fetched, in a browser without a network."
import base64
import json
import re
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from playwright.sync_api import sync_playwright

from bert_ner.stages import run_notebook
from bert_ner.core import list_notebooks
from bert_ner.report import report_page, report_parts, run_parameters

STAGES = [
    p
    for p in list_notebooks()
    if any("".join(c["source"]).startswith("#| slow") for c in json.loads(p.read_text())["cells"])
]
PNG = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYPj/HwADAgH/5Z1j4QAAAABJRU5ErkJggg=="
    )
).decode()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page that `run_notebook` writes of a stage in miniature, whose outputs ask for scripts, styles and pictures
    from elsewhere."""
    cells = [
        new_markdown_cell("# toy\n\n> A toy."),
        new_code_cell("#| default_exp toy"),
        new_code_cell("#| export\nimport os"),
        new_code_cell("n = 1", metadata=dict(tags=["parameters"])),
        new_markdown_cell("## A function\n\n![badge](https://example.org/badge.svg) and [index](index.ipynb)"),
        new_code_cell("#| export\ndef f(x): return x + 1"),
        new_markdown_cell("## The stage"),
        new_code_cell(
            "#| slow\nfrom IPython.display import HTML, Image, Markdown\nimport base64\nImage(base64.b64decode('%s'))"
            % PNG
        ),
        new_code_cell(
            '#| slow\nHTML(\'<script src="https://cdn.example.org/x.js"></script><link rel="stylesheet" '
            'href="http://cdn.example.org/x.css"><style>@import url(http://cdn.example.org/y.css)</style>'
            "<img src=http://example.org/i.png><table><tr><td>' + str(f(n)) + '</td></tr></table><img "
            'src="https://example.org/j.png">\')'
        ),
        new_markdown_cell("## What goes wrong"),
        new_code_cell("#| slow\nimport ipywidgets\nipywidgets.IntSlider()"),
        new_markdown_cell("## Findings"),
        new_code_cell("#| slow\nMarkdown('F1 is **0.92**.')"),
        new_markdown_cell("Next: [03_bert](03_bert.ipynb), more."),
    ]
    folder = tmp_path_factory.mktemp("report")
    nbformat.write(
        new_notebook(
            cells=cells, metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
        ),
        folder / "toy.ipynb",
    )
    run_notebook(folder/"toy.ipynb", folder/"out"/"toy.ipynb", dict(n=41))
    return folder/"out"/"toy.html"


def test_what_was_learned_comes_first_and_code_is_folded(page):
    text = page.read_text()
    order = [
        '<h1 id="toy"',
        "F1 is <strong>0.92</strong>",
        "parameters of this run",
        '<h2 id="The-stage"',
        "<td>42</td>",
        "The functions that this notebook exports",
        '<h2 id="A-function"',
        '<span class="k">def',
    ]
    assert (
        sorted(order, key=text.index) == order
        and "<td>n</td><td><code>41</code></td>" in text
        and "IntSlider" not in re.sub(r"<details.*?</details>", "", text, flags=re.S)
    )
    # no source outside of what is folded
    assert "HTML(" not in re.sub("<[^>]+>", "", re.sub(r'<details class="code">.*?</details>', "", text, flags=re.S))
    assert 'href="../../nbs/03_bert.ipynb"' in text and 'href="../../nbs/index.ipynb"' in text


@pytest.mark.browser
def test_it_is_read_without_a_network(page):
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        pytest.fail(
            "the browser tests need Chromium: install it (Debian: apt-get install chromium), or leave them "
            "out by `-m 'not browser'`"
        )
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        context = browser.new_context(viewport=dict(width=390, height=800)); context.set_offline(True)
        tab, asked, faults = context.new_page(), [], []
        tab.set_default_timeout(600_000)
        tab.on("request", lambda r: asked.append(r.url))
        tab.on("pageerror", lambda e: faults.append(str(e)))
        tab.goto(page.as_uri())
        assert [u for u in asked if not u.startswith(("data:", "file:"))] == [] and faults == []
        assert (
            tab.evaluate("document.documentElement.scrollWidth") <= 390
            and tab.evaluate("document.documentElement.scrollHeight") < 2500
        )
        assert tab.locator("img").evaluate_all("all => all.map(i => i.naturalWidth)") == [1]
        shown = lambda: tab.locator("details.code[open]").count()
        assert shown() == 0 and not tab.get_by_text("def f(x)").is_visible()
        tab.get_by_role("button", name="show or fold all code").click()
        assert shown() == tab.locator("details.code").count() >= 5
        tab.get_by_role("button", name="show or fold all code").click()
        assert shown() == 0
        browser.close()


def test_nothing_of_the_page_names_a_server(page):
    # the source may say what it likes
    text = re.sub(r'<details class="code">.*?</details>', "", page.read_text(), flags=re.S)
    assert not re.search(r"<(script|link|img|iframe)\b[^>]*https?:", text) and "default-src 'none'" in text


@pytest.mark.parametrize("notebook", STAGES, ids=lambda p: p.stem)
def test_every_stage_begins_with_its_story(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    opening, learned, stage, library = report_parts(cells)
    assert sorted(c.id for part in (opening, learned, stage, library) for c in part) == sorted(c.id for c in cells)
    assert opening[0].source.startswith("# ") and not [c for c in library if c.source.startswith("#| slow")]
    assert [c for c in [*learned, *stage] if c.source.startswith("#| slow")]
    if any(c.source.startswith("## Findings") for c in cells):
        assert len(learned) >= 2 and learned[0].source.startswith("## Findings")


@pytest.mark.parametrize("cells", [[], [new_markdown_cell("only words")], [new_code_cell("")], [new_code_cell("1")], [new_markdown_cell("## Findings")],
    [new_code_cell("(", metadata=dict(tags=["injected-parameters"]))], [new_code_cell("x: int = 1\na, b = 1, 2\n", metadata=dict(tags=["parameters"]))],
    [new_code_cell("1/0", outputs=[new_output("error", ename="ZeroDivisionError", evalue="<b>", traceback=["\x1b[31mboom\x1b[0m <script>"])])],
    [new_code_cell("x", outputs=[new_output("stream", name="stderr", text="<script>alert(1)</script>"), new_output("display_data", {"application/json": {"a": 1}}), new_output("display_data", {})])]])
def test_odd_notebooks(cells):
    text = report_page(new_notebook(cells=cells), "<odd>")
    assert (
        text.startswith("<!doctype html>")
        and "<title>&lt;odd&gt;</title>" in text
        and "<script" not in text
        and text.rstrip().endswith("</html>")
    )
    assert run_parameters(cells) == {}
