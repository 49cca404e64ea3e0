"The page in a real browser, over a miniature tagger: every feature served by Voila, and the same in JupyterLab."
import csv, io, json, os, random, re, shutil, socket
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from bert_ner.baseline import train_bilstm
from bert_ner.corpus import read_corpus
from bert_ner.data import to_dataset
from bert_ner.demo import EXAMPLES, MAX_TEXT_CHARS
from bert_ner.tagger import Tagger
from bert_ner.engines import select_engine
from bert_ner.triton.server import TritonServer
from bert_ner.triton.repository import build_repository
from demo_pages import *  # noqa: F403 its fixtures too

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(mini_tagger_folder, tmp_path_factory):
    """The miniature tagger with a Bi-LSTM beside it, as the pipeline leaves them.

    The Bi-LSTM knows `Paris` and `Monday`, and nothing of `New York` and `Mr. Bush`."""
    top, known, rng = tmp_path_factory.mktemp("models"), dict(Paris="B-geo", Monday="B-tim"), random.Random(42)
    shutil.copytree(mini_tagger_folder, top/"onnx")
    drawn = [rng.choices("Paris Monday New York Mr. Bush in on met .".split(), k=8) for _ in range(200)]
    train_bilstm(
        to_dataset([(words, [known.get(w, "O") for w in words]) for words in drawn]),
        top / "baseline",
        6,
        6,
        2e-2,
        256,
        16,
        16,
        0.0,
        0.0,
    )
    return top/"onnx"


@pytest.fixture(scope="module")
def triton(folder, tmp_path_factory):
    "The address of a live Triton server over the same model."
    top = tmp_path_factory.mktemp("triton")
    with TritonServer(build_repository(top/"models", model=folder), log=top/"log.txt", timeout=PATIENCE) as server:
        yield server.urls["grpc"]


def test_opens_on_an_example(page):
    assert page.get_by_role("heading", level=1).text_content().startswith("Named entities")
    assert box(page).input_value() == shown(page) == next(iter(EXAMPLES.values()))
    assert page.locator(".ner-legend button").count() == 8
    assert options(page, "Text from", "option:checked") == ["Talks on water"]
    assert not page.get_by_label("Triton's address").is_visible()
    assert not page.locator("[class^=ner-still]").is_visible()          # the still hides where the widget lives
    assert page.locator("text=/Traceback|test_eq/").count() == 0


def test_entities_appear_while_typing(page, mini_tagger_folder):
    tag(page, "", 0)
    box(page).press_sequentially("In Paris and ", delay=20)
    expect(layer(page).locator("mark")).to_have_count(1)
    page.keyboard.press("Control+Home")
    page.keyboard.type("On Monday: ")
    # the mark moved with its word, before any answer
    assert marks(page)[-1] == ("Paris", "geo")
    expect(layer(page).locator("mark")).to_have_count(2)
    assert shown(page) == "On Monday: In Paris and "
    tag(page, TEXT, 5)
    entities = Tagger.from_pretrained(mini_tagger_folder).tag(TEXT)
    assert [e.text for e in entities] == ["Mr. Bush", "Paris", "New York", "Monday", "Paris"]
    assert marks(page) == [(e.text, e.label) for e in entities]
    assert options(page, "Text from", "option:checked") == ["your own text"]


