"How training corpora are read: every row becomes a word of the corpus, or it is an error that names the row."
import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile

import pytest
import yaml

from bert_ner.core import ROOT, GMB_TAGS, BertNerError, assign_split
from bert_ner.data import add_extra_files, ensure_gmb, load_corpus, to_dataset, words_and_tags
from bert_ner.corpus import likely_corpus_files, read_corpus, build_tag_list
from bert_ner.corpus import corpus_csv
from bert_ner.synthetic import generate_corpus

HEAD = "Sentence #,Word,POS,Tag\n"


@pytest.fixture
def read(tmp_path):
    "Write a file, read it as your own corpus."
    def read(text, name="a.csv", stored="utf-8", **kw):
        (tmp_path/name).write_bytes(text if isinstance(text, bytes) else text.encode(stored))
        return read_corpus(tmp_path/name, tags=None, **kw)
    return read


def words(sentences): return [w for ws, _ in sentences for w in ws]


# a quote is a word

@pytest.mark.parametrize("cell, word", [('"', '"'), ('""""', '"'), ('"Hi', '"Hi'), ('Hi"', 'Hi"'), ('5"', '5"'), ('"5"" disk"', '5" disk'), ('"5" disk"', '5" disk'), ('"1,000"', "1,000"), ('","', ","),
    ('"\\""', '"'), ("''", "''"), ("``", "``"), (' "Hi"', "Hi"), ('"""Hi"""', '"Hi"'), ("“", "“"), ("'", "'"), ("\u00a0", "\u00a0"), ("\u200b", "\u200b"), ("None", "None"), ("NA", "NA"), ("null", "null"), ("nan", "nan"),
    ("#", "#"), (" Paris ", "Paris"), ("=1+1", "=1+1"), ("🙂", "🙂"), ("e\u0301", "e\u0301")])
def test_a_word_of_a_csv_and_the_rows_after_it(read, cell, word):
    assert read(f"{HEAD}1,{cell},,O\n,Paris,,B-geo\n2,{cell},,O\n,Rome,,B-geo\n") == [
        ([word, "Paris"], ["O", "B-geo"]),
        ([word, "Rome"], ["O", "B-geo"]),
    ]


def test_many_open_quotes_swallow_nothing(read):
    text = HEAD + "".join(f'{i},",``,O\n,Paris,NNP,B-geo\n,",\'\',O\n' for i in range(500))
    assert read(text) == [(['"', "Paris", '"'], ["O", "B-geo", "O"])] * 500


def test_all_cells_quoted_by_hand_or_by_a_program(read):
    assert read('"Sentence #","Word","POS","Tag"\n"1",""","``","O"\n"1","Paris","NNP","B-geo"\n"1","""","``","O"\n') == [(['"', "Paris", '"'], ["O", "B-geo", "O"])]


@pytest.mark.parametrize("rows, message", [
    ('1,ok,,O\n,"New\nYork",,B-geo\n', "row 3: 2 columns where the header has 4: a quote that is a word is written"),
    ('1,ok,,O\n,"New\r\nYork",,B-geo\n', "row 3: 2 columns"), ('1,ok,,O\n,"New\rYork",,B-geo\n', "row 3: 2 columns"),
    ('1,",",O\n', "row 2: 3 columns where the header has 4: a quote"), ("1,a\u2028b,,O\n", "row 2: the word .* line break"), ("1,a\x85b,,O\n", "row 2: .* line break"),
    ("1,a\0b,,O\n", "row 2: .* control character"), ("1,a\tb,,O\n", "row 2: .* control character"), ("1," + "x" * 10_001 + ",,O\n", "row 2: a word of 10,001 characters"),
    ("1,,,O\n", "row 2: empty word"), ("1, ,,O\n", "row 2: empty word"), ('1,"",,O\n', "row 2: empty word"), ("1,ok,,\n", "row 2: no tag"), ("1,ok,, \n", "row 2: no tag"),
    ("1,ok,,o\n", "row 2: 'o' is not a tag"), ("1,ok,,b-geo\n", "row 2: 'b-geo' is not a tag"), ("1,ok,,0\n", "row 2: '0' is not a tag"), ("1,ok,O\n", "row 2: 3 columns"), ("1,ok,,O,x\n", "row 2: 5 columns"),
    (",ok,,O\n", "row 2: the first row names no sentence"), ("1,a,,O\n2,b,,O\n1,c,,O\n", "row 4: '1' is the name of the sentence in row 2"), ("1,a,,O\n,b,,O\n1,c,,O\n", "row 4: '1' is the name"),
    ("1,a,,O\n\n,b,,O\n", "row 3: a blank row within a sentence"), ("1,a,,O\n,,,\n1,b,,O\n", "row 3: a blank row within"), ("1,a,,B-Geo\n2,b,,B-geo\n", "row 3: the label 'geo' is written 'Geo' in row 2"),
    ("1,a,,O\nSentence #,Word,POS,Tag\n", "row 3: 'Tag' is not a tag"), ("", "no rows after the header"), ("\n\n", "no rows after the header")])
