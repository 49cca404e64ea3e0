"Spans, offsets and windows hold for any text that Python can hold."
import subprocess
import sys

import pytest
from hypothesis import given, settings, strategies as st

from bert_ner.core import GMB_TAGS, GMB_LABELS
from bert_ner.tagger import Tagger
from bert_ner.windows import WindowTokenizer
from bert_ner.spans import Entity, remove_invisible, spans_to_tags, tokenize_words, tags_to_spans, aggregate_entities

odd = st.sampled_from(
    [
        "Paris",
        "New York",
        " ",
        "\r\n",
        "\0",
        "🎉",
        "👩‍👩‍👧",
        "e\u0301",
        "ﬁ",
        "İstanbul",
        "U.S.",
        "Mr. ",
        "x" * 10_000,
        "\u200b",
        "\u00a0",
        "東京",
        "'s",
        "n't",
        "<b>",
    ]
)
texts = st.one_of(st.text(), st.lists(st.one_of(odd, st.text(max_size=5))).map("".join))


@pytest.fixture(scope="module")
def tagger(mini_tagger_folder): return Tagger.from_pretrained(mini_tagger_folder)


@given(texts)
@settings(max_examples=500, deadline=None)
def test_words_hold_all_that_is_seen(text):
    spans = tokenize_words(text)
    assert remove_invisible("".join(text[a:b] for a, b in spans)) == remove_invisible("".join(text.split()))
    assert all(not c.isspace() for a, b in spans for c in text[a:b])
    assert all(remove_invisible(c) for a, b in spans for c in (text[a], text[b - 1]))
    assert all(a < b for a, b in spans) and all(b <= c for (_, b), (c, _) in zip(spans, spans[1:]))


@given(text=texts)
@settings(max_examples=300, deadline=None)
def test_an_entity_is_its_own_text(tagger, text):
    entities = tagger.tag(text)
    for e in entities:
        assert (
            text[e.start : e.end] == e.text
            and e.text.strip() == e.text != ""
            and e.label in GMB_LABELS
            and 0 <= e.score <= 1
        )
    assert all(a.end <= b.start for a, b in zip(entities, entities[1:]))


INVISIBLE = dict(
    soft_hyphen="\u00ad",
    space="\u200b",
    non_joiner="\u200c",
    joiner="\u200d",
    word_joiner="\u2060",
    bom="\ufeff",
    grapheme_joiner="\u034f",
    lrm="\u200e",
    rlm="\u200f",
    arabic_mark="\u061c",
    embedding="\u202a",
    override="\u202e",
    pop="\u202c",
    isolate="\u2066",
    pop_isolate="\u2069",
    text_style="\ufe0e",
    emoji_style="\ufe0f",
    ideograph_variant="\U000e0100",
    mongolian="\u180b",
    tag="\U000e0067",
    filler="\u3164",
    plus="\u2064",
    annotation="\ufff9",
    shorthand="\U0001bca0",
    music="\U0001d173",
)


@pytest.mark.parametrize("mark", INVISIBLE.values(), ids=INVISIBLE)
@pytest.mark.parametrize("plain", ["Mr. Bush met Paris in New York on Monday.", "Paris", "the U.S., Bush's, 1,000 in Paris -- don't...", "‘Paris’ in Zürich"])
def test_an_invisible_character_changes_nothing_wherever_it_stands(tagger, plain, mark):
    want = [(e.label, e.text, e.score) for e in tagger.tag(plain)]
    for text in (
        mark.join(plain),
        f"{mark}{plain}{mark}",
        f" {mark} ".join(plain.split()),
        plain.replace(" ", mark + " " + mark),
        *(plain[:i] + mark + plain[i:] for i in range(len(plain))),
    ):
        found = tagger.tag(text)
        assert [(e.label, " ".join(remove_invisible(e.text).split()), e.score) for e in found] == want
        assert all(
            text[e.start : e.end] == e.text and remove_invisible(e.text[0]) and remove_invisible(e.text[-1])
            for e in found
        )


@given(text=st.lists(st.one_of(st.sampled_from(["Paris", "New York", "Mr. Bush", " ", ".", ",", "'s", "don't", "1,000", "U.S.", "दिल्ली", "خانه"]), st.text(st.characters(exclude_categories=["Cs", "So"]), max_size=4))).map("".join).map(remove_invisible),
       data=st.data())
@settings(max_examples=300, deadline=None)
def test_words_are_those_of_the_text_without_them(text, data):
    mixed = "".join(
        c + "".join(data.draw(st.lists(st.sampled_from([*INVISIBLE.values()]), max_size=2))) for c in " " + text
    )
    assert [remove_invisible(mixed[a:b]) for a, b in tokenize_words(mixed)] == [
        text[a:b] for a, b in tokenize_words(text)
    ]


