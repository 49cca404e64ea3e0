"Corrections on the page: nothing that a person did is lost, and no label reaches a text that it was not given to."
import csv, io, re

import pytest
from playwright.sync_api import expect

from bert_ner.demo import EXAMPLES
from demo_pages import *  # noqa: F403 its fixtures too

pytestmark = pytest.mark.browser
A, MODEL_A = "Mr. Bush met Paris on Monday.", [("Mr. Bush", "per"), ("Paris", "geo"), ("Monday", "tim")]
FIXED_A = [("Mr. Bush", "org"), ("Paris", "geo"), ("Monday", "eve")]
ALIKE = ["Mr. Bush met Paris on Monday in New York.",       # begins as A does
         "In New York Mr. Bush met Paris on Monday.",       # ends so
         "Mr. Bush met Paris. In Paris on Monday."]         # both


@pytest.fixture
def corrected(page):
    "The page on text A with two corrections, and none besides."
    box(page).fill("")
    settled(page)
    throw_away(page)
    tag(page, A, 3)
    correct(page, "Bush", "org organization")
    correct(page, "Monday", "eve event")
    assert marks(page) == FIXED_A
    expect(changes(page)).to_have_text("2 corrections, not saved yet")
    yield page
    box(page).fill("")
    throw_away(page)


def sentences(page):
    "What is in the saved file: words and tags of each sentence."
    name, content = saved(page, "Save corrections")
    assert name == "corrections.csv"
    out = []
    for number, word, _, label in list(csv.reader(io.StringIO(content)))[1:]:
        if number: out.append(([], []))
        out[-1][0].append(word); out[-1][1].append(label)
    return [(" ".join(w), " ".join(t)) for w, t in out]


SAVED_A = ("Mr. Bush met Paris on Monday .", "B-org I-org O B-geo O B-eve O")


def test_a_text_keeps_its_corrections(corrected):
    page = corrected
    paste(page, "Monday in New York")
    assert marks(page) == [("Monday", "tim"), ("New York", "geo")]
    expect(changes(page)).to_have_text("2 corrections, 0 in this text, not saved yet")
    page.keyboard.press("Control+z"); settled(page)
    assert shown(page) == A and marks(page) == FIXED_A
    page.keyboard.press("Control+y"); settled(page)
    assert shown(page) == "Monday in New York" and len(marks(page)) == 2
    paste(page, A)
    assert marks(page) == FIXED_A
    page.get_by_label("Text from").select_option("Markets"); settled(page)
    page.get_by_label("Text from").select_option("your own text"); settled(page)
    assert shown(page) == A and marks(page) == FIXED_A
    page.get_by_label("Text from").select_option("Markets"); settled(page)
    # where it can be found again
    page.get_by_label("Text from").select_option(f"{A} (2)"); settled(page)
    assert shown(page) == A and marks(page) == FIXED_A
    assert sentences(page) == [SAVED_A]
    expect(changes(page)).to_have_text("2 corrections, all saved")
    page.get_by_role("button", name="Undo").click(); settled(page)
    assert marks(page) == [("Mr. Bush", "org"), ("Paris", "geo"), ("Monday", "tim")]


@pytest.mark.parametrize("other", ALIKE)
def test_no_correction_reaches_another_text(corrected, other):
    page = corrected
    paste(page, other)
    assert {label for _, label in marks(page)} <= {"per", "geo", "tim"}, "a correction of the text before is here"
    correct(page, "Bush", "art work or product")
    # back: nor does it reach the text before
    page.keyboard.press("Control+z"); settled(page)
    assert shown(page) == A and marks(page) == FIXED_A
    paste(page, "Monday in Paris")
    box(page).press("Control+a"); page.keyboard.type(A[:12], delay=5); settled(page)         # typed over everything
    assert marks(page) == [("Mr. Bush", "per")]
    got = sentences(page)
    assert (
        got[0] == SAVED_A
        and len(got) == 2
        and "B-art" in got[1][1]
        and "B-org" not in got[1][1]
        and "B-eve" not in got[1][1]
    )


def test_from_an_uncorrected_text_none_comes_back(page):
    box(page).fill(""); settled(page); throw_away(page)
    tag(page, A, 3)
    paste(page, ALIKE[0])
    correct(page, "Bush", "art work or product")
    page.keyboard.press("Control+z"); settled(page)
    assert shown(page) == A and marks(page) == MODEL_A
    throw_away(page)


