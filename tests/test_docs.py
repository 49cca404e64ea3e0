"""The figures of docs/results.md stand in `metrics/`.

The site of the executed notebooks: every notebook has its card, no link is broken, and it opens in a browser
without a server."""
import json
import re
import shutil
import subprocess
from statistics import mean, stdev

import pytest
from playwright.sync_api import expect, sync_playwright

from bert_ner.core import ROOT, BertNerError, list_notebooks
from bert_ner.docs import broken_links, write_site


RESULT = re.compile(
    r"^\| (Bi-LSTM|MiniLM-L6 BERT, case feature)(, word memory)? \| ([\d, ]+) \| ([\d.]+)(?: ± ([\d.]+))? \| "
    r"\*\*([\d.]+)(?: ± ([\d.]+))?\*\* \[([\d.]+), ([\d.]+)\] \| ([\d.]+)(?: ± ([\d.]+))? \|",
    re.M,
)


def wrong_figures(text: str, read) -> list[str]:
    """What the tables and sentences of results say, and the metrics (`read` gives a file of them) do not; nothing of
    `bert_ner.docs` is asked."""
    out, found = [], 0
    def same(what, said, value, digits=4):
        nonlocal found
        found += 1
        if not abs(float(said) - value) < .8 * 10**-digits: out.append(f"{what}: {said}, not {value:.{digits}f}")
    for corpus, part in zip(
        ("gmb", "sample"), re.split(r"^\*\*(?=Groningen|Sample)", text, flags=re.M)[1:], strict=True
    ):
        rows = RESULT.findall(part)
        if [r[0] for r in rows] != ["Bi-LSTM", "MiniLM-L6 BERT, case feature"]:
            out.append(f"{corpus}: the table has {len(rows)} rows")
        for stage, (_, memory, seeds, *said) in zip(("baseline", "bert"), rows):
            d = read(f"metrics/{corpus}/{stage}.json")
            if bool(memory) != d["parameters"].get("word_memory", False): out.append(f"{corpus}, {stage}: word memory")
            runs = [d["seeds"][s] for s in seeds.split(", ")]
            if set(seeds.split(", ")) != set(d["seeds"]): out.append(f"{corpus}, {stage}: seeds {seeds}")
            for k, (split, average) in enumerate((("validation", "micro"), ("test", "micro"), ("test", "macro"))):
                f1, (middle, spread) = [r[split][average]["f1"] for r in runs], [said[:2], said[2:4], said[6:8]][k]
                same(f"{corpus}, {stage}, {split} {average}", middle, mean(f1))
                if len(f1) > 1: same(f"{corpus}, {stage}, {split} {average} ±", spread, stdev(f1))
                elif spread: out.append(f"{corpus}, {stage}: a spread over one seed")
            for s, value in zip(said[4:6], d["seeds"][str(d["best_seed"])]["test"]["micro_f1_ci95"], strict=True):
                same(f"{corpus}, {stage}, interval", s, value, 3)
        export, triton, bert = (read(f"metrics/{corpus}/{n}.json") for n in ("export", "triton", "bert"))
        gates = re.search(
            r"entities in ([\d.]+)% of .*?int8 changes micro F1 by ([+-][\d.]+) there .*?server tags "
            r"([\d,]+) of ([\d,]+) test .*?gRPC, ([\d,]+) over HTTP.*?best model is ([\d.]+) ",
            part,
        ).groups()
        same("ONNX", gates[0], 100 * (1 - export["onnx"]["num_mismatches"] / export["onnx"]["sentences"]), 2)
        same("int8", gates[1].lstrip("+"), export["onnx_int8"]["f1"] - export["onnx_int8"]["f1_reference"])
        for said, value in zip(
            gates[2:5], (triton["identical"]["grpc"], triton["sentences"], triton["identical"]["http"])
        ):
            same("Triton", said.replace(",", ""), value, 0)
        same("raw text", gates[5], bert["best_seed_test"]["raw_text"]["micro_f1"])
    return out + ([] if found >= 30 else [f"only {found} figures were found"])


def committed(path: str):
    return json.loads(
        subprocess.run(["git", "show", f"HEAD:./{path}"], cwd=ROOT, capture_output=True, check=True).stdout
    )
def present(path: str): return json.loads((ROOT/path).read_text())


