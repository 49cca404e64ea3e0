"The review queue in a real browser: from the first text to a better model, and nothing lost on the way."
import json, re, sqlite3
from contextlib import contextmanager

import pytest
import torch
from datasets import DatasetDict
from playwright.sync_api import expect

from bert_ner.baseline import BiLSTMEngine, train_bilstm
from bert_ner.core import GMB_LABELS
from bert_ner.data import add_extra_files, build_split, to_dataset, words_and_tags
from bert_ner.formats import read_annotated
from bert_ner.review import ReviewQueue
from bert_ner.spans import detokenize, tags_to_spans
from bert_ner.synthetic import generate_corpus
from bert_ner.tagger import Tagger
from bert_ner.windows import load_tokenizer_config
from demo_pages import *  # noqa: F403 its fixtures too

pytestmark = pytest.mark.browser
READY = ".ner-review .ner-words"
TEXTS = ["Mr. Bush met Paris 🎉 on Monday in New York.", "Nothing here.", "Paris is quiet.", "In New York again.", "Mr. Bush left on Monday."]


@pytest.fixture
def queue(tmp_path, mini_tagger_folder):
    (tmp_path/"texts.txt").write_text("".join(t + "\n" for t in TEXTS), encoding="utf-8")
    tagger = Tagger.from_pretrained(mini_tagger_folder, "onnx")
    return ReviewQueue.create(tmp_path/"texts.review", tmp_path/"texts.txt", tagger, random_share=0)


@contextmanager
def served(queue, **env):
    with voila(queue.path.with_suffix(".log"), serve="review_widget", call=f"serve_review({str(queue.path)!r}, ",
               BERT_NER_ANNOTATOR="Ann", **env) as url: yield url


@pytest.fixture
def address(queue):
    with served(queue) as url: yield url


@pytest.fixture
def page(browser, address):
    with opened(browser, address, READY) as page: ready(page); yield page


def ready(page):
    "Wait for the sentence, or for the word that there is none."
    expect(page.locator(".ner-review")).to_have_attribute("aria-busy", "false")
    page.wait_for_function("document.querySelector('.ner-words').textContent")


def press(page, *keys):
    for key in keys: page.keyboard.press(key); ready(page)


def sentence(page): return page.locator(".ner-words").text_content()
def labels(page):
    return [tuple(m) for m in page.locator(".ner-words mark").evaluate_all("ms => ms.map(m => [m.textContent, m.dataset.label])")]
def told(page): return page.locator(".ner-told").text_content()
def done(page): return int(re.match(r"\d+", told(page))[0])
def digit(label): return str(GMB_LABELS.index(label) + 1)
def word(page, text, nth=0): return page.locator(".ner-word").get_by_text(text, exact=True).nth(nth)


def to(page, text):
    "Put sentences off until `text` is shown."
    for _ in range(20):
        if sentence(page) == text: return
        press(page, "l")
    raise AssertionError(f"{text} never came")


def test_by_keyboard_and_by_mouse(page, queue):
    to(page, TEXTS[0])
    assert labels(page) == [("Mr. Bush", "per"), ("Paris", "geo"), ("Monday", "tim"), ("New York", "geo")]
    expect(page.locator(".ner-place")).to_contain_text("texts.txt: line 1")
    word(page, "Paris").click()
    press(page, digit("org"))                                                    # another label, by key
    assert ("Paris", "org") in labels(page)
    word(page, "Monday").click()
    page.get_by_role("button", name="no entity").click()                       # by button
    word(page, "York").click()                                                 # any word of an entity chooses all of it
    expect(page.locator(".ner-chosen")).to_have_count(2)
    word(page, "in").click(); word(page, "York").click(modifiers=["Shift"])
    press(page, digit("eve"))
    assert labels(page) == [("Mr. Bush", "per"), ("Paris", "org"), ("in New York", "eve")]
    press(page, "Control+z", "Control+z")
    assert ("Monday", "tim") in labels(page)
    press(page, "Control+y", "Control+Shift+z")
    assert labels(page) == [("Mr. Bush", "per"), ("Paris", "org"), ("in New York", "eve")]
    press(page, "Enter")
    assert done(page) == 1 and "1 corrected" in told(page)
    found = [*read_annotated(queue.path)]
    assert found[0].text == TEXTS[0] and [(e.text, e.label) for e in found[0].entities] == [("Mr. Bush", "per"), ("Paris", "org"), ("in New York", "eve")]
    press(page, "r")
    assert "1 rejected" in told(page)
    press(page, "Control+z", "Control+z")                                        # both answers are taken back
    assert done(page) == 0 and sentence(page) == TEXTS[0] and ("in New York", "eve") in labels(page)
    press(page, "Control+y", "Control+y")
    assert done(page) == 2 and "1 corrected, 1 rejected" in told(page)
    press(page, "ArrowRight", "Shift+ArrowRight", "8")
    assert labels(page)[0][0].count(" ") <= 1 and labels(page)[0][1] == "tim"
    press(page, "Enter", "Enter", "Enter")
    assert sentence(page) == "All 5 sentences are answered."
    expect(page.locator(".ner-status[role=status]")).to_contain_text(f"bert-ner train -S data.more={queue.path}")
    press(page, "Control+z")
    assert done(page) == 4