def test_a_fault_of_a_csv_has_its_row(read, tmp_path, rows, message):
    with pytest.raises(BertNerError, match=message) as e: read(HEAD + rows)
    assert str(tmp_path/"a.csv") in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("text", ["Sentence #,Word,POS,Tag\n1,Hi,,O\n,Rome,,B-geo\n\n\n", "SENTENCE #, word ,Pos, TAG\n1,Hi,,O\n,Rome,, B-geo \n", "\ufeffSentence #,Word,Tag\r\n1,Hi,O\r\n,Rome,B-geo\r\n",
    "Sentence #;Word;POS;Tag\n1;Hi;;O\n;Rome;;B-geo\n", "Sentence #\tWord\tTag\n1\tHi\tO\n\tRome\tB-geo\n", "Sentence#,Word,Tag,,\n1,Hi,O,,\n,Rome,B-geo,,\n,,,,\n", "\n\nSentence #,Word,POS,Tag\n1,Hi,,O\n1,Rome,,B-geo",
    "Tag,Word,Sentence #\nO,Hi,1\nB-geo,Rome,\n", '\ufeff"Sentence #","Word","Tag"\n"1","Hi","O"\n"","Rome","B-geo"\n', "Sentence #,Word,POS,Tag\r1,Hi,,O\r,Rome,,B-geo\r",
    "Sentence #,Word,POS,Tag\r\r\n1,Hi,,O\r\r\n,Rome,,B-geo\r\r\n", "Sentence #,Word,POS,Tag\n1,Hi,,O,\n,Rome,,B-geo\n"])
def test_what_people_mean_by_a_csv(read, text): assert read(text) == [(["Hi", "Rome"], ["O", "B-geo"])]


@pytest.mark.parametrize("name", ["a.tsv", "a.txt", "a.csv"])
def test_a_tsv_has_no_quoting(read, name):
    assert read('Sentence #\tWord\tTag\n1\t"\tO\n\tRome\tB-geo\n2\t"Hi\tO\n\t""""\tO\n', name) == [(['"', "Rome"], ["O", "B-geo"]), (['"Hi', '""""'], ["O", "O"])]


@pytest.mark.parametrize("header, missing", [("Word,Tag", "'Sentence #'"), ("Sentence #,Tag", "'Word'"), ("a,b", "'Sentence #', 'Word', 'Tag'")])
def test_a_header_that_lacks_a_column(read, header, missing):
    with pytest.raises(BertNerError, match=f"row 1: missing column {missing}"): read(header + "\n1,2\n")


def test_a_column_that_is_there_twice(read):
    with pytest.raises(BertNerError, match="row 1: the column 'Word' is there twice"):
        read("Sentence #,Word,word,Tag\n1,a,b,O\n")


# CoNLL

