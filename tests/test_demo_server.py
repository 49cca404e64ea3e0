"The page's server: what it leaves behind, what it rejects at start, what it reads."
import json, shutil, subprocess, sys

import psutil
import pytest
from playwright.sync_api import expect

from bert_ner.core import ROOT
from bert_ner.render import STYLE
from demo_pages import *  # noqa: F403 its fixtures too

PAGES = int(os.environ.get("BERT_NER_PAGES", 4))  # opened and closed
GERMAN = (
    "Die Kanzlerin ist am Montag nach Paris gereist und hat dort mit dem Präsidenten über die Lage in der "
    "Region gesprochen, wie ein Sprecher der Regierung "
    "in Berlin mitteilte. Das Treffen war nicht angekündigt."
)


@pytest.mark.browser
def test_pages_leave_nothing_behind(browser, folder, tmp_path):
    "However a page ends, its kernel ends with it; neither processes nor memory grow, and the log says nothing."
    with voila(tmp_path/"log.txt", BERT_NER_MODEL=str(folder), BERT_NER_TRITON="127.0.0.1:1") as url:
        def memory(): return server.memory_info().rss / 2**20
        server = SERVERS[re.search(r":(\d+)/", url)[1]]
        with opened(browser, url): assert len(kernels(url)) == 1
        until(lambda: not kernels(url), "the kernel of the first page is left")
        before, processes = memory(), len(server.children(recursive=True))
        with opened(browser, url) as page:
            for i in range(PAGES):
                if i % 2: page.reload()
                else: page.goto("about:blank"); page.goto(url)
                page.wait_for_selector(".ner-demo .ner-text")
                until(lambda: len(kernels(url)) == 1, "the kernel of the page before is left")
        until(lambda: not kernels(url), "the kernel of the last page is left")
        def alive():
            return [
                p for p in server.children(recursive=True) if p.is_running() and p.status() != psutil.STATUS_ZOMBIE
            ]
        until(lambda: len(alive()) <= processes, "a process is left")
        assert memory() < before + 20 + 3 * PAGES


REFUSED = [
    ("serve_page(0)", {}, "0 is not a port"),
    ("serve_page(99999)", {}, "99999 is not a port"),
    ("serve_page('x')", {}, "x is not a port"),
    ("serve_page()", dict(BERT_NER_MODEL="/nowhere"), "/nowhere holds no model"),
    ("serve_page()", dict(BERT_NER_MODEL="nbs"), "nbs holds no model"),
    ("serve_page()", dict(BERT_NER_ENGINE="gpu"), "no engine 'gpu'"),
    ("demo()", dict(BERT_NER_MODEL="/nowhere"), "/nowhere holds no model"),
    ("serve_page()", dict(BERT_NER_ROOT="/tmp"), "`from bert_ner.demo import demo; demo()`"),
]


@pytest.mark.parametrize("call, env, said", REFUSED)
def test_refused_at_start(call, env, said):
    "In one sentence, before anything is served."
    code = f"from bert_ner.core import BertNerError\nfrom bert_ner.demo import *\ntry: {call}\nexcept BertNerError as e: print(e)"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BERT_NER_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "BERT_NER_ROOT": str(ROOT), **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert said in done.stdout and done.stdout.count("\n") == 1 and not done.stderr


def file(name, content): return dict(name=name, mimeType="text/plain", buffer=content)


@pytest.mark.browser
def test_encodings(page):
    "By byte order mark; what is in no Unicode encoding is named, and can be read as Windows-1252."
    texts = {"utf-8-sig": "In Paris, Zoë\n", "utf-16": "met Zoë in Paris\n", "utf-32": "Zoë in New York\n"}
    for codec, text in texts.items():
        page.get_by_label("Text files").set_input_files(
            [file(f"{codec}.txt", text.replace("\n", "\r\n").encode(codec))]
        )
        expect(layer(page)).to_have_text(text.strip())
        settled(page)
        assert shown(page) == text and alert(page).is_hidden()
    page.get_by_label("Text files").set_input_files([file("le.txt", "met in Paris".encode("utf-16-le"))])
    expect(alert(page)).to_contain_text("le.txt looks like UTF-16-LE without a byte order mark")
    page.get_by_label("Text files").set_input_files([file("old.txt", "Zürich – Paris".encode("cp1252"))])
    expect(alert(page)).to_contain_text("old.txt is not UTF-8 (byte 0xfc at 1)")
    page.get_by_role("button", name="Read old.txt as Windows-1252").click()
    expect(layer(page)).to_have_text("Zürich – Paris")
    settled(page)
    assert marks(page) == [("Paris", "geo")] and alert(page).is_hidden()