def test_marks_move_no_letter(page, tmp_path):
    "The marked text and the field that is typed into are the same picture, letter for letter."
    tag(page, TEXT + "\n\nTo AVA Wifi, Washington officials met Mr. Bush " + "in New York and Paris " * 12 + "\n", 30)
    def picture(css):
        style = page.add_style_tag(
            content=css + ".ner-demo .ner-box { border-color: transparent !important; box-shadow: none !important }"
        )
        page.locator(".ner-box").first.screenshot(path=tmp_path/"box.png")
        style.evaluate("e => e.remove()")
        return np.asarray(Image.open(tmp_path/"box.png").convert("L")).astype(int)
    bare = (
        ".ner-demo .ner-text mark { background: none !important; box-shadow: none !important; color: inherit "
        "!important }"
        ".ner-demo .ner-text mark::before { content: none !important }"
    )
    typed = ".ner-demo .ner-text { visibility: hidden } .ner-demo .ner-input { -webkit-text-fill-color: currentColor !important }"
    marked, plain = picture(bare), picture(typed)
    apart = lambda a, b: (abs(a - b) > 48).sum() / (b < 128).sum()
    assert (plain < 128).sum() > 3000 and apart(marked, plain) < .25       # letters on whole pixels or between them
    # one pixel would be seen
    for shift in ("1px", "0 1px"):
        assert apart(picture(bare + f".ner-demo .ner-text {{ translate: {shift} }}"), plain) > .8


def test_an_entity_tells_all(page, mini_tagger_folder):
    tag(page, TEXT, 5)
    click(page, "New York")
    expect(card(page)).to_be_visible()
    e = next(e for e in Tagger.from_pretrained(mini_tagger_folder).tag(TEXT) if e.text == "New York")
    for part in ("place", "New York", f"Score {e.score:.2f}", f"characters {e.start} to {e.end}", "no entity0.02"):
        expect(card(page)).to_contain_text(part)
    click(page, "Paris", 1)                                             # after the emoji: offsets are code points
    expect(card(page)).to_contain_text(f"characters {TEXT.rindex('Paris')} to {len(TEXT)}")
    page.keyboard.press("Escape")
    expect(card(page)).to_be_hidden()
    page.keyboard.press("Control+Enter")                                # the caret is in the entity still
    expect(card(page).get_by_role("button", name="art")).to_be_focused()
    page.keyboard.press("Escape")
    expect(box(page)).to_be_focused()


def test_types_and_minimum_score(page):
    tag(page, TEXT, 5)
    expect(chip(page, "geo")).to_have_text(re.compile("3$"))
    chip(page, "geo").click()
    assert marks(page) == [("Mr. Bush", "per"), ("Monday", "tim")] and shown(page) == TEXT
    assert chip(page, "geo").get_attribute("aria-pressed") == "false" and [r[0] for r in rows(page)] == [
        "Mr. Bush",
        "Monday",
    ]
    assert [e["label"] for e in json.loads(saved(page, "Download JSON")[1])["entities"]] == ["per", "tim"]
    chip(page, "geo").focus(); page.keyboard.press("Space")
    assert len(marks(page)) == 5
    least = page.get_by_label("Minimum score")
    least.fill("97"); assert len(marks(page)) == 5
    least.focus(); page.keyboard.press("End")
    assert marks(page) == [] and "No entities" in rows(page)[0][0]
    page.keyboard.press("Home")
    assert len(marks(page)) == 5


def test_table(page):
    tag(page, TEXT, 5)
    assert [[r[0], r[1][:3], r[2], r[4]] for r in rows(page)] == [
        ["Mr. Bush", "per", "1", "0"],
        ["Paris", "geo", "2", "13"],
        ["New York", "geo", "1", "26"],
        ["Monday", "tim", "1", "38"],
    ]
    head = lambda name: page.get_by_role("columnheader", name=name)
    for name, order, first in [
        ("Count", "descending", "Paris"),
        ("Text", "ascending", "Monday"),
        ("Text", "descending", "Paris"),
        ("First at", "ascending", "Mr. Bush"),
    ]:
        head(name).get_by_role("button").click()
        assert head(name).get_attribute("aria-sort") == order and rows(page)[0][0] == first
    page.get_by_label("Filter the table").fill("PLACE")
    assert [r[0] for r in rows(page)] == ["Paris", "New York"] and "2 of 4 rows" in page.locator(
        ".ner-list"
    ).text_content()
    page.get_by_label("Filter the table").fill("")
    go = page.get_by_role("button", name="Paris", exact=True)
    for start in (13, TEXT.rindex("Paris"), 13):                        # each click, the next one
        go.click()
        expect(card(page)).to_contain_text(f"characters {start} to {start + 5}")
    page.keyboard.press("Escape")