@pytest.mark.parametrize("text", ["Hi O\nRome B-geo\n", "Hi\tO\nRome\tB-geo\n", "Hi\tO\t\nRome\tB-geo\t\t\n", "Hi O \nRome  B-geo\n", "Hi O\r\nRome B-geo\r\n\r\n", "\ufeffHi O\nRome B-geo\n \n\t\n\u00a0\n",
    "-DOCSTART- -X- O O\n\nHi UH O O\nRome NNP B-NP B-geo\n", "-DOCSTART-\n\nHi\t_\t_\tO\nRome\t_\t_\tB-geo\n", "# newdoc id = O\n# text = Hi O\nHi O\nRome B-geo\n", "# id O x O\nHi\tO\nRome\tB-geo\n",
    "# newdoc\n#\n# a = O\n\nHi O\nRome B-geo\n", "Hi\t\tO\nRome\tB-geo\n", "Hi\t\t\tO\nRome\tNNP\t\tB-geo\n", "# text = O\nHi NN x O\nRome NN y B-geo\n", "Hi \tO\nRome\t B-geo\n", "Hi O\rRome B-geo\r",
    "1 Hi _ O\n2 Rome _ B-geo\n", "0\tHi\tO\n1\tRome\tB-geo\n", "# sent_id = 1\n1\tHi" + "\t_" * 7 + "\tO\n2\tRome" + "\t_" * 7 + "\tB-geo\n",
    "# text = HiRome O\n1-2\tHiRome" + "\t_" * 8 + "\n1\tHi" + "\t_" * 7 + "\tNER=O|SpaceAfter=No\n2\tRome" + "\t_" * 7 + "\tSpaceAfter=No|ner=B-geo\n2.1\tx" + "\t_" * 8 + "\n",
    "1-2\tHiRome" + "\t_" * 7 + "\tO\n1\tHi" + "\t_" * 7 + "\tO\n2\tRome" + "\t_" * 7 + "\tB-geo\n", "Hi O\n\ufeffRome B-geo\n"])
def test_what_people_mean_by_conll(read, text): assert read(text, "a.conll") == [(["Hi", "Rome"], ["O", "B-geo"])]


@pytest.mark.parametrize("line, neighbors", [("# O", "Rome B-geo"), ("#\tO", "Rome\tB-geo"), ("# NN O", "Rome NN B-geo"), ("#MeToo O", "Rome B-geo"), ("# _ _ O", "Rome _ _ B-geo")])
def test_a_hash_with_the_columns_of_its_neighbors_is_a_word(read, line, neighbors):
    assert read(f"{line}\n{neighbors}\n\n{neighbors}\n", "a.conll") == [
        ([line.split()[0], "Rome"], ["O", "B-geo"]),
        (["Rome"], ["B-geo"]),
    ]
    assert read(f"{neighbors}\n\n{line}\n", "a.conll") == [(["Rome"], ["B-geo"]), ([line.split()[0]], ["O"])]


def test_words_that_are_white_space_or_numbers(read):
    assert read("\u00a0\tO\nRome\tB-geo\n\u3000\tO\n", "a.conll") == [
        (["\u00a0", "Rome", "\u3000"], ["O", "B-geo", "O"])
    ]
    assert read("\u00a0 O\n", "a.conll") == [(["\u00a0"], ["O"])]
    assert read("1 CD O\n1 CD O\n", "a.conll") == [(["1", "1"], ["O", "O"])]
    assert read("1\tHi" + "\t_" * 7 + "\tO\n", "a.conllu") == [(["Hi"], ["O"])]
    assert read("1 O\n2 O\n", "a.conll") == [(["1", "2"], ["O", "O"])]
    assert read('" O\n"" O\n', "a.conll") == [(['"', '""'], ["O", "O"])]