@pytest.mark.parametrize("text, words", [
    ("می\u200cخواهم به خانه\u200cها", ["می\u200cخواهم", "به", "خانه\u200cها"]), ("क\u094d\u200dष दिल्ली में", ["क\u094d\u200dष", "दिल्ली", "में"]), ("தமிழ்நாடு", ["தமிழ்நாடு"]), ("กรุงเทพ ที่", ["กรุงเทพ", "ที่"]),
    ("မြန်မာ", ["မြန်မာ"]), ("בְּרֵאשִׁית", ["בְּרֵאשִׁית"]), ("مُحَمَّد", ["مُحَمَّد"]), ("Zu\u0308rich U\u0308.S.", ["Zu\u0308rich", "U\u0308.S."]), ("Shi\u0301'ite", ["Shi\u0301'ite"]),
    ("𑀓𑀼𑀫𑀸𑀭", ["𑀓𑀼𑀫𑀸𑀭"]), ("x\u20dd", ["x\u20dd"]), ("1\ufe0f\u20e3", ["1\ufe0f\u20e3"]), (")\u0301 (", [")\u0301", "("]),
    ("👩\u200d👩\u200d👧!", ["👩\u200d👩\u200d👧", "!"]), ("❤\ufe0f\u200d🔥", ["❤\ufe0f\u200d🔥"]), ("👍🏽👍", ["👍🏽", "👍"]), ("👩🏽\u200d🚒", ["👩🏽\u200d🚒"]), ("🇫🇷🇩🇪", ["🇫🇷", "🇩🇪"]), ("Paris\u200d👧", ["Paris", "👧"]), ("👧\u200dParis", ["👧", "Paris"])])
def test_marks_and_joiners_keep_a_word_together(text, words):
    assert [text[a:b] for a, b in tokenize_words(text)] == words


def test_the_encoder_sees_no_invisible_character(mini_tagger_folder):
    "Also where words come split already, and where the tokenizer would keep them."
    from tokenizers import Tokenizer, models
    seen = Tokenizer(
        models.WordLevel(
            {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "Paris"])}, unk_token="[UNK]"
        )
    )
    for mark in INVISIBLE.values():
        window_tokenizer = WindowTokenizer(seen, case_feature=True)
        assert window_tokenizer.encode_words([f"{mark}Pa{mark}ris{mark}", mark]) == [[4], [1]]
        assert window_tokenizer.encode([[f"{mark}Paris"]])[0].token_type_ids == [0, 1, 0]


def test_an_entity_over_words_of_others_is_trimmed():
    text = "\u200bParis\ufeff in \u200b"
    assert aggregate_entities(text, [(0, 7), (8, 10), (11, 12)], ["B-geo", "O", "B-geo"], [0.5, 1, 1]) == [
        Entity(1, 6, "geo", "Paris", 0.5)
    ]


@given(many=st.lists(texts, max_size=6))
@settings(max_examples=100, deadline=None)
def test_batched_equals_one_by_one(tagger, many): assert tagger.tag_batch(many) == [tagger.tag(t) for t in many]


@pytest.mark.parametrize("text", ["", " \r\n\t ", "\0", "🎉", "x" * 10_000, "e\u0301"])
def test_texts_without_entities(tagger, text): assert tagger.tag(text) == []


def test_a_text_longer_than_the_window_loses_nothing(tagger):
    "2,000 places among 8,000 words, where the window holds 62 tokens."
    text = "Paris met in bush " * 2000
    assert sum(e.text == "Paris" for e in tagger.tag(text)) == 2000


@given(st.data())
def test_spans_and_tags_are_two_views_of_one_thing(data):
    n = data.draw(st.integers(0, 30))
    cuts = sorted(data.draw(st.sets(st.integers(0, n), max_size=10)))
    spans = [
        (data.draw(st.sampled_from(GMB_LABELS)), a, b) for a, b in zip(cuts, cuts[1:]) if data.draw(st.booleans())
    ]
    assert tags_to_spans(spans_to_tags(spans, n)) == spans


@given(st.lists(st.sampled_from(GMB_TAGS), max_size=20))
def test_spans_are_seqevals_strict_ones(tags):
    from seqeval.scheme import IOB2, Entities
    entities = Entities([tags], IOB2).entities[0]
    assert tags_to_spans(tags) == [(e.tag, e.start, e.end) for e in entities]


@pytest.mark.parametrize("module", ["core", "spans", "windows", "packing", "engines", "tagger", "triton.model"])
def test_the_servers_modules_import_without_torch(module):
    "The Triton server's environment has numpy, tokenizers and onnxruntime, nothing more."
    code = f"""import sys
for name in ("torch", "transformers", "datasets", "pandas", "seqeval", "yaml", "fastcore", "tqdm"): sys.modules[name] = None
import bert_ner.{module}"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""