def test_dragging_chooses_words(page):
    to(page, TEXTS[0])
    a, b = word(page, "met").bounding_box(), word(page, "on").bounding_box()
    page.mouse.move(a["x"] + 3, a["y"] + 5); page.mouse.down()
    page.mouse.move(b["x"] + 3, b["y"] + 5, steps=8); page.mouse.up()
    assert page.locator(".ner-chosen").all_text_contents() == ["met", "Paris", "🎉", "on"]
    press(page, "1")
    assert ("met Paris 🎉 on", "art") in labels(page)


def test_nothing_is_lost_on_reload(browser, address, queue):
    with opened(browser, address, READY) as page:
        ready(page)
        to(page, TEXTS[4])
        word(page, "left").click(); press(page, "1")
        page.wait_for_timeout(600)                                             # half done
        page.reload(); page.wait_for_selector(READY); ready(page)
        assert sentence(page) == TEXTS[4] and ("left", "art") in labels(page)
        press(page, "Enter")
        page.reload(); page.wait_for_selector(READY); ready(page)
        assert done(page) == 1 and sentence(page) != TEXTS[4]
        press(page, "ArrowRight", "2")
        page.wait_for_timeout(600)
        shown, marked = sentence(page), labels(page)
        until(lambda: len(kernels(address)) == 1, "the kernel of the page before is left")
        kernel, = kernels(address)
        kernel.kill()                                                          # a crash
        expect(alert(page)).to_contain_text("The kernel has stopped. What you have answered is saved.")
        page.get_by_role("button", name="Reload the page").click()
        page.wait_for_selector(READY); ready(page)
        assert done(page) == 1 and (sentence(page), labels(page)) == (shown, marked)
        kernel_ended(page)
    assert [e.text for d in read_annotated(queue.path) for e in d.entities if e.label == "art"] == ["left"]


def test_two_windows_on_one_queue(browser, address, queue):
    "Each shows its own sentences, a duplicated tab as well; together they answer each sentence once."
    with opened(browser, address, READY) as one, opened(browser, address, READY) as two:
        ready(one); ready(two)
        twin = one.context.new_page()                                          # as "duplicate tab" does: with its storage
        twin.add_init_script(f"sessionStorage.setItem('bert-ner window', {json.dumps(one.evaluate('sessionStorage.getItem(`bert-ner window`)'))})")
        twin.goto(address); twin.wait_for_selector(READY); ready(twin)
        twin.wait_for_timeout(500); ready(twin)
        pages = [one, two, twin]
        assert len({sentence(p) for p in pages}) == 3
        while (left := [p for p in pages if not re.search(r"answered\.$|another window\.$", sentence(p))]):
            for p in left: p.bring_to_front(); press(p, "Enter")
        twin.close()
    assert queue.progress()["done"] == 5 and len([*read_annotated(queue.path)]) == 5
    with sqlite3.connect(queue.path) as db: assert db.execute("select count(*) from answer").fetchone() == (5,)


def test_a_key_that_is_held_down_answers_once(page):
    press(page, "ArrowRight", "1")
    for _ in range(6): page.keyboard.down("Enter")                               # auto-repeat
    page.keyboard.up("Enter"); ready(page)
    assert done(page) == 1


def test_what_was_undone_stays_with_its_sentence(page, queue):
    "Redo puts no mark on the sentence that another window left."
    press(page, "Enter")
    second = sentence(page)
    press(page, "ArrowRight", "1", "Control+z", "Control+z")
    other = queue.take("elsewhere", "Ann")
    while other["text"] != second:
        queue.answer(other["id"], "elsewhere", "Ann", "reject", []); other = queue.take("elsewhere", "Ann")
    press(page, "Control+y")
    third, shown_ = sentence(page), labels(page)
    press(page, "Control+y")
    assert third != second and (sentence(page), labels(page)) == (third, shown_)


def test_another_name(page, queue):
    press(page, "ArrowRight", "1")
    marked = labels(page)
    page.get_by_label("Your name").fill("Ben"); page.get_by_label("Your name").press("Tab")
    ready(page)
    assert labels(page) == marked                                               # the marks stay
    page.locator(".ner-review-box").focus()
    press(page, "Enter")
    assert queue.annotators() == ["Ben"]
    page.reload(); page.wait_for_selector(READY); ready(page)
    assert page.get_by_label("Your name").input_value() == "Ben"


def test_a_queue_that_is_gone_is_one_sentence(page, queue):
    queue.path.rename(queue.path.with_name("away"))
    queue.path.mkdir()
    press(page, "Enter")
    expect(alert(page)).to_contain_text("cannot be read or written")
    queue.path.rmdir(); queue.path.with_name("away").rename(queue.path)
    press(page, "Enter")
    assert done(page) == 1