@pytest.mark.parametrize("text, message", [("Hi O\nRome\n", "row 2: 'Rome' stands alone"), ("Hi O\nNew York B-geo\n", "row 2: 3 columns where most rows have 2"), ("Hi\tO\nVitamin B-12\n", "row 2: 'Vitamin B-12' stands alone"),
    ("Hi NN x O\nRome\tNN\tO\t\n", "row 2: 3 columns where most rows have 4"), ("Hi O\n# text = a O\n", "row 2: 5 columns"), ("Hi O\nRome B-\n", "row 2: 'B-' is not a tag"), ("Hi\tO\n\tO\n", "row 2: empty word"),
    ("Hi O\nRo\0me O\n", "row 2: .* control character"), ("1\tHi" + "\t_" * 8 + "\n2\tRome" + "\t_" * 8 + "\n", "row 1: '_' is not a tag: a CoNLL-U file has its tags in the last column, there as NER="),
    ("1-2\tHiRome" + "\t_" * 7 + "\tB-geo\n1\tHi" + "\t_" * 7 + "\tO\n2\tRome" + "\t_" * 7 + "\tO\n", "row 1: tag 'B-geo' on 'HiRome', which is not a word of its own"),
    ("1\tHi\t_\tO\n2\tHo\t_\tO\n1\tHi\t_\tO\n", "row 3: word number 1 follows 2: a sentence is numbered from 1, with a blank line before it"), ("1\tHi" + "\t_" * 7 + "\tO\n3\tHo" + "\t_" * 7 + "\tO\n", "row 2: word number 3 follows 1"),
    ("1\tHi\t_\tO\n2\tHo\t_\tO\n\n3\tHi\t_\tO\n", "row 4: word number 3 opens a sentence"), ("\0\0", "row 1: .*x00.* stands alone"), ("# a\n# b\n", "no rows"), ("", "no rows"), ("\ufeff", "no rows"), ("-DOCSTART- -X- O O\n", "no rows"), ("Hi B-x\nHo B-X\n", "row 2: the label 'X' is written 'x' in row 1"), ("Hi I-x\n", "row 1: .*scheme=iob1")])
def test_a_fault_of_conll_has_its_row(read, tmp_path, text, message):
    with pytest.raises(BertNerError, match=message) as e: read(text, "a.conll")
    assert str(tmp_path/"a.conll") in str(e.value) and "\n" not in str(e.value)


# letters

@pytest.mark.parametrize("said", ["utf-8", "UTF-8", "utf8", "UTF8", "utf_8", "U8", "UTF-8-SIG", "utf_8_sig"])
@pytest.mark.parametrize("name, text", [("a.csv", HEAD + "1,Zürich,,B-geo\n"), ("a.conll", "Zürich B-geo\n")])
def test_no_byte_order_mark_in_the_first_word(read, said, name, text):
    for file in ("utf-8", "utf-8-sig"): assert read(text, name, file, encoding=said) == [(["Zürich"], ["B-geo"])]