def test_search(page):
    tag(page, TEXT, 5)
    search, hits = page.get_by_label("Search", exact=True), page.locator(".ner-tools .ner-hits")
    search.fill("met P"); expect(hits).to_have_text("1 of 2 matches")
    search.press("Enter"); expect(hits).to_have_text("2 of 2 matches")
    page.get_by_role("button", name="Next match").click(); expect(hits).to_have_text("1 of 2 matches")
    lit = "() => [...CSS.highlights].filter(([k]) => k.startsWith('ner-found')).flatMap(([, h]) => [...h].map(String))"
    assert page.evaluate(lit) == ["met P", "met P"]
    search.fill("(*"); expect(hits).to_have_text("0 matches")
    search.fill(""); expect(hits).to_have_text("")
    assert page.evaluate(lit) == []


def test_files_to_take_along(page, mini_tagger_folder):
    tag(page, TEXT, 5)
    entities = Tagger.from_pretrained(mini_tagger_folder).tag(TEXT)
    name, content = saved(page, "Download JSON")
    assert name == "entities.json" and json.loads(content) == dict(
        text=TEXT, engine=select_engine(mini_tagger_folder), entities=[e.to_dict() for e in entities]
    )
    name, content = saved(page, "Download CSV")
    assert name == "entities.csv" and [r[:2] for r in csv.reader(io.StringIO(content))][1:] == [
        [e.text, e.label] for e in entities
    ]
    name, content = saved(page, "Download CoNLL")
    assert name == "entities.conll"
    assert content.startswith(
        "Mr.\tB-per\nBush\tI-per\nmet\tO\nParis\tB-geo\n.\tO\n\nIn\tO\nNew\tB-geo\nYork\tI-geo\n"
    )
    page.get_by_role("button", name="Copy as HTML").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate(
        "async () => { const [i] = await navigator.clipboard.read();"
        " return [await (await i.getType('text/html')).text(), await navigator.clipboard.readText()] }"
    )
    for c in copied: assert c.count("<mark") == 5 and ">GEO</small>" in c
    expect(page.get_by_role("button", name="Copy as HTML")).to_be_visible()


def test_corrections(page, tmp_path):
    "By mouse and by keyboard, moved by typing, undone, saved, and read back by the corpus's reader."
    tag(page, TEXT, 5)
    click(page, "Paris")
    card(page).get_by_role("button", name="org organization").click()
    expect(layer(page).locator("mark").nth(1)).to_have_attribute("data-label", "org")
    click(page, "met", 1, twice=True)                                   # a word that is none yet
    expect(card(page)).to_contain_text("Your selection")
    card(page).get_by_role("button", name="eve event").click()
    expect(layer(page).locator("mark")).to_have_count(6)
    box(page).focus()
    page.keyboard.press("Control+Home")
    for _ in range(3): page.keyboard.press("Shift+ArrowRight")          # "Mr."
    expect(card(page)).to_contain_text("Characters 0 to 3")
    page.keyboard.press("Control+Enter"); page.keyboard.press("Shift+Tab")
    card(page).get_by_role("button", name="no entity").focus(); page.keyboard.press("Enter")
    expect(layer(page).locator("mark")).to_have_count(5)
    expect(box(page)).to_be_focused()
    wanted = [("Paris", "org"), ("New York", "geo"), ("Monday", "tim"), ("met", "eve"), ("Paris", "geo")]
    assert marks(page) == wanted
    box(page).press("Control+End")
    page.keyboard.type(" Monday"); page.keyboard.press("Control+Home"); page.keyboard.type("On ")
    expect(layer(page).locator("mark")).to_have_count(6)
    assert marks(page) == [*wanted, ("Monday", "tim")]                  # corrections move with their words
    expect(changes(page)).to_have_text("3 corrections, not saved yet")
    name, content = saved(page, "Save corrections")
    (tmp_path/name).write_text(content, encoding="utf-8", newline="")
    (words, tags), (more, moretags) = read_corpus(tmp_path/name)
    assert words == "On Mr. Bush met Paris .".split() and tags == "O O O O B-org O".split()
    assert (
        more == "In New York on Monday 🎉 met Paris Monday".split()
        and moretags == "O B-geo I-geo O B-tim O B-eve B-geo B-tim".split()
    )
    for left in (2, 1, 0):
        page.get_by_role("button", name="Undo").click()
        expect(changes(page)).to_have_text(re.compile(f"^{left} correction"))
    # the count is the page's own, the marks are Python's answer
    expect(layer(page).locator("mark").first).to_have_text("Mr. Bush")
    assert (
        marks(page)[0] == ("Mr. Bush", "per") and not page.get_by_role("button", name="Save corrections").is_visible()
    )