@pytest.mark.parametrize("look", [{}, dict(color_scheme="dark"), dict(viewport=dict(width=390, height=800))], ids=["light", "dark", "phone"])
def test_accessible(browser, address, look):
    with opened(browser, address, READY, **look) as page:
        ready(page)
        press(page, "ArrowRight")
        assert violations(page, ".ner-review") == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_in_jupyterlab(browser, queue, tmp_path):
    (tmp_path/"lab").mkdir()
    with jupyterlab(tmp_path/"lab", "07f_review_page.ipynb", BERT_NER_REVIEW=str(queue.path), BERT_NER_ANNOTATOR="Ann") as url:
        with opened(browser, url, ".jp-NotebookPanel") as page:
            page.wait_for_function(
                "window.jupyterapp.shell.currentWidget?.context?.sessionContext?.session?.kernel?.status === 'idle'"
            )
            lab(page, "notebook:run-all-cells")
            page.wait_for_selector(READY); ready(page)
            word(page, page.locator(".ner-word").first.text_content()).click()
            press(page, "1")                                                   # the notebook's own keys stay out of it
            assert labels(page)[0][1] == "art"
            press(page, "Enter")
            assert done(page) == 1 and page.locator(".jp-Cell").count() == 2
    assert len([*read_annotated(queue.path)]) == 1


SETTINGS = dict(epochs=15, patience=15, lr=5e-3, max_batch_tokens=256, embedding_dim=48, hidden_size=48, dropout=.3, word_dropout=.05)


@pytest.fixture
def one_thread():
    "PyTorch's threads wait for each other for long where something else runs."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_from_the_first_text_to_a_better_model(browser, tmp_path, one_thread):
    """A model that has seen 60 sentences makes a queue of others; a person corrects them in the browser, who knows
    what is right; trained with these, it is better on the same held-out sentences."""
    ds = to_dataset(generate_corpus(n=800))
    words, tags = words_and_tags(ds["train"])
    rows = [dict(id=i, words=words[i], tags=tags[i]) for i in range(60)]
    small = DatasetDict({**ds, "train": build_split(rows, ds["train"].features["tags"].feature.names)})
    before = train_bilstm(small, tmp_path/"before", **SETTINGS)
    tagger = Tagger(BiLSTMEngine.load(tmp_path/"before"), *load_tokenizer_config(tmp_path/"before"))
    pool = [(detokenize(w), t) for w, t in zip(words[60:130], tags[60:130])]
    right = {text: [(text[o[a][0]:o[b - 1][1]], label) for label, a, b in tags_to_spans(t)] for (text, o), t in pool}
    (tmp_path/"texts.txt").write_text("".join(t + "\n" for t in right), encoding="utf-8")
    queue = ReviewQueue.create(tmp_path/"texts.review", tmp_path/"texts.txt", tagger)
    with served(queue) as url, opened(browser, url, READY) as page:
        ready(page)
        while not sentence(page).endswith("answered."):
            wanted = right.get(sentence(page))
            if wanted is None: press(page, "r"); continue                      # our rules end a sentence where the corpus does not
            for text, label in labels(page):
                if (text, label) not in wanted:
                    mark_of(page, text, label).click()
                    press(page, "0")
            for text, label in wanted:
                if (text, label) in labels(page): continue
                first, last = places(page, text)
                page.locator(".ner-word").nth(first).click()
                press(page, "0")                                               # what is chosen is an entity or a word: now it is a word
                page.locator(".ner-word").nth(first).click()
                if last > first: page.locator(".ner-word").nth(last).click(modifiers=["Shift"])
                press(page, digit(label))
            assert sorted(labels(page)) == sorted(wanted)
            press(page, "Enter")
        assert queue.progress()["corrected"] > 20
    more, counts, _ = add_extra_files(small, queue.path, "")
    assert counts["more"]["sentences"] >= 50 and more["validation"]["words"] == ds["validation"]["words"]
    after = train_bilstm(more, tmp_path/"after", **SETTINGS)
    print(f"F1 {before['f1']:.4f} -> {after['f1']:.4f} with {counts['more']['sentences']} sentences")
    assert after["f1"] > before["f1"] + .03


def mark_of(page, text, label):
    "The first word of an entity."
    all_ = page.locator(".ner-words mark")
    return next(m for m in all_.all() if (m.text_content(), m.get_attribute("data-label")) == (text, label)).locator(".ner-word").first


def places(page, text):
    "The words of `text`: the first and the last."
    shown, starts = sentence(page), page.locator(".ner-word").all_text_contents()
    at, ends = 0, []
    for w in starts: at = shown.index(w, at); ends.append((at, at + len(w))); at += len(w)
    begin = shown.index(text)
    return next(i for i, (a, _) in enumerate(ends) if a >= begin), next(i for i, (_, b) in enumerate(ends) if b >= begin + len(text))
