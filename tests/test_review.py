"The review queue: sentences in, answers out, whatever happens in between."
import json, random, signal, sqlite3, subprocess, sys, threading, time

import pytest
from hypothesis import given, settings, strategies as st

from bert_ner.cli import FORMATS
from bert_ner.core import BertNerError
from bert_ner.data import add_extra_files, to_dataset
from bert_ner.formats import READERS, WRITERS, ConversionReport, Record, convert, read_annotated, read_sentences
from bert_ner.review import MAX_WORDS, ReviewQueue, measure_agreement, to_items
from bert_ner.synthetic import generate_corpus
from bert_ner.tagger import Tagger


@pytest.fixture(scope="module")
def tagger(mini_tagger_folder): return Tagger.from_pretrained(mini_tagger_folder, "onnx")


def make(path, tagger, texts, **options):
    (path/"texts.jsonl").write_text("".join(json.dumps(dict(text=t)) + "\n" for t in texts), encoding="utf-8")
    return ReviewQueue.create(path/"q.review", path/"texts.jsonl", tagger, **options)


def answered(queue, window, annotator, answer=lambda item: ("accept", item["entities"])):
    "Answer what is left; gives the ids."
    out = []
    while item := queue.take(window, annotator):
        queue.answer(item["id"], window, annotator, *answer(item))
        out.append(item["id"])
    return out


def test_the_shell_knows_the_formats():
    assert sorted(FORMATS) == sorted(WRITERS) and set(READERS) == {*FORMATS, "annotate", "review"}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab .!?\"\n\t 🎉é́‍Ab,"), min_size=1, max_size=60), min_size=1, max_size=5))
def test_every_word_of_a_text_is_in_one_item(tmp_path_factory, texts):
    from bert_ner.formats import AnnotatedText
    from bert_ner.spans import tokenize_words
    for text in texts:
        if not text.strip(): continue
        items = to_items(AnnotatedText(text, ()), ConversionReport())
        words = [i.text[a:b] for i in items for a, b in i.words]
        assert words == [text[a:b] for a, b in tokenize_words(text)]
        assert all(i.text and i.before + i.text + i.after in text for i in items)


@pytest.mark.parametrize("name", ["conll", "csv", "prodigy", "doccano", "label-studio", "jsonl", "brat", "datasets"])
def test_annotated_text_of_any_format(tmp_path, tagger, name):
    "What a file has is shown, not what the model finds; accepted, the same comes out."
    (tmp_path/"c.conll").write_text("Bush\tB-geo\nleft\tO\nParis\tB-per\n.\tO\n\nNothing\tO\n.\tO\n\n")
    suffix = {"conll": ".conll", "csv": ".csv", "label-studio": ".json", "brat": "", "datasets": ""}.get(name, ".jsonl")
    source = tmp_path/"c.conll"
    if name != "conll": convert(source, tmp_path/f"in{suffix}", None, name); source = tmp_path/f"in{suffix}"
    queue = ReviewQueue.create(tmp_path/"q.review", source, tagger)
    answered(queue, "w", "Ann")
    found = {" ".join(w): " ".join(t) for w, t in read_sentences(tmp_path/"q.review")[0]}
    assert found == {"Bush left Paris .": "B-geo O B-per O", "Nothing .": "O O"}


def test_rows_that_are_no_text_are_named(tmp_path, tagger):
    (tmp_path/"t.jsonl").write_text('{"text": "In Paris."}\n{broken\n{"text": 7}\n{"text": "On Monday."}\n')
    report = ConversionReport()
    queue = ReviewQueue.create(tmp_path/"q.review", tmp_path/"t.jsonl", tagger, report=report)
    assert queue.progress()["sentences"] == 2 and (report.texts, report.rejected_texts) == (4, 2)
    assert [p for p, _ in report.notes] == ["t.jsonl: line 2", "t.jsonl: line 3"]