@pytest.mark.browser
def test_two_files_of_one_name(page):
    for content in (b"In Paris", b"On Monday", b"In Paris"):
        page.get_by_label("Text files").set_input_files([file("same.txt", content)])
        expect(layer(page)).to_have_text(content.decode())
        settled(page)
    assert [n for n in options(page, "Text from", "optgroup[label='Your files'] option") if n.startswith("same")] == [
        "same.txt",
        "same.txt (2)",
    ]
    page.get_by_label("Text from").select_option("same.txt (2)"); settled(page)
    assert shown(page) == "On Monday"


@pytest.mark.browser
def test_another_language(page):
    note = page.locator(".ner-note")
    tag(page, TEXT, 5); assert note.is_hidden()
    box(page).fill(GERMAN); settled(page)
    expect(note).to_have_text("This text looks like German. The model knows English: what it marks here may be wrong.")
    box(page).fill("Zürich, Genf"); settled(page)
    assert note.is_hidden()


@pytest.mark.browser
def test_what_cannot_be_tagged(page):
    "Is one sentence; what follows is tagged again."
    page.locator("textarea.ner-input").evaluate("""e => { e.value = "Paris \\ud83d in"; e.dispatchEvent(new InputEvent("input", {inputType: "insertText", bubbles: true})) }""")
    expect(alert(page)).to_contain_text("half a character")
    settled(page)
    tag(page, "In Paris", 1)
    assert alert(page).is_hidden()


@pytest.mark.browser
def test_the_model_is_named(page):
    about = page.locator(".ner-about")
    tag(page, TEXT, 5)
    expect(about).to_have_text(re.compile("^Model: "))
    page.get_by_label("Engine").select_option("Triton server")
    page.get_by_label("Triton's address").fill("127.0.0.1:1"); page.get_by_label("Triton's address").blur()
    expect(about).to_have_text("Model: that of the server at 127.0.0.1:1")
    page.get_by_label("Engine").select_option("ONNX Runtime, int8")
    settled(page)


@pytest.mark.browser
def test_labels_of_neighbors(page):
    """The label of a narrow word ends before the next one begins, and chips keep their distance, whatever else the
    notebook shows."""
    box(page).fill(""); settled(page); throw_away(page)
    tag(page, "A B I in Paris", 1)
    for at, label in ((0, "per person"), (2, "org organization"), (4, "eve event")):
        box(page).evaluate("(e, at) => { e.focus(); e.setSelectionRange(at, at + 1) }", at)
        box(page).press("Control+Enter")
        card(page).get_by_role("button", name=label).click()
        settled(page)
    boxes = layer(page).locator("mark").evaluate_all("""ms => ms.map(m => { const s = getComputedStyle(m, '::before'), r = m.getBoundingClientRect();
        return [r.left, r.left + Math.min(parseFloat(s.width), s.overflow === 'hidden' ? Infinity : 1e9)] })""")
    assert len(boxes) == 4 and all(right <= left for (_, right), (left, _) in zip(boxes, boxes[1:]))
    style = page.evaluate_handle(
        "css => { const s = document.createElement('style'); s.textContent = css; document.body.append(s); return s }",
        STYLE.removeprefix("<style>").removesuffix("</style>"),
    )
    assert page.locator(".ner-demo .ner-legend").evaluate("e => getComputedStyle(e).marginTop") == "14px"
    style.evaluate("s => s.remove()")
    throw_away(page)