@pytest.mark.parametrize("text", ["<script>window.broken = 1</script> in Paris", "<img src=x onerror='window.broken = 1'> Paris",
                                  "</div></style><b onclick=\"window.broken = 1\">Paris</b> &amp; &lt;"])
def test_html_stays_text(page, text):
    tag(page, text, 1)
    assert shown(page) == text and marks(page) == [("Paris", "geo")]
    assert layer(page).evaluate("e => [...e.querySelectorAll('*')].map(x => x.tagName)") == ["DIV", "MARK"]
    box(page).select_text(); box(page).press("Control+Enter")
    expect(card(page)).to_be_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("window.broken === undefined")


def test_another_example(page):
    page.get_by_label("Text from").select_option("Markets")
    settled(page)
    assert shown(page) == box(page).input_value() == EXAMPLES["Markets"] and marks(page) == [
        ("New York", "geo"),
        ("Mr.", "per"),
    ]


def test_files(page):
    "Several at once; what is no text or too large is one sentence each."
    file = lambda name, content: dict(name=name, mimeType="text/plain", buffer=content)
    page.get_by_label("Text files").set_input_files(
        [
            file("a.txt", "In Paris 🎉\r\nand New York".encode()),
            file("b.txt", b"Monday"),
            file("c.bin", b"\x00\x01Paris"),
            file("d.txt", b"Z\xfcrich"),
            file("e.txt", b"a " * MAX_TEXT_CHARS),
        ]
    )
    expect(alert(page)).to_contain_text("e.txt is too large")
    for said in ("c.bin", "d.txt is not UTF-8 (byte 0xfc at 1)"): assert said in alert(page).text_content()
    assert shown(page) == "In Paris 🎉\nand New York" and marks(page) == [("Paris", "geo"), ("New York", "geo")]
    assert options(page, "Text from", "optgroup[label='Your files'] option") == ["a.txt", "b.txt"]
    page.get_by_label("Text from").select_option("b.txt")
    settled(page)
    assert shown(page) == "Monday" and marks(page) == [("Monday", "tim")]
    assert alert(page).is_hidden()
    page.locator(".ner-demo").evaluate("""e => { const d = new DataTransfer(); d.items.add(new File(["met Paris"], "dropped.txt"));
        e.querySelector("textarea").dispatchEvent(new DragEvent("drop", {dataTransfer: d, bubbles: true, cancelable: true})) }""")
    expect(layer(page)).to_have_text("met Paris")
    settled(page)