def test_texts_with_other_fields_are_texts(tmp_path, tagger):
    "A label of the whole text, or columns whose names only look like a corpus's."
    (tmp_path/"t.jsonl").write_text('{"text": "In Paris.", "label": "travel"}\n')
    (tmp_path/"t.csv").write_text("keyword,tags,text\na,b,On Monday.\n")
    for i, (name, text) in enumerate({"t.jsonl": "In Paris.", "t.csv": "On Monday."}.items()):
        queue = ReviewQueue.create(tmp_path/f"{i}.review", tmp_path/name, tagger)
        item = queue.take("w", "Ann")
        assert (item["text"], len(item["entities"])) == (text, 1)


def test_a_queue_on_a_read_only_disk_can_be_read(tmp_path, tagger, monkeypatch):
    queue = make(tmp_path, tagger, ["In Paris."])
    answered(queue, "w", "Ann")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **kw: connect(f"file:{path}?mode=ro", uri=True, **kw))
    assert len([*read_annotated(queue.path)]) == 1 and ReviewQueue(queue.path).progress()["done"] == 1


def test_options_of_a_new_queue_are_refused_for_an_old_one(tmp_path, tagger, capsys, monkeypatch):
    from bert_ner import cli
    queue = make(tmp_path, tagger, ["In Paris."])
    for args, said in ((["--overlap"], "--overlap is for a new queue"), (["--sentences", "7"], "--sentences is for a new queue")):
        monkeypatch.setattr(sys, "argv", ["bert-ner", "review", str(queue.path), *args])
        with pytest.raises(SystemExit) as e: cli.main()
        assert e.value.code == 1 and said in capsys.readouterr().err


def test_other_columns_and_folders(tmp_path, tagger):
    (tmp_path/"in").mkdir()
    (tmp_path/"in"/"a.csv").write_text("id,body\n1,Bush left.\n2,Paris.\n")
    (tmp_path/"in"/"b.csv").write_text("id,body\n1,Monday.\n")
    queue = ReviewQueue.create(tmp_path/"q.review", tmp_path/"in", tagger, text_column="body", random_share=0)
    places = {queue.take(str(i), "Ann")["place"] for i in range(3)}
    assert places == {"a.csv: row 1", "a.csv: row 2", "b.csv: row 1"}


@pytest.mark.parametrize("text, message", [
    ("", "has no sentence to review"), ("\n \n", "has no sentence to review"), ("{broken\n", "1 texts rejected, the first at t.jsonl: line 1"),
])
def test_nothing_to_review(tmp_path, tagger, text, message):
    name = "t.jsonl" if "{" in text else "t.txt"
    (tmp_path/name).write_text(text)
    with pytest.raises(BertNerError, match=message): ReviewQueue.create(tmp_path/"q.review", tmp_path/name, tagger)
    assert not (tmp_path/"q.review").exists()


def test_a_folder_that_cannot_be_written(tmp_path, tagger):
    (tmp_path/"t.txt").write_text("In Paris.\n")
    with pytest.raises(BertNerError, match="its folder does not exist"):
        ReviewQueue.create(tmp_path/"no"/"q.review", tmp_path/"t.txt", tagger)
    with pytest.raises((BertNerError, OSError)) as e: ReviewQueue.create("/proc/q.review", tmp_path/"t.txt", tagger)
    assert "/proc" in str(e.value)
    (tmp_path/"q.review").write_text("mine")
    with pytest.raises(BertNerError, match="exists"): ReviewQueue.create(tmp_path/"q.review", tmp_path/"t.txt", tagger)
    with pytest.raises(BertNerError, match="is no review queue"): ReviewQueue(tmp_path/"q.review")
    assert (tmp_path/"q.review").read_text() == "mine" and sorted(p.name for p in tmp_path.iterdir()) == ["q.review", "t.txt"]