@pytest.mark.browser
def test_a_long_text_is_not_read_at_each_pause(voila_page):
    "The longer a text takes, the longer the page waits for the next key."
    page, sent = voila_page, []
    # so that its connection can be listened to
    page.reload(); page.wait_for_selector(".ner-demo .ner-text")
    page.on(
        "websocket",
        lambda ws: ws.on(
            "framesent",
            lambda data: (
                sent.append(1)
                if b'"kind":"tag"' in (data if isinstance(data, bytes) else data.encode()).replace(b'": "', b'":"')
                else None
            ),
        ),
    )
    page.reload(); page.wait_for_selector(".ner-demo .ner-text"); settled(page)
    paste(
        page,
        "".join(
            f"Sentence {i}: Mr. Bush met nobody of note in Paris or in New York on Monday.\n" for i in range(10_000)
        ),
    )
    took = sum(map(float, re.findall(r"in ([\d,.]+) ms", status(page).text_content().replace(",", "")))) / 1000
    assert sent and took > .6, "the text is not long enough to tell"
    del sent[:]
    box(page).press("Control+End")
    start = time.monotonic()
    for _ in range(4):
        page.keyboard.press("x")
        page.wait_for_timeout(350)
    spent = time.monotonic() - start
    settled(page)
    assert len(sent) <= 1 + spent / min(15, took)                              # not one a pause
    page.get_by_label("Text from").select_option("Markets"); settled(page)


@pytest.mark.browser
def test_looks(browser, address, tmp_path):
    """The system's preference is followed; nothing is wider than the narrowest phone; every landmark is where axe
    looks for it."""
    for name, scheme, query, width in [
        ("light", "light", "", 1200),
        ("dark", "dark", "", 1200),
        ("chosen", "dark", "?theme=light", 1200),
        ("narrow", "light", "", 320),
        ("narrow-dark", "dark", "", 320),
    ]:
        with opened(browser, address + query, viewport=dict(width=width, height=800), color_scheme=scheme) as page:
            tag(page, TEXT, 5)
            correct(page, "Bush", "org organization")
            dark = scheme == "dark" and not query
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
                "rgb(17, 17, 17)" if dark else "rgb(255, 255, 255)"
            )
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            wide = page.locator(".ner-demo").evaluate(
                "e => [...e.querySelectorAll('button, select, input, p, "
                "section')].filter(x => x.checkVisibility() && x.getBoundingClientRect().right > innerWidth + "
                "1).length"
            )
            assert wide == 0
            assert (
                page.get_by_role("main").count() == 1 and violations(page) == [] and violations(page, best=True) == []
            )
            page.screenshot(path=tmp_path/f"{name}.png", full_page=True)
    page_color = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, address, color_scheme="light") as page:
        page.emulate_media(color_scheme="dark")                                # in the evening
        page.wait_for_function(f"{page_color} === 'rgb(17, 17, 17)'")


def tab_of(page, name): return page.locator(".ner-tabs").get_by_role("tab", name=name, exact=True)
def tabs(page): return page.locator(".ner-tabs [role=tab]").all_text_contents()
def chosen_tab(page): return page.locator(".ner-tabs [aria-selected=true]")
def cells(page, caption):
    table = page.locator(".ner-overview table").filter(has_text=caption)
    return [[c.strip() for c in r.locator("th, td").all_text_contents()] for r in table.locator("tbody tr").all()]


@pytest.mark.browser
def test_a_tab_for_each_file_and_a_summary(page):
    "Files of one name are two; corrections count; what annotate wrote is counted without being tagged."
    while (crosses := page.locator(".ner-cross")).count(): crosses.first.click()          # of other tests
    upload, found = page.get_by_label("Text files"), dict(text="x", entities=[dict(start=0, end=1, label="geo", score=.5)])
    upload.set_input_files([file("t1.txt", b"Mr. Bush met Paris")])
    settled(page)
    upload.set_input_files([file("t1.txt", b"Paris, Paris on Monday"), file("found.jsonl", (json.dumps(found) + "\n{broken\n").encode())])
    expect(chosen_tab(page)).to_have_text("t1.txt (2)")
    settled(page)
    assert tabs(page)[-3:] == ["t1.txt", "t1.txt (2)", "Summary"]
    correct(page, "Monday", "eve event")
    tab_of(page, "Summary").click()
    expect(page.locator(".ner-overview caption").first).to_have_text("Entities in each file")
    rows_ = {r[0]: r[1:] for r in cells(page, "Entities in each file")}
    assert (rows_["t1.txt"][-1], rows_["t1.txt (2)"][-1], rows_["found.jsonl"][0], rows_["found.jsonl"][-1]) == ("2", "3", "1", "1")
    often = cells(page, "most frequent")
    assert ["Paris", "geo place", "3", "2"] in often and ["Monday", "eve event", "1", "1"] in often and ["x", "geo place", "1", "1"] in often
    expect(alert(page)).to_contain_text("found.jsonl: 1 text or entity could not be read")
    assert not layer(page).is_visible() and violations(page, ".ner-demo") == []
    tab_of(page, "t1.txt").press("ArrowRight")
    page.keyboard.press("Enter")
    expect(layer(page)).to_have_text("Paris, Paris on Monday")
    settled(page)
    assert marks(page)[-1] == ("Monday", "eve")
    tab_of(page, "t1.txt (2)").locator(".ner-cross").click()
    assert "t1.txt (2)" not in tabs(page)
    upload.set_input_files([file("no.jsonl", b"nothing\n")])
    expect(alert(page)).to_contain_text("no.jsonl: no line is of a known format")
    box(page).fill("")
    throw_away(page)