def test_engines_side_by_side(page):
    tag(page, TEXT, 5)
    before = marks(page)
    assert options(page, "Engine") == [
        "ONNX Runtime",
        "ONNX Runtime, int8",
        "OpenVINO",
        "OpenVINO, int8",
        "Bi-LSTM baseline",
        "Pretrained, int8",
        "Pretrained, fast",
        "Triton server",
    ]
    page.get_by_label("Engine").select_option("ONNX Runtime")
    expect(status(page)).to_have_text(re.compile("^5 entities in .* ms by ONNX Runtime$"))
    page.get_by_label("Compare with").select_option("ONNX Runtime, int8")
    settled(page)
    expect(status(page)).to_have_text("No differences")
    assert marks(page) == marks(page, 1) == before
    for title, engine in zip(page.locator(".ner-title").all(), ("ONNX Runtime", "ONNX Runtime, int8")):
        expect(title).to_have_text(re.compile(rf"^{engine} 5 entities · [\d.]+ ms$"))
    tag(page, "Anna Keller met Paris.", 1)
    page.get_by_label("Compare with").select_option("Pretrained, int8")
    expect(status(page)).to_have_text(re.compile(r"^[1-9] differences?: \d only left, [1-9] only right"))
    assert ("Anna Keller", "per") in marks(page, 1)
    mine, theirs = (layer(page, i).locator("mark.ner-differs") for i in (0, 1))
    assert mine.count() + theirs.count() == int(status(page).text_content().split()[0])
    assert "≠" in theirs.first.evaluate("e => getComputedStyle(e, '::before').content")
    assert ["Anna Keller", "per person", "0", "1 ≠"] in [r[:4] for r in rows(page)]
    click(page, "Anna Keller", side=1)
    expect(card(page)).to_contain_text("Anna Keller")
    page.keyboard.press("Escape")
    a, b = (page.locator(".ner-box").nth(i).bounding_box() for i in (0, 1))
    assert a["y"] == b["y"] and a["x"] + a["width"] <= b["x"]
    page.get_by_label("Compare with").select_option("Triton server")
    page.get_by_label("Triton's address").fill("127.0.0.1:1")
    page.get_by_label("Triton's address").blur()                       # the one that answers stays
    expect(alert(page)).to_contain_text("127.0.0.1:1")
    assert marks(page) == [("Paris", "geo")] and marks(page, 1) == []
    assert (
        page.get_by_role("columnheader", name="Count").is_visible()
        and not page.locator("th", has_text="Right").is_visible()
    )


def sides(page): return [t.text_content() for t in page.locator(".ner-title").all()]


def test_baseline_against_bert(page):
    "What the baseline misses is marked as a difference, and each side says how long it took."
    tag(page, TEXT, 5)
    page.get_by_label("Engine").select_option("ONNX Runtime")
    page.get_by_label("Compare with").select_option("Bi-LSTM baseline")
    expect(status(page)).to_have_text("2 differences: 2 only left, 0 only right")
    for said, engine in zip(sides(page), ("ONNX Runtime 5 entities", "Bi-LSTM baseline 3 entities"), strict=True):
        assert re.fullmatch(rf"{engine} · [\d.]+ ms", said)
    assert marks(page, 1) == [("Paris", "geo"), ("Monday", "tim"), ("Paris", "geo")]
    assert (
        layer(page).locator("mark.ner-differs").all_text_contents() == ["Mr. Bush", "New York"]
        and layer(page, 1).locator("mark.ner-differs").count() == 0
    )
    assert [r[:4] for r in rows(page)][:2] == [
        ["Mr. Bush", "per person", "1", "0 ≠"],
        ["Paris", "geo place", "2", "2"],
    ]


def test_local_against_triton(page, triton):
    """A live server finds what the local model finds, here and in the text that is typed next; the address stays in
    the field."""
    tag(page, TEXT, 5)
    page.get_by_label("Engine").select_option("ONNX Runtime")
    page.get_by_label("Compare with").select_option("Triton server")
    page.get_by_label("Triton's address").fill(triton)
    page.get_by_label("Triton's address").press("Tab")
    expect(status(page)).to_have_text("No differences")
    assert alert(page).is_hidden() and marks(page, 1) == marks(page) and len(marks(page)) == 5
    for said, engine in zip(sides(page), ("ONNX Runtime", "Triton server"), strict=True):
        assert re.fullmatch(rf"{engine} 5 entities · [\d.]+ ms", said)
    box(page).press("Control+End"); page.keyboard.type(" on Monday")
    expect(layer(page, 1).locator("mark")).to_have_count(6)
    expect(status(page)).to_have_text("No differences")
    click(page, "New York", side=1)
    expect(card(page)).to_contain_text("This engine tells no alternatives")
    page.keyboard.press("Escape")
    tag(page, TEXT, 5)
    page.get_by_label("Engine").select_option("Triton server")
    expect(status(page)).to_have_text(re.compile(r"^5 entities in [\d.]+ ms by Triton server$"))
    page.get_by_label("Engine").select_option("ONNX Runtime")