def test_a_folder_that_became_read_only(tmp_path, tagger, monkeypatch):
    "An answer that cannot be kept is an error, and the sentence stays open."
    queue = make(tmp_path, tagger, ["In Paris."])
    item, connect = queue.take("w", "Ann"), sqlite3.connect
    def read_only(path, **kw): return connect(f"file:{path}?mode=ro", uri=True, **kw)
    with monkeypatch.context() as m:
        m.setattr(sqlite3, "connect", read_only)
        with pytest.raises(BertNerError, match="cannot be read or written .*readonly"):
            queue.answer(item["id"], "w", "Ann", "accept", [])
    assert queue.progress()["done"] == 0 and queue.take("w", "Ann")["id"] == item["id"]


def test_more_sentences_than_are_asked_for(tmp_path, tagger):
    texts = [f"Number {i} left Paris." for i in range(500)] * 2
    queue = make(tmp_path, tagger, texts, most=50)
    assert queue.progress()["sentences"] == 50 and queue.meta["sentences"] == 500    # of equal ones one
    drawn = answered(queue, "w", "Ann")
    numbers = sorted(int(d.text.split()[1]) for d in read_annotated(queue.path))
    assert len(drawn) == len(set(numbers)) == 50 and numbers[0] < 100 and numbers[-1] > 400


def test_a_sentence_too_long_to_review(tmp_path, tagger):
    report = ConversionReport()
    queue = make(tmp_path, tagger, ["word " * (MAX_WORDS + 1), "Paris."], report=report)
    assert queue.progress()["sentences"] == 1 and "words are too many" in report.notes[0][1]


def test_the_least_certain_first_with_random_ones_between(tmp_path, tagger):
    queue = make(tmp_path, tagger, [f"Bush {i} left." if i % 2 else f"nothing {i} here." for i in range(40)], random_share=.25)
    seen = []
    while item := queue.take("w", "Ann"): seen.append(item); queue.answer(item["id"], "w", "Ann", "accept", item["entities"])
    ranked = [i["certainty"] for i in seen if not i["random"]]
    assert len(ranked) == 30 and ranked == sorted(ranked)


def test_windows_share_a_queue(tmp_path, tagger):
    "Many windows in threads, each with its own connection: each sentence is answered once, by the window that showed it."
    queue = make(tmp_path, tagger, [f"Number {i} left Paris." for i in range(120)])
    got = {}
    def work(k): got[k] = answered(ReviewQueue(queue.path), f"w{k}", "Ann")
    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads: t.start()
    for t in threads: t.join()
    all_ = [i for ids in got.values() for i in ids]
    assert len(all_) == len({*all_}) == 120 and queue.progress()["done"] == 120
    assert len([*read_annotated(queue.path)]) == 120


WORKER = """
import sys
from bert_ner.review import ReviewQueue
queue = ReviewQueue(sys.argv[1])
while item := queue.take("w", "Ann"):
    queue.answer(item["id"], "w", "Ann", "accept", item["entities"])
    print(item["id"], flush=True)
"""


def test_killed_in_the_middle(tmp_path, tagger):
    "Every answer that was confirmed is there, and the rest can go on."
    queue = make(tmp_path, tagger, [f"Number {i} left Paris." for i in range(300)])
    done = []
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WORKER, queue.path], stdout=subprocess.PIPE, text=True) as p:
            for _ in range(random.randint(5, 30)): done.append(int(p.stdout.readline()))
            p.send_signal(signal.SIGKILL)
            done += [int(line) for line in p.stdout if line.endswith("\n")]
    found = [*read_annotated(queue.path)]
    assert len(done) == len({*done}) and 0 <= len(found) - len(done) <= 3      # one a kill may be saved and not yet printed
    answered(queue, "other" * 2, "Ann")
    assert queue.progress() | dict(elsewhere=0) == queue.progress()
    assert queue.progress()["done"] >= 299                                     # one may still be claimed by the killed window