def test_figures_of_the_results_stand_in_the_metrics():
    """Worked out from the figures of each seed.

    A run on another machine leaves others in `metrics/`: then the page is held to those that were committed."""
    text = (ROOT/"docs/results.md").read_text()
    wrong = wrong_figures(text, present)
    if wrong and not (ROOT/".git").exists():
        pytest.skip("metrics/ has a run's own figures, and there is no commit to compare with")
    assert wrong == [] or wrong_figures(text, committed) == [], wrong


@pytest.mark.parametrize("place", ["| **0.", "± 0.", "[0.", "test sentences exactly", "best model is 0.", "micro F1 by "])
def test_a_figure_that_is_changed_is_found(place):
    text = (ROOT/"docs/results.md").read_text()
    at = text.index(place, text.index("**Groningen")) + (len(place) if place[-1] in ". " else -2)
    at = next(i for i in range(at, at + 9) if text[i].isdigit())
    changed = text[:at] + str((int(text[at]) + 5) % 10) + text[at + 1:]
    assert text != changed and set(wrong_figures(changed, present)) > set(wrong_figures(text, present))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The site with one executed report, which has something to show."
    reports = tmp_path_factory.mktemp("docs")/"reports"
    report = json.loads((ROOT/"nbs/01_data.ipynb").read_text())
    last = [c for c in report["cells"] if c["cell_type"] == "code"][-1]
    last["outputs"] = [
        dict(output_type="display_data", data=d, metadata={})
        for d in (
            {"text/markdown": "Half of the **sentences** have 19 words."},
            {
                "application/vnd.jupyter.widget-view+json": dict(model_id="0" * 32, version_major=2, version_minor=0),
                "text/plain": "a progress bar",
            },
        )
    ]
    report["metadata"]["widgets"] = {
        "application/vnd.jupyter.widget-state+json": dict(state={}, version_major=2, version_minor=0)
    }
    (reports/"mine").mkdir(parents=True)
    (reports/"mine"/"01_data.ipynb").write_text(json.dumps(report))
    return write_site(reports.parent/"site", reports).parent


def test_every_notebook_has_a_page_and_no_link_leads_nowhere(site):
    guides = {p.stem for p in (ROOT/"docs").glob("*.md")}
    assert len(guides) >= 8 and {p.stem for p in list_notebooks()} | guides | {"index", "api", "mine.01_data"} == {
        p.stem for p in site.glob("*.html")
    }
    assert 'href="page.html"' in (site/"own-data.html").read_text()
    assert broken_links(site) == [] and (site/"demo.png").stat().st_size > 10_000


def test_a_broken_link_stops_the_site(tmp_path):
    broken = json.loads((ROOT/"nbs/10_docs.ipynb").read_text())
    broken["cells"].append(dict(cell_type="markdown", id="gone", metadata={}, source="[gone](99_gone.ipynb)"))
    (tmp_path/"reports"/"mine").mkdir(parents=True)
    (tmp_path/"reports"/"mine"/"10_docs.ipynb").write_text(json.dumps(broken))
    with pytest.raises(BertNerError, match="99_gone.html is broken"):
        write_site(tmp_path/"site", tmp_path/"reports", only=["10_docs"])
    assert not (tmp_path/"site").exists() and list(tmp_path.iterdir()) == [tmp_path/"reports"]


@pytest.mark.browser
def test_the_site_opens_in_a_browser(site):
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
        tab, faults = browser.new_page(viewport=dict(width=390, height=800)), []
        tab.set_default_timeout(60_000)
        tab.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        tab.on("pageerror", lambda e: faults.append(str(e)))
        tab.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else faults.append(r.url))
        tab.goto((site/"index.html").as_uri())
        assert (
            tab.locator(".cards li").count() == len(list_notebooks()) >= 20
            and tab.locator(".scroll table").count() == 2
        )
        assert (
            tab.evaluate("document.documentElement.scrollWidth") <= 390
            and tab.evaluate("document.querySelector('img').naturalWidth") > 0
        )
        tab.click("text=report, mine")
        expect(tab.locator("text=Half of the sentences have 19 words")).to_be_visible(timeout=60_000)
        tab.click("nav.pages >> text=02_baseline")
        expect(tab.locator("h1").first).to_contain_text("baseline", timeout=60_000)
        tab.click("nav.pages >> text=bert-ner")
        tab.click("text=API: everything")
        expect(tab.locator("[id='core.assign_split']")).to_contain_text("assign_split", timeout=60_000)
        assert tab.locator("h2").count() >= 15
        browser.close()
    assert faults == []