def test_triton_out_of_reach(page):
    tag(page, TEXT, 5)
    page.get_by_label("Engine").select_option("Triton server")
    page.get_by_label("Triton's address").fill("127.0.0.1:1")
    page.get_by_label("Triton's address").blur()
    expect(alert(page)).to_contain_text("127.0.0.1:1")
    assert marks(page) == [] and shown(page) == TEXT                    # nothing stale
    assert (
        not page.locator(".ner-list").is_visible()
        and not page.get_by_role("button", name="Download JSON").is_visible()
    )
    page.get_by_label("Triton's address").fill("no address")
    page.get_by_label("Triton's address").blur()
    expect(alert(page)).to_contain_text("'no address' is not the address of a server")
    assert "\n" not in alert(page).text_content() and "Traceback" not in page.content()
    page.get_by_label("Engine").select_option("ONNX Runtime")
    expect(status(page)).to_have_text(re.compile("^5 entities"))
    assert not page.get_by_label("Triton's address").is_visible()


@contextmanager
def browser_time(page):
    "Gives a list; after the block it holds the seconds of processor time that the page's main thread took."
    session, taken = page.context.new_cdp_session(page), []
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    spent = lambda: {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}["TaskDuration"]
    start = spent()
    yield taken
    page.evaluate("new Promise(r => requestAnimationFrame(() => setTimeout(r)))")
    taken.append(spent() - start)
    session.detach()


def test_long_text(page):
    "200 kB are drawn within two seconds of their tags; they scroll, and one more letter or a type hidden is no wait."
    text = "".join(
        f"Sentence {i}: Mr. Bush met nobody of note in Paris or in New York on Monday.\n" for i in range(2700)
    )
    assert len(text) > 200_000
    page.get_by_label("Compare with").select_option("")
    paste(page, text)
    drawn = []
    # another engine's answer: everything is drawn anew
    for engine in ("ONNX Runtime, int8", "ONNX Runtime", "ONNX Runtime, int8"):
        with browser_time(page) as taken:
            page.get_by_label("Engine").select_option(engine)
            settled(page)
        drawn += taken
    assert status(page).text_content().startswith("10,800 entities") and layer(page).locator("mark").count() == 10_800
    with browser_time(page) as hidden: chip(page, "geo").click()
    assert len(set(rows(page)[i][0] for i in range(2))) == 2 and len(rows(page)) == 2
    chip(page, "geo").click()
    box(page).press("Control+End")
    with browser_time(page) as typed: page.keyboard.press("x")
    print(f"drawn in {drawn}, a type hidden in {hidden}, a letter typed in {typed} s")
    assert min(drawn) < 6 and hidden[0] < 6 and typed[0] < 4     # a wide net: other tests run beside this one
    assert page.locator(".ner-box").first.evaluate(
        "e => [e.scrollHeight > 20 * e.clientHeight, e.scrollTop > 1000]"
    ) == [True, True]
    page.get_by_label("Text from").select_option("Markets")
    settled(page)