def test_a_lost_window_gives_its_sentence_back(tmp_path, tagger, monkeypatch):
    queue = make(tmp_path, tagger, ["In Paris."])
    mine = queue.take("lost", "Ann")
    queue.keep_draft(mine["id"], "lost", "Ann", [[3, 8, "per", 1]])
    assert queue.take("new", "Ann") is None and queue.progress()["elsewhere"] == 1
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    assert queue.take("new", "Ann")["entities"] == [[3, 8, "per", 1]]            # with what was half done
    late = queue.answer(mine["id"], "lost", "Ann", "accept", [[3, 8, "org", 1]])  # it comes back: nothing is lost
    assert late == ""
    both = queue.answer(mine["id"], "new", "Ann", "accept", [[3, 8, "per", 1]])
    assert "both answers are kept, and the last one counts" in both
    assert [e.label for d in read_annotated(queue.path) for e in d.entities] == ["per"]


def test_nobody_takes_back_the_answer_of_another(tmp_path, tagger):
    "Where each sentence is answered once, `Later` and Undo are of one's own answers."
    queue = make(tmp_path, tagger, ["In Paris.", "On Monday."])
    queue.answer(1, "a", "Ann", "accept", [])
    queue.answer(1, "b", "Ben", "accept", [])
    assert queue.back("a", "Ann") and queue.progress()["done"] == 1                # Ben's is left
    queue.answer(2, "b", "Ben", "accept", [])
    queue.answer(2, "a", "Ann", "skip", [])
    assert queue.progress()["done"] == 2 and len([*read_annotated(queue.path)]) == 2