def test_corrections_move_with_editing(corrected):
    """What is typed elsewhere moves them; what is typed into a corrected word leaves the correction with the word as
    it was."""
    page = corrected
    box(page).press("Home"); page.keyboard.type("In Paris: ", delay=5); settled(page)
    assert marks(page)[1:] == FIXED_A and kept(page) == "2 corrections"
    box(page).press("Control+z"); settled(page)
    assert marks(page)[-3:] == FIXED_A
    tag_text = "x " + A
    box(page).fill(""); settled(page); throw_away(page)
    tag(page, tag_text, 3)
    correct(page, "Bush", "org organization"); correct(page, "Monday", "eve event")
    # Mondays
    box(page).press("Control+End"); page.keyboard.press("ArrowLeft"); page.keyboard.type("s", delay=5); settled(page)
    assert ("Mondays", "eve") not in marks(page) and marks(page)[0] == ("Mr. Bush", "org")
    expect(alert(page)).to_contain_text("'Monday' are no longer there")
    expect(changes(page)).to_have_text("2 corrections, 1 in this text, not saved yet")
    got = sentences(page)
    assert ("x Mr. Bush met Paris on Monday .", "O B-org I-org O B-geo O B-eve O") in got and not any(
        "eve" in t for w, t in got if "Mondays" in w
    )
    box(page).press("Control+z"); settled(page)
    assert shown(page) == tag_text and marks(page) == FIXED_A
    expect(changes(page)).to_have_text("2 corrections, all saved")


def test_a_confirmed_sentence(page):
    box(page).fill(""); settled(page); throw_away(page)
    tag(page, f"{A} In New York on Monday.", 5)
    chip(page, "tim").click()
    click(page, "York")
    right = card(page).get_by_role("button", name="The whole sentence is right")
    right.click()
    expect(alert(page)).to_contain_text("hidden")
    chip(page, "tim").click()
    click(page, "York"); right.click()
    expect(changes(page)).to_have_text("1 confirmed sentence, not saved yet")
    settled(page)
    click(page, "York")
    expect(card(page).get_by_role("button", name="Sentence confirmed")).to_be_disabled()
    page.keyboard.press("Escape")
    correct(page, "Bush", "org organization")
    expect(changes(page)).to_have_text("1 correction and 1 confirmed sentence, not saved yet")
    assert page.evaluate(
        "[...CSS.highlights].filter(([k]) => k.startsWith('ner-sure')).flatMap(([, h]) => [...h].map(String))"
    ) == ["In New York on Monday."]
    assert "-S data.more=corrections.csv" in page.locator(".ner-fixes").text_content()
    assert sentences(page) == [
        ("Mr. Bush met Paris on Monday .", "B-org I-org O B-geo O B-tim O"),
        ("In New York on Monday .", "O B-geo I-geo O B-tim O"),
    ]
    box(page).press("Control+End")
    page.keyboard.press("Backspace"); page.keyboard.type(" met Paris.", delay=5); settled(page)
    # what was confirmed is the old one
    assert len(sentences(page)) == 2 and kept(page).startswith("1 correction and 1 confirmed sentence, 1 in this text")
    throw_away(page)


def test_what_a_selection_marks(page):
    "Parts of words are widened to the words before anything is marked; punctuation alone is nothing."
    box(page).fill(""); settled(page); throw_away(page)
    tag(page, TEXT, 5)
    x, _, h = spot(page, "York")
    # "ork\ton" or so
    page.mouse.move(x + 4, h); page.mouse.down(); page.mouse.move(spot(page, "on ")[1] - 6, h); page.mouse.up()
    expect(card(page).locator(".ner-quote")).to_have_text(re.compile("^York on$"))
    assert page.evaluate(
        "[...CSS.highlights].filter(([k]) => k.startsWith('ner-chosen')).flatMap(([, h]) => [...h].map(String))"
    )[0].startswith("York\ton")
    page.keyboard.press("Escape")
    box(page).evaluate("e => { e.focus(); e.setSelectionRange(18, 19) }")                     # the full stop
    box(page).press("Control+Enter")
    expect(card(page)).to_contain_text("Punctuation alone can be no entity")
    expect(card(page).get_by_role("button", name="per person")).to_be_disabled()
    page.keyboard.press("Escape")


def test_reload_and_theme(corrected):
    page = corrected
    reload(page)
    assert shown(page) == box(page).input_value() == A and marks(page) == FIXED_A
    expect(changes(page)).to_have_text("2 corrections, not saved yet")
    if page.locator(".ner-theme").count():
        address = page.url
        page.get_by_role("button", name="Dark theme").click()
        assert (
            page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 17, 17)"
            and page.url == address
        )
        assert marks(page) == FIXED_A
        page.get_by_role("button", name="Light theme").click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_throw_away_asks_and_is_final(corrected):
    page = corrected
    page.get_by_role("button", name="Throw away…").click()
    expect(page.locator(".ner-fixes button", has_text="Throw away all 2?")).to_be_visible()
    assert marks(page) == FIXED_A                                                             # the first click only asks
    box(page).focus()                                                                         # thought better of it
    expect(page.get_by_role("button", name="Throw away…")).to_be_visible()
    assert marks(page) == FIXED_A
    throw_away(page)
    assert marks(page) == MODEL_A
    reload(page)
    assert shown(page) == A and marks(page) == MODEL_A and page.locator(".ner-fixes").is_hidden()


