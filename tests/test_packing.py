"Texts by the table of chunks against texts word by word: the same words, tokens and entities, for any text."
import copy
import pickle
import threading

import numpy as np
import pytest
from families import make_checkpoint
from hypothesis import example, given, settings, strategies as st

import bert_ner.packing
from bert_ner import Tagger
from bert_ner.packing import TextPacker
from bert_ner.spans import aggregate_entities, break_at_blank_lines, split_table_cells, tokenize_words
from bert_ner.windows import split_unspaced, word_log_probs

CASES = ["bert", "roberta", "xlm-roberta", "modernbert"]   # WordPiece; BPE and Unigram, which read the space before a word


class Rolling:
    "Logits that depend on the token and on its neighbors, so that a token at a wrong place is noticed."
    num_streams = 1
    def __init__(self, tags): self.table = np.random.default_rng(42).normal(size=(997, tags)).astype(np.float32)
    def logits(self, input_ids, attention_mask, token_type_ids=None):
        ids = np.where(attention_mask == 1, input_ids, 0)
        return self.table[(ids + 7 * np.roll(ids, 1, 1) + 13 * np.roll(ids, -1, 1)) % 997]


@pytest.fixture(scope="module")
def taggers(tmp_path_factory):
    "Of each family, over an engine that is exact, with short windows."
    out = {}
    for family in CASES:
        folder = make_checkpoint(family, tmp_path_factory.mktemp("packing")/family, epochs=1, n=100)
        tagger = Tagger.from_pretrained(folder, None)
        tagger.engine = Rolling(len(tagger.tags))
        tagger.window_tokenizer.room, tagger.window_tokenizer.stride = 14, 5
        out[family] = tagger
    return out


def word_by_word(tagger, text):
    "The entities of one text, as they were found before there was a table of chunks."
    cells = []
    for offsets in split_table_cells(text, tokenize_words(text)):
        words = [text[a:b] for a, b in offsets]
        if tagger.window_tokenizer.split_unspaced: offsets, words = split_unspaced(text, offsets, tagger.window_tokenizer.word_encoder)
        cells.append((offsets, words))
    tagged = tagger.decode(word_log_probs(tagger.engine, tagger.window_tokenizer, [w for _, w in cells]))
    offsets, tags = [o for c, _ in cells for o in c], [t for w in tagged for t in w.tags]
    probs = np.concatenate([w.probs for w in tagged])
    return aggregate_entities(text, offsets, break_at_blank_lines(text, offsets, tags), probs)


def check(tagger, texts):
    found = tagger.tag_batch(texts)
    assert len(found) == len(texts)
    for text, entities in zip(texts, found):
        assert entities.text == text
        wanted = word_by_word(tagger, text)
        assert [(e.start, e.end, e.label, e.text) for e in entities] == [(e.start, e.end, e.label, e.text) for e in wanted]
        assert [e.score for e in entities] == pytest.approx([e.score for e in wanted], abs=1.1e-4)
        assert all(type(e.start) is int and type(e.score) is float for e in entities)


CHUNKS = ["Mr.", "Mr. ", "U.S.", "don't", "Paris", "Paris,", "New\u00adYork", "\u200b", "x" * 120, "🎉", "👨‍👩‍👧", "北京市", "กรุงเทพ", "e\u0301",
          "\ufeffIn", "'s", "2,000", "al-Qaida", "\x00", "a" * 40, "İstanbul", "ﬁn", "Mr.\u200b", "Jr.", "(St.", "\u3164"]
SPACES = [" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u2028", "\u2029", "\x0c", "\x1c", "\x85", "\xa0", "\u3000", " \n \n "]
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.lists(st.tuples(st.sampled_from(CHUNKS), st.sampled_from(SPACES)), max_size=25).map(lambda x: "".join(a + b for a, b in x)),
        st.lists(st.sampled_from(CHUNKS), max_size=25).map(" ".join),
    ), max_size=5)


@pytest.mark.parametrize("family", CASES)
@settings(max_examples=150, deadline=None)
@given(texts=TEXTS)
@example(texts=["Mr.", "Mr. ", "Mr.\u200b", "Mr.\u200b x", "in Mr.", "in Mr.\n"])
@example(texts=["\ufeff Paris", "\u200b Paris in", "\ufeff", " \u200b \u200b Paris"])
@example(texts=["", " ", "\t", "a\tb", "a\t b\nc", "\ta b"])
@example(texts=["Paris", "Paris", " Paris", "Paris Paris"])
@example(texts=["x" * 120, "x" * 99 + " y", "a b " * 60, "a\n\nb", "Mr.\n\nBush"])
def test_any_text(taggers, family, texts):
    assert not any("\ud800" <= c <= "\udfff" for t in texts for c in t)
    check(taggers[family], texts)


@pytest.mark.parametrize("how", [dict(aggregation="average"), dict(aggregation="max"), dict(decoding="argmax"), dict(scheme="iob1")])
def test_other_readings(taggers, how):
    tagger = copy.deepcopy(taggers["bert"])
    if "aggregation" in how: tagger.window_tokenizer.aggregation = how["aggregation"]
    tagger.decoding, tagger.scheme = how.get("decoding", "viterbi"), how.get("scheme", "iob2")
    check(tagger, ["Mr. Bush met Ouagadougou's president in Kyrgyzstan.", "", "a\tb", "Ouagadougou " * 30])