def test_a_queue_that_was_made_meanwhile_is_kept(tmp_path, tagger, monkeypatch):
    from bert_ner import review
    order = review.order_items
    def slow(*args):
        monkeypatch.setattr(review, "order_items", order)
        answered(make(tmp_path, tagger, ["In Paris."]), "w", "Ann")                # another process, meanwhile
        return order(*args)
    monkeypatch.setattr(review, "order_items", slow)
    with pytest.raises(BertNerError, match="has been made meanwhile"): make(tmp_path, tagger, ["In Paris."])
    assert ReviewQueue(tmp_path/"q.review").progress()["done"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.review", "texts.jsonl"]


def test_back_later_and_again(tmp_path, tagger):
    queue = make(tmp_path, tagger, [f"Number {i} left Paris." for i in range(4)], random_share=0)
    first = queue.take("w", "Ann")
    queue.answer(first["id"], "w", "Ann", "skip", first["entities"])
    second = queue.take("w", "Ann")
    assert second["id"] != first["id"]
    queue.answer(second["id"], "w", "Ann", "accept", [])
    assert queue.back("other", "Ann") is None                                   # another window's answers are its own
    again = queue.back("w", "Ann")
    assert (again["id"], again["verdict"], again["entities"]) == (second["id"], "accept", [])
    assert queue.back("w", "Ann")["id"] == first["id"] and queue.back("w", "Ann") is None
    order = answered(queue, "w", "Ann")
    assert sorted(order) == [1, 2, 3, 4]
    assert [r.text for _, r in queue.records() if isinstance(r, Record)]


@pytest.mark.parametrize("verdict, entities, message", [
    ("maybe", [], "no answer 'maybe'"), ("accept", [[3, 7, "geo", 1]], "begin and end with a word"),
    ("accept", [[3, 8, "city", 1]], "no label 'city'"), ("accept", [[3, 8, "geo", 1], [0, 2, "geo", 1]], "overlaps"),
])
def test_an_answer_that_is_none(tmp_path, tagger, verdict, entities, message):
    queue = make(tmp_path, tagger, ["In Paris."])
    with pytest.raises(BertNerError, match=message): queue.answer(1, "w", "Ann", verdict, entities)
    assert queue.progress()["done"] == 0


def test_two_people(tmp_path, tagger):
    "With `overlap` both see all; their disagreements are listed, and the F1 is that of their entities."
    texts = [f"Bush {i} left Paris on Monday." for i in range(20)]
    queue = make(tmp_path, tagger, texts, overlap=True)
    answered(queue, "a", "Ann")
    def other(item):
        if item["id"] <= 5: return "accept", item["entities"][:-1]
        return ("reject" if item["id"] == 20 else "accept"), item["entities"]
    answered(queue, "b", "Ben", other)
    assert queue.progress("Ann")["done"] == queue.progress("Ben")["done"] == 20
    found = measure_agreement(*(read_annotated(queue.path, annotator=n) for n in queue.annotators()))
    assert (found.texts, found.only_first, found.only_second, len(found.disputed)) == (19, 1, 0, 5)
    shared, lost = found.shared.total(), 5
    assert found.first.total() == lost and found.second.total() == 0 and found.f1() == 2 * shared / (2 * shared + lost)
    assert len(found.agreed) == 14                                             # without the one that Ben has rejected
    report = ConversionReport()
    assert len([*read_annotated(queue.path, None, report)]) == 20 and report.rejected_texts == 20
    assert sum("they differ" in what for _, what in report.notes) == 5


def test_it_trains(tmp_path, tagger):
    "The queue is what `data.more` reads: the sentences get what was answered."
    corpus = generate_corpus(n=400)
    ds = to_dataset(corpus)
    texts = [" ".join(w) for w in ds["train"]["words"][:30]]
    queue = make(tmp_path, tagger, texts)
    answered(queue, "w", "Ann", lambda item: ("accept", []))
    more, counts, _ = add_extra_files(ds, queue.path, "")
    assert counts["more"]["sentences"] == counts["more"]["replaced"] == 30
    assert sum(t == 0 for tags in more["train"]["tags"] for t in tags) > sum(t == 0 for tags in ds["train"]["tags"] for t in tags)


def test_agreement_of_two_files(tmp_path, tagger, capsys, monkeypatch):
    from bert_ner import cli
    (tmp_path/"a.conll").write_text("Ann\tB-per\nmet\tO\nBen\tB-per\n\nParis\tB-geo\n\n")
    (tmp_path/"b.conll").write_text("Ann\tB-per\nmet\tO\nBen\tB-org\n\nParis\tB-geo\n\n")
    monkeypatch.chdir(tmp_path)
    def call(*args):
        monkeypatch.setattr(sys, "argv", ["bert-ner", "agreement", *args])
        with pytest.raises(SystemExit) as e: cli.main()
        return e.value.code or 0, *capsys.readouterr()
    status, out, err = call("a.conll", "b.conll", "--merged", "m.jsonl", "--disputed", "d.jsonl")
    assert (status, err) == (0, "") and "2 texts annotated by both" in out and "F1 0.6667: 2 shared entities" in out
    assert "a.conll: sentence 1: Ann met Ben\n  a.conll: Ann (per, 0-3), Ben (per, 8-11)\n  b.conll: Ann (per, 0-3), Ben (org, 8-11)" in out
    assert [d.text for d in read_annotated("m.jsonl")] == ["Paris"] and [d.text for d in read_annotated("d.jsonl")] == ["Ann met Ben"]
    assert call("a.conll", "b.conll", "--merged", "m.jsonl")[0] == 1                      # nothing is overwritten
    queue = make(tmp_path, tagger, ["In Paris."])
    status, _, err = call(str(queue.path))
    assert status == 1 and "has the answers of nobody: agreement is between exactly two" in err


@pytest.mark.long
def test_a_large_file(tmp_path, tagger):
    "100 MB: read once, 2,000 sentences kept, bounded memory."
    import resource
    with open(tmp_path/"t.txt", "w") as f:
        for i in range(1_000_000): f.write(f"Number {i} left Paris on Monday, {'and nothing else happened there ' * 2}today.\n")
    assert (tmp_path/"t.txt").stat().st_size > 100_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queue = ReviewQueue.create(tmp_path/"q.review", tmp_path/"t.txt", tagger)
    assert queue.progress()["sentences"] == 2000 and queue.meta["sentences"] == 1_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000