def test_a_closed_tab_and_two_at_once(browser, address):
    with opened(browser, address) as page:
        tag(page, A, 3)
        correct(page, "Bush", "org organization")
        context = page.context
        second = context.new_page(); second.set_default_timeout(PATIENCE * 1000)
        second.goto(address); second.wait_for_selector(".ner-demo .ner-text"); settled(second)
        assert shown(second) == A and marks(second)[0] == ("Mr. Bush", "org")
        correct(second, "Monday", "eve event")
        page.bring_to_front()
        expect(changes(page)).to_have_text("2 corrections, not saved yet")
        expect(layer(page).locator("mark").nth(2)).to_have_attribute("data-label", "eve")
        tag(page, "Paris", 1)
        second.close()
        third = context.new_page(); third.set_default_timeout(PATIENCE * 1000)
        page.wait_for_function(
            "text => Object.entries(localStorage).some(([k, v]) => k.startsWith('bert-ner text') && v === text)",
            arg="Paris",
        )
        third.goto(address); third.wait_for_selector(".ner-demo .ner-text"); settled(third)
        assert shown(third) == "Paris"
        expect(changes(third)).to_have_text("2 corrections, 0 in this text, not saved yet")
        third.get_by_label("Text from").select_option(f"{A} (2)"); settled(third)
        assert marks(third) == FIXED_A


def test_leaving_asks(browser, address):
    "While something is not saved; whoever stays finds everything at work."
    with opened(browser, address) as page:
        asked = []
        page.on("dialog", lambda d: (asked.append(d.type), d.dismiss()))
        tag(page, A, 3)
        correct(page, "Bush", "org organization")
        page.close(run_before_unload=True)
        until(lambda: page.wait_for_timeout(100) or asked, "nothing was asked")
        assert asked == ["beforeunload"] and not page.is_closed()
        # a kernel without a page would be gone by now
        time.sleep(6)
        tag(page, "In Paris", 1)
        sentences(page)
        with page.expect_event("close"): page.close(run_before_unload=True)
        assert asked == ["beforeunload"]


def test_a_killed_kernel_takes_nothing_along(browser, folder, tmp_path):
    with (
        voila(tmp_path / "log.txt", BERT_NER_MODEL=str(folder), BERT_NER_TRITON="127.0.0.1:1") as url,
        opened(browser, url) as page,
    ):
        tag(page, A, 3)
        correct(page, "Bush", "org organization"); correct(page, "Monday", "eve event")
        box(page).press("Control+End"); page.keyboard.type(" In Paris"); settled(page)
        kernel, = kernels(url)
        kernel.kill()
        expect(alert(page)).to_contain_text("The kernel has stopped. Your text and your corrections are kept.")
        page.get_by_role("button", name="Reload the page").click()
        page.wait_for_selector(".ner-demo .ner-text"); expect(layer(page).locator("mark")).to_have_count(4)
        assert shown(page) == A + " In Paris" and marks(page) == [*FIXED_A, ("Paris", "geo")]
        kernel_ended(page)


def test_a_restarted_kernel_in_jupyterlab(lab_page):
    page = lab_page
    box(page).fill(""); settled(page); throw_away(page)
    tag(page, A, 3)
    correct(page, "Bush", "org organization"); correct(page, "Monday", "eve event")
    page.wait_for_timeout(500)
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    expect(alert(page)).to_contain_text("run the cell again")
    page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'")
    lab(page, "notebook:run-all-cells")
    expect(alert(page)).to_be_hidden()
    settled(page)
    expect(layer(page).locator("mark")).to_have_count(3)
    assert shown(page) == A and marks(page) == FIXED_A
    throw_away(page)
    kernel_ended(page)


def test_a_browser_without_room_says_so(browser, address):
    with opened(browser, address) as page:
        page.evaluate(
            "() => { Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') } }"
        )
        tag(page, A, 3)
        correct(page, "Bush", "org organization")
        expect(changes(page)).to_contain_text("no room to keep them, save them now")
        assert sentences(page)[0][1].startswith("B-org I-org")
        assert next(iter(EXAMPLES.values())) != shown(page)