def test_a_full_table_starts_anew(taggers, monkeypatch):
    monkeypatch.setattr(bert_ner.packing, "MAX_CHUNKS", 20)
    tagger = copy.deepcopy(taggers["bert"])
    packer = tagger._packer
    for k in range(30):
        check(tagger, [f"{k} in {k * 7} Paris {k + j}" for j in range(3)])
        assert len(packer.table.known) <= 20
    check(tagger, [f"word{i} Paris" for i in range(50)])          # more new chunks in one call than the table should have
    check(tagger, ["Paris"]); check(tagger, ["anew"])
    assert len(packer.table.known) == 1


@pytest.mark.parametrize("column", ["chars", "input_ids", "start", "end"])
def test_an_interrupt_while_learning(taggers, monkeypatch, column):
    "Ctrl+C in the middle of a chunk: what was learned in part is forgotten."
    tagger = copy.deepcopy(taggers["bert"])
    check(tagger, ["in Paris"])
    broken = getattr(tagger._packer.table, column)
    def interrupt(values): raise KeyboardInterrupt
    monkeypatch.setattr(broken, "extend", interrupt)
    with pytest.raises(KeyboardInterrupt): tagger.tag("Tony Blair visited the city")
    assert getattr(tagger._packer.table, column) is not broken
    check(tagger, ["Tony Blair visited the city", "in Paris", "others went on Monday"])


def test_a_table_that_is_not_full_stays(taggers, monkeypatch):
    monkeypatch.setattr(bert_ner.packing, "MAX_CHUNKS", 20)
    tagger = copy.deepcopy(taggers["bert"])
    many = " ".join(f"w{i}" for i in range(15))
    tagger.tag(many); table = tagger._packer.table
    tagger.tag(f"{many} new")
    assert tagger._packer.table is table and len(table.known) == 16


def test_equal_cells_of_a_table_are_scored_once(taggers):
    tagger, rows = copy.deepcopy(taggers["bert"]), []
    engine = tagger.engine
    class Counting:
        num_streams = 1
        def logits(self, **given): rows.append(len(given["input_ids"])); return engine.logits(**given)
    tagger.engine = Counting()
    texts = ["Paris\tin\n" * 200, "Paris in", "in\tParis\tRome", "Rome\tRome", "", "\t"]
    check(tagger, texts)                 # `check` asks the engine for every cell, too
    rows.clear(); tagger.tag_batch(texts)
    assert 0 < sum(rows) <= 10


def test_scripts_with_spaces_keep_the_table(taggers):
    "A letter beyond ASCII does not send a checkpoint's text word by word."
    tagger = copy.deepcopy(taggers["roberta"])
    tagger.window_tokenizer.split_unspaced = True
    tagger._packer = TextPacker(tagger.window_tokenizer)
    tagger._packer._split = None
    assert tagger.tag_batch(["Angela fährt nach Zürich", "Ян в Туле"])[1].text == "Ян в Туле"
    tagger._packer = TextPacker(tagger.window_tokenizer)
    check(tagger, ["Angela fährt nach Zürich", "北京市 Zürich", "Zürich กรุงเทพ\tZürich"])


def test_words_tagger_pickles(taggers):
    from bert_ner.tagger import WordTagger
    known = taggers["bert"]
    again = pickle.loads(pickle.dumps(WordTagger(known.engine, known.window_tokenizer, known.tags)))
    assert again.tag_tokenized([["in", "Paris"]])[0].tags == known.tag_tokenized([["in", "Paris"]])[0].tags


def test_threads_share_a_table(taggers, monkeypatch):
    "Eight threads learn the same and other chunks, while the table starts anew again and again."
    monkeypatch.setattr(bert_ner.packing, "MAX_CHUNKS", 300)
    tagger, errors = copy.deepcopy(taggers["roberta"]), []
    texts = [[f"{k % 3}x{j} Paris, in {j}-{k} Mr. y{j}" for j in range(40)] for k in range(8)]
    wanted = [[word_by_word(tagger, t) for t in ts] for ts in texts]
    def work(k):
        for _ in range(15):
            found = [[(e.start, e.end, e.label) for e in es] for es in tagger.tag_batch(texts[k])]
            if found != [[(e.start, e.end, e.label) for e in es] for es in wanted[k]]: errors.append(k)
    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not errors


def test_copies_and_other_tokenizers(taggers, mini_tagger_folder):
    "A copy shares the table, a deep copy has its own, and a tagger that is given another tokenizer reads by it."
    tagger = Tagger.from_pretrained(mini_tagger_folder)
    text = "Mr. Bush met Paris in New York"
    assert copy.copy(tagger)._packer is tagger._packer is tagger.over(tagger.engine)._packer
    apart = copy.deepcopy(tagger)
    assert apart.tag(text) == tagger.tag(text) and apart._packer is not tagger._packer
    assert apart._packer.window_tokenizer is apart.window_tokenizer
    assert pickle.loads(pickle.dumps(tagger)).tag(text) == tagger.tag(text)
    other = taggers["roberta"]
    swapped = copy.copy(other)
    swapped.window_tokenizer = copy.copy(other.window_tokenizer)
    swapped.window_tokenizer.room = 3
    assert swapped.tag("a b c d e f") == word_by_word(swapped, "a b c d e f")


def test_memory_is_bounded_by_the_table():
    "A long chunk is not kept."
    from bert_ner.windows import WindowTokenizer
    from tokenizers import Tokenizer, models, pre_tokenizers
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    packer = TextPacker(WindowTokenizer(tokenizer))
    packed = packer(["a " + "b" * 1_000_000, "a"])
    assert packed.sizes.tolist() == [1, 2] and packed.order == [1, 0]
    assert [*packer.table.known] == ["a"]