UTF = [(e, mark) for e in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be") for mark in ("", "\ufeff")]


@pytest.mark.parametrize("file, mark", UTF)
@pytest.mark.parametrize("name, text", [("a.csv", HEAD + "1,Zürich,,B-geo\n2,東京,,B-geo\n"), ("a.conll", "Zürich B-geo\n東京 B-geo\n")])
def test_utf_16_and_32_are_recognised_and_read_when_named(read, file, mark, name, text):
    for said in ("utf-8", "UTF8", "cp1252", "latin-1", "utf-8-sig"):
        with pytest.raises(
            BertNerError,
            match=rf"{file[:6].upper()}\S*, not {'' if said == 'UTF8' else said.replace('latin-1', 'iso8859-1')}.*-S data.encoding={file[:6]}",
        ):
            read(mark + text, name, file, encoding=said)
    for said in (file, file[:6], file[:6].upper().replace("-", "_")):
        assert words(read(mark + text, name, file, encoding=said)) == ["Zürich", "東京"], said


def test_another_encoding_than_the_one_named(read):
    with pytest.raises(BertNerError, match="looks like UTF-16-LE, not utf-16-be"):
        read("Hi O\n", "a.conll", "utf-16-le", encoding="utf-16-be")
    with pytest.raises(BertNerError, match="is not utf-16: leave data.encoding out"):
        read("Hi O\nHo O\n", "a.conll", encoding="utf-16")
    with pytest.raises(BertNerError, match="is UTF-8, not cp1252"): read("\ufeffHi O\n", "a.conll", encoding="cp1252")
    with pytest.raises(BertNerError, match="row 3: not utf-8 .byte 0xfc."):
        read("Hi O\r\nHo O\r\nZürich O\r\n", "a.conll", "cp1252")
    with pytest.raises(BertNerError, match="row 2: .* is the encoding right"):
        read("Hi O\nMüller\x92s O\n", "a.conll", "latin-1", encoding="latin-1")
    for none in ("utf-9", "hex", "rot13", "a\0b"):
        with pytest.raises(BertNerError, match="encoding|cannot be read as"): read("Hi O\n", "a.conll", encoding=none)
    assert read("Zürich O\n", "a.conll", "cp1252", encoding=1252) == [(["Zürich"], ["O"])]


# archives

def make_zip(path, **files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, text in files.items(): z.writestr(name, text)
    return path


def test_a_zip_with_several_corpora_is_asked_about_or_read_by_name(tmp_path):
    z = make_zip(
        tmp_path / "c.zip",
        **{
            "c/train.conll": "train B-x\n",
            "c/dev.conll": "dev B-x\n",
            "c/test.txt": "test B-x\n",
            "c/README.txt": "no",
            "__MACOSX/c/._dev.conll": "\0",
            "c/.hidden.csv": "",
            "c/image.png": "",
        },
    )
    with pytest.raises(
        BertNerError,
        match=r"3 files that may be the corpus \(c/train.conll, c/dev.conll, c/test.txt\): say which one is to be read, -S data.member=NAME",
    ):
        read_corpus(z, tags=None)
    for member in ("dev.conll", "c/dev.conll", "DEV.conll"):
        assert load_corpus("c", str(z), member=member)[0] == [(["dev"], ["B-x"])]
    with pytest.raises(BertNerError, match="holds no file 'no.csv', only c/train.conll"):
        read_corpus(z, tags=None, member="no.csv")
    with pytest.raises(BertNerError, match=rf"-S data.path={z} -S data.member=c/dev.conll"):
        read_corpus(z/"c"/"dev.conll", tags=None)
    with pytest.raises(BertNerError, match="data.member is 'x', and .* is no zip"):
        (tmp_path/"a.conll").write_text("a O"); read_corpus(tmp_path/"a.conll", member="x")


def test_a_zip_with_one_corpus_needs_no_name(tmp_path):
    z = make_zip(
        tmp_path / "c.zip",
        **{"LICENSE.txt": "no", "readme.txt": "", "__MACOSX/._a.csv": "\0", "a.csv": HEAD + "1,a,,B-x\n"},
    )
    assert read_corpus(z, tags=None) == [(["a"], ["B-x"])]


def encrypted(path):
    make_zip(path, **{"a.conll": "a O\n"})
    data = bytearray(path.read_bytes())
    for sign, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)): data[data.index(sign) + at] |= 1
    path.write_bytes(bytes(data))


def other_method(path):
    make_zip(path, **{"a.conll": "a O\n" * 99})
    data = bytearray(path.read_bytes())
    for sign, at in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        data[(i := data.index(sign)) + at:i + at + 2] = struct.pack("<H", 99)
    path.write_bytes(bytes(data))


def damaged(path):
    make_zip(path, **{"a.conll": "".join(f"a{i} O\n" for i in range(999))})
    data = bytearray(path.read_bytes()); data[60:90] = bytes(30); path.write_bytes(bytes(data))


def tar(path):
    with tarfile.open(path, "w:gz") as t: t.addfile(tarfile.TarInfo("a.conll"), io.BytesIO())


@pytest.mark.parametrize("make, message", [(encrypted, "is encrypted: unpack it"), (other_method, "compression that cannot be read"), (damaged, "is a broken archive"),
    (lambda p: p.write_bytes(make_zip(p, **{"a.csv": HEAD}).read_bytes()[:60]), "is a broken archive"), (lambda p: make_zip(p), "empty archive"), (lambda p: make_zip(p, **{"a.png": "x"}), "holds no CSV or CoNLL file, only a.png"),
    (lambda p: make_zip(p, **{"../a.csv": HEAD}), "leads out of the archive"), (lambda p: make_zip(p, **{"/etc/a.csv": HEAD}), "leads out of the archive"), (lambda p: make_zip(p, **{"x/../../a.csv": HEAD}), "leads out"),
    (lambda p: make_zip(p, **{"C:\\a.csv": HEAD}), "leads out"), (lambda p: make_zip(p, **{"[Content_Types].xml": "", "xl/a.txt": ""}), "office document: save it as CSV"), (tar, "is a tar archive"),
    (lambda p: p.write_bytes(gzip.compress(b"a O\n" * 99)[:20]), "is a broken archive"), (lambda p: p.write_bytes(b"\x1f\x8b" + b"x" * 50), "is a broken archive"), (lambda p: p.write_bytes(b"7z\xbc\xaf\x27\x1c"), "is a 7z archive"),
    (lambda p: p.write_bytes(b"PAR1" + bytes(99)), "is a Parquet file"), (lambda p: p.mkdir(), "is a folder"), (lambda p: None, "no corpus at")])