PIPELINE = """
import warnings, transformers
from transformers.utils import logging
logging.disable_progress_bar(); logging.set_verbosity_error()
from bert_ner.demo import demo
pipe = transformers.pipeline("token-classification", {folder!r}, aggregation_strategy="simple", device="cpu")
nested = lambda text: [(0, 16, "org"), (8, 16, "geo"), (5, 21, "tim")] if text.startswith("Bank") else []
demo({mini!r}, taggers=dict(pipeline=pipe, nested=nested))
"""


@pytest.mark.browser
def test_other_programs_on_the_page(browser, tmp_path, mini_tagger_folder):
    "The output of a transformers pipeline, and entities that overlap: all of them are shown, and none is merged."
    import transformers
    from families import make_checkpoint
    folder = make_checkpoint("bert", tmp_path/"bert")
    cell = dict(cell_type="code", id="c", metadata={}, outputs=[], execution_count=None,
                source=PIPELINE.format(folder=str(folder), mini=str(mini_tagger_folder)))
    nb = json.loads((ROOT/"nbs"/"07a_page.ipynb").read_text())
    nb["cells"] = [nb["cells"][0], cell]
    (tmp_path/"page.ipynb").write_text(json.dumps(nb))
    shutil.copytree(ROOT/"nbs"/"voila", tmp_path/"voila")
    text = "Bank of New York said so. Anna Keller met Robert Hall in Geneva on Tuesday."
    pipe = transformers.pipeline("token-classification", str(folder), aggregation_strategy="simple", device="cpu")
    wanted = [(text[e["start"]:e["end"]], e["entity_group"]) for e in pipe(text)]
    assert len(wanted) > 2
    call = f"serve_notebook({str(tmp_path / 'page.ipynb')!r}, '', lambda: 0, "
    with voila(tmp_path/"log.txt", call=call, BERT_NER_MODEL=str(mini_tagger_folder)) as url, opened(browser, url) as page:
        box(page).fill(text); settled(page)
        page.get_by_label("Engine").select_option("pipeline"); settled(page)
        assert marks(page) == wanted
        page.get_by_label("Compare with").select_option("nested"); settled(page)
        assert shown(page) == layer(page, 1).text_content() == text
        outer = layer(page, 1).locator("mark:not(mark mark)").evaluate_all("ms => ms.map(m => [m.textContent, m.dataset.label ?? ''])")
        inner = layer(page, 1).locator("mark mark").evaluate_all("ms => ms.map(m => [m.textContent, m.dataset.label ?? ''])")
        assert outer == [["Bank ", "org"], ["of ", ""], ["New York", ""], [" said", ""]]
        assert [i for i in inner if i[1]] == [["of ", "tim"], ["New York", "geo"]]
        page.get_by_label("Compare with").select_option(""); page.get_by_label("Engine").select_option("nested"); settled(page)
        assert [r[:2] for r in rows(page)] == [["Bank of New York", "org organization"], ["of New York said", "tim date or time"], ["New York", "geo place"]]
        page.get_by_role("button", name="Download CoNLL").click()
        expect(alert(page)).to_contain_text("some entities overlap: only JSON and CSV can hold them")
