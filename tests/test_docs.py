"The site of the executed notebooks: every notebook has its card, no link leads nowhere, and it opens in a browser without a server."
import json
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from bert_ner.core import ROOT, BertNerError
from bert_ner.docs import broken_links, notebooks, write_site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The site with one executed report, which has something to show."
    reports = tmp_path_factory.mktemp("docs")/"reports"
    report = json.loads((ROOT/"nbs/01_data.ipynb").read_text())
    last = [c for c in report["cells"] if c["cell_type"] == "code"][-1]
    last["outputs"] = [dict(output_type="display_data", data=d, metadata={}) for d in ({"text/markdown": "Half of the **sentences** have 19 words."},
        {"application/vnd.jupyter.widget-view+json": dict(model_id="0" * 32, version_major=2, version_minor=0), "text/plain": "a progress bar"})]
    report["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": dict(state={}, version_major=2, version_minor=0)}
    (reports/"mine").mkdir(parents=True)
    (reports/"mine"/"01_data.ipynb").write_text(json.dumps(report))
    return write_site(reports.parent/"site", reports).parent


def test_every_notebook_has_a_page_and_no_link_leads_nowhere(site):
    assert {p.stem for p in notebooks()} | {"index", "api", "mine.01_data"} == {p.stem for p in site.glob("*.html")}
    assert broken_links(site) == [] and (site/"demo.png").stat().st_size > 10_000


def test_a_broken_link_stops_the_site(tmp_path):
    broken = json.loads((ROOT/"nbs/10_docs.ipynb").read_text())
    broken["cells"].append(dict(cell_type="markdown", id="gone", metadata={}, source="[gone](99_gone.ipynb)"))
    (tmp_path/"reports"/"mine").mkdir(parents=True)
    (tmp_path/"reports"/"mine"/"10_docs.ipynb").write_text(json.dumps(broken))
    with pytest.raises(BertNerError, match="99_gone.html leads nowhere"): write_site(tmp_path/"site", tmp_path/"reports", only=["10_docs"])
    assert not (tmp_path/"site").exists() and list(tmp_path.iterdir()) == [tmp_path/"reports"]


@pytest.mark.browser
def test_the_site_opens_in_a_browser(site):
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path: pytest.fail("the browser tests need Chromium: install it (Debian: apt-get install chromium), or leave them out by `-m 'not browser'`")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        tab, faults = browser.new_page(viewport=dict(width=390, height=800)), []
        tab.set_default_timeout(60_000)
        tab.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        tab.on("pageerror", lambda e: faults.append(str(e)))
        tab.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else faults.append(r.url))
        tab.goto((site/"index.html").as_uri())
        assert tab.locator(".cards li").count() == len(notebooks()) >= 20 and tab.locator(".scroll table").count() == 2
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390 and tab.evaluate("document.querySelector('img').naturalWidth") > 0
        tab.click("text=report, mine")
        expect(tab.locator("text=Half of the sentences have 19 words")).to_be_visible(timeout=60_000)
        tab.click("nav.pages >> text=02_baseline")
        expect(tab.locator("h1").first).to_contain_text("baseline", timeout=60_000)
        tab.click("nav.pages >> text=bert-ner")
        tab.click("text=API: everything")
        expect(tab.locator("[id='core.split_of']")).to_contain_text("split_of", timeout=60_000)
        assert tab.locator("h2").count() >= 15
        browser.close()
    assert faults == []
