"Both corpora: what is in them, and that their parts share nothing."
import os
import random
from collections import Counter

import pytest

from bert_ner.core import GMB_TAGS
from bert_ner.data import ensure_gmb, load_corpus, to_dataset, words_and_tags
from bert_ner.corpus import read_corpus
from bert_ner.metrics import entity_scores
from bert_ner.spans import tags_to_spans


@pytest.fixture(scope="module", params=["sample", pytest.param("gmb", marks=pytest.mark.gmb)])
def corpus(request, tmp_path_factory, module_root): return load_corpus(request.param, n=4000)[0]


@pytest.fixture(scope="module")
def module_root(tmp_path_factory):
    "A root of its own, so that nothing of the user's is touched."
    from bert_ner import core, data
    root, before = tmp_path_factory.mktemp("root"), core.ROOT
    core.ROOT = data.ROOT = root
    yield root
    core.ROOT = data.ROOT = before


def test_parts_are_80_10_10_and_share_no_sentence(corpus):
    ds = to_dataset(corpus)
    parts = {p: {" ".join(w) for w in ds[p]["words"]} for p in ds}
    assert sum(len(ds[p]) for p in ds) == len(corpus)
    for part, share in dict(train=.8, validation=.1, test=.1).items():
        assert abs(len(ds[part]) / len(corpus) - share) < .02
    assert (
        not parts["train"] & parts["validation"]
        and not parts["train"] & parts["test"]
        and not parts["validation"] & parts["test"]
    )


def test_order_and_additions_do_not_reshuffle(corpus):
    some = corpus[:2000]
    shuffled = random.Random(0).sample(some, len(some)) + [(["Brand", "new"], ["O", "O"])]
    a, b = to_dataset(some), to_dataset(shuffled)
    for part in a: assert {" ".join(w) for w in a[part]["words"]} <= {" ".join(w) for w in b[part]["words"]}


def test_gold_scores_one_and_shuffled_gold_near_nothing(corpus):
    _, gold = words_and_tags(to_dataset(corpus)["test"])
    tags = [t for s in gold for t in s]
    random.Random(42).shuffle(tags)
    shuffled = iter(tags)
    assert entity_scores(gold, gold)["micro"]["f1"] == 1
    assert entity_scores(gold, [[next(shuffled) for _ in s] for s in gold])["micro"]["f1"] < .05


def test_all_tags_occur_in_training(corpus):
    assert {t for s in words_and_tags(to_dataset(corpus)["train"])[1] for t in s} == set(GMB_TAGS)


@pytest.mark.gmb
def test_gmb_is_the_known_file(module_root):
    sentences, digest = load_corpus("gmb")
    counts = Counter(k for _, tags in sentences for k, *_ in tags_to_spans(tags))
    assert len(sentences) == 47_959 and sum(len(w) for w, _ in sentences) == 1_048_575
    assert counts == dict(geo=37_644, tim=20_333, org=20_143, per=16_990, gpe=15_870, art=402, eve=308, nat=201)
    assert sum(w == "None" for words, _ in sentences for w in words) == 10
    assert ensure_gmb() == module_root/"data"/"gmb"/"ner_dataset.csv"


@pytest.mark.gmb
def test_gmb_read_as_utf8_names_the_trouble():
    from bert_ner.core import BertNerError
    with pytest.raises(BertNerError, match="not utf-8"): read_corpus(os.environ["BERT_NER_GMB"])