def test_accessible(page):
    "axe-core finds nothing serious, with everything open, in both themes; and the keyboard reaches every control."
    tag(page, TEXT, 5)
    dark = "document.body.dataset.jpThemeLight === 'false'"
    assert not page.evaluate(dark)
    within = None if page.evaluate("!window.jupyterapp") else ".ner-demo"
    page.get_by_label("Compare with").select_option("Pretrained, int8")
    expect(page.locator(".ner-title").nth(1)).to_contain_text("Pretrained")
    chip(page, "tim").click()
    click(page, "New York"); expect(card(page)).to_be_visible()
    assert violations(page, within) == []
    chip(page, "tim").click()
    controls = page.locator(".ner-demo").evaluate(
        "e => [...e.querySelectorAll('button, input:not([type=file]), select, textarea')].filter(x => "
        "x.checkVisibility() && !x.disabled && !(x.role === 'tab' && x.tabIndex < 0)).length"
    )
    page.get_by_label("Text from").focus()                                 # arrows reach the tabs that Tab leaves out
    for reached in range(1, 200):
        page.keyboard.press("Tab")
        if not page.evaluate("document.querySelector('.ner-demo').contains(document.activeElement)"): break
    assert controls > 30 and reached >= controls


def test_looks_in_jupyterlab(lab_page, tmp_path):
    """Pictures in both themes; then what is left in the saved notebook, for GitHub or whoever opens it without a
    kernel."""
    tag(lab_page, TEXT, 5)
    lab_page.screenshot(path=tmp_path/"lab-light.png")
    lab(lab_page, "apputils:change-theme", theme="JupyterLab Dark")
    lab_page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
    lab_page.wait_for_selector("#jupyterlab-splash", state="detached")
    lab_page.screenshot(path=tmp_path/"lab-dark.png")
    assert violations(lab_page, ".ner-demo") == []
    lab(lab_page, "docmanager:save")
    lab_page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty")
    outputs = [
        o
        for c in json.loads((lab_page.folder / "work" / "07a_page.ipynb").read_text())["cells"]
        for o in c.get("outputs", [])
    ]
    still, = ["".join(o["data"]["text/html"]) for o in outputs if "text/html" in o["data"]]
    bare = lab_page.context.new_page()
    bare.set_content(still)
    assert (
        bare.locator("p").is_visible()
        and bare.locator("p").inner_text() == next(iter(EXAMPLES.values()))
        and "<script" not in still
    )
    bare.close()


def test_port_taken(browser, folder, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with voila(tmp_path/"log.txt", port, BERT_NER_MODEL=str(folder)) as url: assert f":{port}/" not in url


def test_looks(browser, address, tmp_path):
    """Pictures in both themes and on a phone, for a person to look at; nothing is wider than the screen, and axe-core
    finds nothing serious."""
    for name, query, size in [
        ("light", "", (1200, 900)),
        ("dark", "?theme=dark", (1200, 900)),
        ("phone", "", (390, 844)),
    ]:
        with opened(browser, address + query, viewport=dict(width=size[0], height=size[1])) as page:
            tag(page, TEXT, 5)
            click(page, "New York"); expect(card(page)).to_be_visible()
            page.screenshot(path=tmp_path/f"{name}.png")
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
            assert page.locator(".ner-list .ner-scroll").evaluate("e => e.scrollWidth <= e.clientWidth")
            a, b = card(page).bounding_box(), page.locator(".ner-sides").bounding_box()
            assert a["x"] >= b["x"] - 1 and a["x"] + a["width"] <= b["x"] + b["width"] + 1
            assert violations(page) == []


@pytest.mark.pipeline
def test_trained_model(browser, tmp_path):
    """The page with the pipeline's own model finds entities.

    Its picture goes to the file that BERT_NER_SCREENSHOT names: the README's."""
    picture = os.environ.get("BERT_NER_SCREENSHOT") or tmp_path/"page.png"
    with voila(tmp_path/"log.txt") as url, opened(browser, url, viewport=dict(width=1200, height=960)) as page:
        expect(status(page)).to_have_text(re.compile("^[1-9][0-9]* entit"))
        click(page, "Addis Ababa")
        expect(card(page)).to_be_visible()
        page.screenshot(path=picture)