def test_an_archive_that_cannot_be_read_is_one_sentence(tmp_path, make, message):
    make(tmp_path/"a.zip")
    with pytest.raises(BertNerError, match=message) as e: read_corpus(tmp_path/"a.zip", tags=None)
    assert "a.zip" in str(e.value) and "\n" not in str(e.value)


def test_two_members_of_one_name(tmp_path, recwarn):
    with zipfile.ZipFile(tmp_path/"a.zip", "w") as z: z.writestr("a.csv", HEAD); z.writestr("b/a.csv", HEAD)
    with pytest.raises(BertNerError, match="2 files"): read_corpus(tmp_path/"a.zip", member="A.csv")


@pytest.mark.parametrize("end, pack", [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_a_packed_corpus_is_read(tmp_path, end, pack):
    (tmp_path/f"a.csv.{end}").write_bytes(pack((HEAD + '1,",,O\n,Rome,,B-geo\n').encode()))
    (tmp_path/f"a.conll.{end}").write_bytes(pack(b"# x\n\" O\nRome B-geo\n"))
    for name in ("a.csv", "a.conll"): assert read_corpus(tmp_path/f"{name}.{end}") == [(['"', "Rome"], ["O", "B-geo"])]


def test_names_of_corpora():
    assert likely_corpus_files(
        [
            "eng.train",
            "eng.testa",
            "a.BIO",
            "b.conllu",
            "train.txt",
            "LICENSE.txt",
            "Readme.csv",
            "notice.txt",
            "._a.csv",
            "__MACOSX\\a.csv",
            "a.json",
            "x/",
        ]
    ) == ["eng.train", "eng.testa", "a.BIO", "b.conllu", "train.txt"]


@pytest.mark.parametrize("files", [["ner.csv", "ner_dataset.csv"], ["ner_dataset.csv", "ner.csv"], ["a/ner.csv", "a/ner_dataset.csv"], ["ner.csv", "__MACOSX/ner_dataset.csv", "ner_dataset.csv"]])
def test_the_published_archive_of_gmb_is_searched_by_name(tmp_path, monkeypatch, files):
    from bert_ner import data
    known = HEAD + "Sentence: 1,Rome,NNP,B-geo\n"
    monkeypatch.setattr(data, "ROOT", tmp_path/"root")
    monkeypatch.setattr(data, "verify_gmb", lambda file, source: file)
    make_zip(
        tmp_path / "archive.zip",
        **{f: known if f.endswith("ner_dataset.csv") and "MAC" not in f else ",lemma,word,tag\n" for f in files},
    )
    assert ensure_gmb(str(tmp_path/"archive.zip")).read_text() == known


@pytest.mark.gmb
def test_gmb_itself_from_the_published_archive(tmp_path, monkeypatch):
    import os
    from bert_ner import data
    with zipfile.ZipFile(os.environ["BERT_NER_GMB"]) as z: text = z.read("ner_dataset.csv")
    monkeypatch.setattr(data, "ROOT", tmp_path/"root")
    ensure_gmb(str(make_zip(tmp_path/"archive.zip", **{"ner.csv": ",lemma\n", "ner_dataset.csv": text})))


# more sentences for training

@pytest.fixture(scope="module")
def sample():
    sentences = list(generate_corpus(n=400))
    return sentences, to_dataset(sentences)


def pairs(part): return list(zip(*words_and_tags(part)))


def test_corrections_come_into_training_only(sample, tmp_path):
    sentences, ds = sample
    train, held = (
        [s for s in sentences if assign_split(s[0]) == "train"],
        [s for s in sentences if assign_split(s[0]) != "train"],
    )
    new = [([f"Corrected{i}", "said", '"'], ["B-per", "O", "O"]) for i in range(40)]
    wrong = (train[3][0], ["B-art"] * len(train[3][0]))
    (tmp_path/"corrections.csv").write_text(corpus_csv([*new, wrong, *held[:5], new[0]]), encoding="utf-8-sig")
    more, counts, digest = add_extra_files(ds, str(tmp_path/"corrections.csv"), "abc")
    assert counts == dict(more=dict(sentences=41, replaced=1, left_out=5, repeated=1)) and digest != "abc"
    for part in ("validation", "test"): assert pairs(more[part]) == pairs(ds[part])
    assert len(more["train"]) == len(ds["train"]) + 40 and pairs(more["train"])[-40:] == new
    at = pairs(ds["train"]).index(tuple(train[3]))
    assert pairs(more["train"])[at] == wrong and [p for i, p in enumerate(pairs(more["train"])[:-40]) if i != at] == [
        p for i, p in enumerate(pairs(ds["train"])) if i != at
    ]
    assert len({i for p in more for i in more[p]["id"]}) == sum(map(len, more.values()))
    assert more["train"].features == ds["train"].features and more["train"]._fingerprint != ds["train"]._fingerprint


def test_a_held_out_sentence_is_left_out_however_it_is_cut(sample, tmp_path):
    _, ds = sample
    held, _ = pairs(ds["test"])[0]
    (tmp_path/"c.conll").write_text("".join(f"{c} O\n" for c in "".join(held)), encoding="utf-8")
    more, counts, _ = add_extra_files(ds, tmp_path/"c.conll", "abc")
    assert counts["more"] == dict(sentences=0, replaced=0, left_out=1, repeated=0) and pairs(more["train"]) == pairs(
        ds["train"]
    )


def test_every_copy_is_corrected_and_the_last_correction_counts(tmp_path):
    copies = (
        [(["Same", "words"], ["O", "O"])] * 3
        if assign_split(["Same", "words"]) == "train"
        else [(["Same", "words", "x"], ["O"] * 3)] * 3
    )
    corpus = [*generate_corpus(n=400), *copies]
    first, last = ((copies[0][0], [t, *["O"] * (len(copies[0][0]) - 1)]) for t in ("B-geo", "B-org"))
    (tmp_path/"c.csv").write_text(corpus_csv([first, last]), encoding="utf-8")
    more, counts, _ = add_extra_files(to_dataset(corpus), tmp_path/"c.csv", "")
    assert (
        assign_split(copies[0][0]) == "train"
        and [t for w, t in pairs(more["train"]) if w == copies[0][0]] == [last[1]] * 3
    )
    assert counts["more"] == dict(sentences=1, replaced=1, left_out=0, repeated=1)


def test_a_folder_of_corrections_and_its_hash(sample, tmp_path):
    _, ds = sample
    d = tmp_path/"d"; d.mkdir()
    with pytest.raises(BertNerError, match="a folder without a CSV or CoNLL file"): add_extra_files(ds, d, "abc")
    for i in (1, 2):
        (d/f"corrections ({i}).csv").write_text(corpus_csv([([f"Number{i}"], ["B-per"])]), encoding="utf-8")
    more, counts, digest = add_extra_files(ds, d, "abc")
    assert (
        counts["more"]["sentences"] == 2
        and add_extra_files(ds, [d / "corrections (1).csv", d / "corrections (2).csv"], "abc")[2] == digest
    )
    (d/"corrections (2).csv").write_text(corpus_csv([(["Number3"], ["B-per"])]), encoding="utf-8")
    assert add_extra_files(ds, d, "abc")[2] != digest
    for nothing in ("", None, []): assert add_extra_files(ds, nothing, "abc") == (ds, {}, "abc")


@pytest.mark.parametrize("text, message", [(HEAD + "1,a,,O\n,x,,B-drug\n,y,,B-dose\n", r"row 3: unknown tags B-dose, B-drug: the corpus has O B-art"), (HEAD + "1,x,,B-PER\n", "row 2: unknown tag B-PER"), (HEAD + "1,x,,I-per\n", "row 2: tag 'I-per' follows 'O'"),
    (HEAD, "no rows after the header"), (HEAD.encode("utf-16"), r"c.csv is UTF-16, not utf-8: save it as UTF-8$"), (HEAD.encode() + b"1,M\xfcller,,B-per\n", "row 2: not utf-8 .byte 0xfc.: save the file as UTF-8$"), (None, "no corpus at"),
    (HEAD + '1,"New\nYork",,B-geo\n', "row 2: 2 columns")])
def test_a_fault_of_the_corrections_names_file_and_row(sample, tmp_path, text, message):
    if text is not None: (tmp_path/"c.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BertNerError, match=message) as e: add_extra_files(sample[1], tmp_path/"c.csv", "abc")
    assert str(tmp_path/"c.csv") in str(e.value) and "\n" not in str(e.value)


# the configuration

def composed(*overrides):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    with initialize_config_dir(str(ROOT/"conf"), version_base=None):
        return OmegaConf.to_container(compose("config", list(overrides)), resolve=True)


@pytest.mark.parametrize("corpus", ["sample", "gmb", "own"])
def test_dvc_watches_the_corrections(corpus):
    """The data stage depends on the file that `data.more` names; without one on a file that is there and no other
    dependency."""
    deps = yaml.safe_load((ROOT/"dvc.yaml").read_text())["stages"]["data"]["deps"]
    for path in ("corrections.csv", "../c.csv", "./c.csv", "/tmp/c.csv", "d"):
        assert composed(f"data={corpus}", f"data.more={path}")["watch_more"] == path
    values = composed(f"data={corpus}")
    assert values["data"]["more"] == "" and (ROOT/values["watch_more"]).is_file() and (ROOT/values["watch"]).exists()
    assert {"${watch}", "${watch_more}"} < set(deps) and len({values["watch"], values["watch_more"], *deps}) == len(
        deps
    ) + 2


def test_an_own_corpus_without_a_path_says_what_is_missing():
    own = composed("data=own")["data"]
    with pytest.raises(
        BertNerError,
        match="no file is given for the corpus 'own' .data.path is empty.: say which one, -S data=own -S data.name=own -S data.path=FILE",
    ):
        load_corpus(own["name"], own["path"])


def test_the_data_stage_takes_corrections_and_a_member_from_its_parameters(tmp_path, monkeypatch):
    "The notebook as DVC runs it, on a corpus in a zip with others, and corrections as the page saves them."
    from datasets import load_from_disk
    from bert_ner.stages import run_notebook
    for name in ("nbs", "conf", "params.yaml"): (tmp_path/name).symlink_to(ROOT/name)
    corpus = generate_corpus(n=300)
    make_zip(tmp_path/"c.zip", **{"train.csv": corpus_csv(corpus), "dev.csv": corpus_csv(corpus[:10])})
    held = next(s for s in corpus if assign_split(s[0]) == "test")
    (tmp_path/"corrections.csv").write_text(corpus_csv([(["Acme", "grew"], ["B-org", "O"]), held]), encoding="utf-8")
    monkeypatch.setenv("BERT_NER_ROOT", str(tmp_path))
    run_notebook(
        ROOT / "nbs/01_data.ipynb",
        tmp_path / "reports/01_data.ipynb",
        dict(
            name="mine",
            path="c.zip",
            member="train.csv",
            more="corrections.csv",
            sentences=0,
            encoding="utf-8",
            scheme="iob2",
            seed=42,
        ),
    )
    ds, made = (
        load_from_disk(str(tmp_path / "data/mine/arrow")),
        json.loads((tmp_path / "metrics/mine/data.json").read_text()),
    )
    assert made["more"] == dict(sentences=1, replaced=0, left_out=1, repeated=0) and sum(
        made["sentences"].values()
    ) == 301 == sum(map(len, ds.values()))
    assert pairs(ds["train"])[-1] == (["Acme", "grew"], ["B-org", "O"]) and build_tag_list(corpus) == GMB_TAGS
