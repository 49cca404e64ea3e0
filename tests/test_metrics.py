"Scores are right, or one sentence says why there are none; nothing warns."
import math
import warnings

import numpy as np
import pytest

from bert_ner.error_analysis import expected_calibration_error, error_breakdown, reliability_table, entity_confidences
from bert_ner.tagger import TagPrediction
from bert_ner.metrics import bootstrap_f1_ci, entity_scores, evaluate_raw_text

NOTHING = dict(precision=0., recall=0., f1=0., support=0)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings(): warnings.simplefilter("error"); yield


def numbers(x):
    return (
        [n for v in x.values() for n in numbers(v)]
        if isinstance(x, dict)
        else [x]
        if isinstance(x, (int, float))
        else []
    )


@pytest.mark.parametrize("gold, pred, micro, types", [
    ([["O", "O"]], [["O", "O"]], NOTHING, set()), ([[]], [[]], NOTHING, set()), ([["O"], []], [["O"], []], NOTHING, set()), ([["I-geo"]], [["I-geo"]], NOTHING, set()),
    ([["O"]], [["B-geo"]], NOTHING, {"geo"}), ([["B-geo"]], [["O"]], dict(NOTHING, support=1), {"geo"}), ([["B-geo", "O"]], [["B-geo", "B-per"]], dict(precision=.5, recall=1., f1=.66667, support=1), {"geo", "per"}),
    ([["B-a-b", "I-a-b"]], [["B-a-b", "I-a-b"]], dict(precision=1., recall=1., f1=1., support=1), {"a-b"})])
def test_scores_where_there_is_little_or_nothing_to_find(gold, pred, micro, types):
    scores = entity_scores(gold, pred)
    assert (
        scores["micro"] == micro and set(scores["labels"]) == types and not any(math.isnan(x) for x in numbers(scores))
    )
    bootstrap_f1_ci(gold, pred, 20)


def test_any_collection_of_tags():
    gold = [["B-geo", "I-geo"], ["O"]]
    assert (
        entity_scores(gold, gold)
        == entity_scores((tuple(s) for s in gold), [np.array(s) for s in gold])
        == entity_scores(gold, map(iter, gold))
    )


@pytest.mark.parametrize("bad", ["geo", "X", "", "B", "B-", "I-", "S-geo", "E-geo", "b-geo", "B_geo", "o", "0", " O", None, 5, float("nan")])
def test_a_tag_that_is_not_iob2_is_one_sentence(bad):
    for gold, pred, name in (
        ([["O"], ["O", bad]], [["O"], ["O", "O"]], "gold"),
        ([["O"], ["O", "O"]], [["O"], ["O", bad]], "pred"),
    ):
        with pytest.raises(ValueError, match=f"{name}, sentence 1: .* is no IOB2 tag"): entity_scores(gold, pred)


@pytest.mark.parametrize("gold, pred", [([], []), ([["O"]], []), ([["O"]], [["O", "O"]]), ([["O"]], [["O"], ["O"]])])
def test_shapes_that_differ_are_one_sentence(gold, pred):
    with pytest.raises(ValueError, match="the same sentences, at least one"): entity_scores(gold, pred)


def test_raw_text_of_nothing_is_one_sentence():
    with pytest.raises(ValueError, match="no sentences to score"): evaluate_raw_text(lambda texts: [], [], [])


def test_a_tagger_that_finds_nothing_has_tables_without_rows():
    scores, right = entity_confidences([TagPrediction(["O"], np.ones(1))], [["O"]])
    assert len(scores) == 0 == len(reliability_table(scores, right)) and expected_calibration_error(scores, right) == 0
    assert error_breakdown([["O"]], [["O"]]).loc["all"].sum() == 0
