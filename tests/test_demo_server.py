"The page's server: what it leaves behind, what it rejects at start, what it reads."
import subprocess, sys

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
