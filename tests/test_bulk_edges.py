"Bulk annotation and the files of other people: what stands in the way, odd names, odd tables, odd encodings."
import csv
import errno
import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings, strategies as st

from bert_ner.annotate import manifest, readers, run, shards
from bert_ner.annotate.manifest import REJECTED
from bert_ner.annotate.run import annotate, entity_stats
from bert_ner.annotate.readers import find_files
from bert_ner.core import BertNerError

def setattr_everywhere(monkeypatch, name, value):
    "Replace the function `name` in every module that holds it."
    for module in (readers, shards, manifest, run):
        if hasattr(module, name): monkeypatch.setattr(module, name, value)


LINE = '{"text": "Mr. Bush met Paris."}\n'


@pytest.fixture
def work(tmp_path, monkeypatch):
    "The working folder, with one text."
    monkeypatch.chdir(tmp_path)
    (tmp_path/"in.txt").write_text("Paris\n")
    return tmp_path


@pytest.fixture
def tag(mini_tagger_folder):
    "annotate with the miniature tagger."
    def run(source, target, **kw):
        return annotate(source, target, **dict(model=mini_tagger_folder, progress=False) | kw)
    return run


def tree(folder):
    return {
        p.relative_to(folder).as_posix(): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in sorted(Path(folder).rglob("*"))
        if p.is_symlink() or p.is_file()
    }
def rejected(target): return [tuple(r[1:]) for r in csv.reader(io.StringIO((Path(target)/REJECTED).read_text()))][1:]
def lines(file):
    return [
        json.loads(l, parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
        for l in Path(file).read_text().splitlines()
    ]


def shell(*args):
    "Status, output, errors of `bert-ner`."
    from bert_ner.cli import main
    out, error = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as m, redirect_stdout(out), redirect_stderr(error):
        m.setattr(sys, "argv", ["bert-ner", *map(str, args)])
        try: main(); status = 0
        except SystemExit as e: status = e.code or 0
    return status, out.getvalue(), error.getvalue()


def one_sentence(said): assert said.startswith("bert-ner: ") and said.count("\n") == 1, said


# What stands at the target

def stand(work, what):
    "Something at the target; the target."
    if what == "a file": (work/"x.jsonl").write_text("keep")
    if what == "an empty file": (work/"x.parquet").touch(); return "x.parquet"
    if what == "a folder": (work/"x.jsonl").mkdir(); (work/"x.jsonl/keep").write_text("keep")
    if what == "an empty folder": (work/"x.jsonl").mkdir()
    if what == "a broken link": (work/"x.jsonl").symlink_to("nowhere")
    if what == "a link to a file": (work/"keep").write_text("keep"); (work/"x.jsonl").symlink_to("keep")
    if what == "another's run folder":
        (work/"x.jsonl.run").mkdir(); (work/"x.jsonl.run/part-notes.txt").write_text("keep")
    if what == "a file for the run's folder": (work/"x.jsonl.run").write_text("keep")
    if what == "another's manifest":
        (work/"x.jsonl.run").mkdir()
        (work/"x.jsonl.run/_manifest.json").write_text('{"name": "a web app", "done": true}')
    if what == "a broken manifest":
        (work/"x.jsonl.run").mkdir(); (work/"x.jsonl.run/_manifest.json").write_text('{"run": ')
    if what == "a file for the folder": (work/"out").write_text("keep"); return "out"
    if what == "a full folder":
        (work/"out").mkdir(); (work/"out/part-00000-000000.parquet").write_text("keep"); return "out"
    if what == "a link for the folder": (work/"out").symlink_to("nowhere"); return "out"
    if what == "the working directory": return "."
    if what == "the folder above": (work/"sub").mkdir(); os.chdir(work/"sub"); return ".."
    if what == "a folder with a slash":
        (work/"x.jsonl").mkdir(); (work/"x.jsonl/keep").write_text("keep"); return "x.jsonl/"
    return "x.jsonl"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("what", ["a file", "an empty file", "a folder", "an empty folder", "a broken link", "a link to a file", "another's run folder", "a file for the run's folder",
    "another's manifest", "a broken manifest", "a file for the folder", "a full folder", "a link for the folder", "the working directory", "the folder above", "a folder with a slash"])
def test_what_stands_at_the_target_is_left_as_it_is(work, tag, what, overwrite):
    target, source = stand(work, what), work/"in.txt"
    before = tree(work)
    with pytest.raises(BertNerError): tag(source, target, overwrite=overwrite)
    assert tree(work) == before
    assert what != "an empty folder" or (work/"x.jsonl").is_dir()


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_an_unquoted_glob_replaces_nothing(work, names):
    for n in names: (work/f"{n}.jsonl").write_text(LINE)
    before = tree(work)
    status, out, error = shell("annotate", *(work/f"{n}.jsonl" for n in names))
    assert (status, out, tree(work)) == (1, "", before) and f"{names[-1]}.jsonl exists" in error
    one_sentence(error)
    status, out, error = shell("annotate", *(work/f"{n}.jsonl" for n in names), work/"all.jsonl")
    assert (status, error, len(lines(work/"all.jsonl"))) == (0, "", len(names))


def test_a_finished_file_that_was_changed_is_not_the_runs(work, tag):
    tag("in.txt", "x.jsonl")
    same = (work/"x.jsonl").read_bytes()
    assert tag("in.txt", "x.jsonl")["rows"] == 1 and tag("in.txt", "x.jsonl", overwrite=True)["rows"] == 1
    for other in (b"keep", same.replace(b"Paris", b"Seine")):
        (work/"x.jsonl").write_bytes(other)
        before = tree(work)
        for kw in ({}, dict(overwrite=True)):
            with pytest.raises(BertNerError, match="x.jsonl was changed"): tag("in.txt", "x.jsonl", **kw)
        assert tree(work) == before
    (work/"x.jsonl").unlink()
    tag("in.txt", "x.jsonl")
    assert (work/"x.jsonl").read_bytes() == same


def test_a_kill_between_the_file_and_its_record_is_no_obstacle(work, tag, monkeypatch):
    (work/"in.txt").write_text("Paris\n" * 10)
    write, calls = manifest.write_manifest, []
    def dies(*args): calls.append(1); return write(*args) if len(calls) == 1 else sys.exit("killed")
    setattr_everywhere(monkeypatch, "write_manifest", dies)
    for target in ("x.jsonl", "x.parquet", "y.jsonl.gz", "memory://kill/x.jsonl"):
        calls.clear()
        with pytest.raises(SystemExit): tag("in.txt", target, rows_per_shard=3)
        setattr_everywhere(monkeypatch, "write_manifest", write)
        assert tag("in.txt", target, rows_per_shard=3)["rows"] == 10 and entity_stats(target)["entities"] == 10
        setattr_everywhere(monkeypatch, "write_manifest", dies)


def test_a_file_that_came_while_the_run_was_killed_is_refused_before_tagging(work, tag, monkeypatch):
    (work/"in.txt").write_text("Paris\n" * 10)
    setattr_everywhere(monkeypatch, "verify_shards", lambda *a: sys.exit("killed"))
    with pytest.raises(SystemExit): tag("in.txt", "x.jsonl", rows_per_shard=3)
    monkeypatch.undo(); os.chdir(work)
    (work/"x.jsonl").write_text("keep")
    next((work/"x.jsonl.run").glob("part-*")).unlink()
    before = tree(work)
    for kw in ({}, dict(overwrite=True)):
        with pytest.raises(BertNerError, match="x.jsonl was changed or written by something else"):
            tag("in.txt", "x.jsonl", rows_per_shard=3, **kw)
    assert tree(work) == before


def test_a_file_that_comes_while_a_run_tags_stays(work, tag, monkeypatch):
    finish = manifest.verify_shards
    def meanwhile(*args): (work/"x.jsonl").write_text("keep"); return finish(*args)
    setattr_everywhere(monkeypatch, "verify_shards", meanwhile)
    with pytest.raises(BertNerError, match="in the meantime"): tag("in.txt", "x.jsonl")
    assert (work/"x.jsonl").read_text() == "keep"
    (work/"x.jsonl").unlink(); monkeypatch.undo(); os.chdir(work)
    assert tag("in.txt", "x.jsonl")["rows"] == 1


def test_overwrite_removes_what_the_run_wrote_and_nothing_that_looks_like_it(work, tag):
    tag("in.txt", "out", format="jsonl")
    others = [
        "part-notes.txt",
        "part-00000-000000.jsonl.bak",
        "part-00000-000007.jsonl",
        "part-.jsonl",
        "_rejected.csv.old",
        "_manifest.json~",
        "_shards/mine.json",
        "_shards/00000.json",
        "sub/part-00000-000000.jsonl",
        ".part-x",
    ]
    (work/"out/sub").mkdir()
    for n in others: (work/"out"/n).write_text("keep")
    (work/"in.txt").write_text("Paris\nYork\n")
    assert tag("in.txt", "out", format="jsonl", overwrite=True)["rows"] == 2
    assert {n: (work / "out" / n).read_text() for n in others} == dict.fromkeys(others, "keep") and entity_stats(
        "out"
    )["rows"] == 2
    (work/"out/part-00000-000000.jsonl").write_text("mine")
    before = tree(work)
    with pytest.raises(BertNerError, match="was changed since"): tag("in.txt", "out", format="jsonl", overwrite=True)
    assert tree(work) == before


def test_what_looks_like_a_part_is_not_joined(work, tag, monkeypatch):
    (work/"in.txt").write_text("Paris\n" * 4)
    setattr_everywhere(monkeypatch, "merge_shards", lambda *a: sys.exit("killed"))
    with pytest.raises(SystemExit): tag("in.txt", "x.jsonl", rows_per_shard=2)
    monkeypatch.undo(); os.chdir(work)
    (work/"x.jsonl.run/part-notes.jsonl").write_text("keep\n")
    assert (
        tag("in.txt", "x.jsonl", rows_per_shard=2)["rows"] == 4
        and len(lines("x.jsonl")) == 4
        and (work / "x.jsonl.run/part-notes.jsonl").read_text() == "keep\n"
    )


def test_a_part_of_somebody_elses_is_not_replaced(work, tag):
    tag("in.txt", "out", format="jsonl")
    part = work/"out/part-00000-000000.jsonl"
    part.write_text("keep")
    for kw in ({}, dict(overwrite=True)):
        with pytest.raises(BertNerError, match="was changed since"): tag("in.txt", "out", format="jsonl", **kw)
    # as if it were not written yet
    next((work/"out/_shards").iterdir()).unlink()
    with pytest.raises(BertNerError, match="exists and does not belong to this run"): tag("in.txt", "out", format="jsonl")
    assert part.read_text() == "keep"


@pytest.mark.parametrize("target", ["memory://there/x.jsonl", "memory://there/x.parquet", "memory://there/folder", "memory://there"])
def test_another_file_system_is_as_sacred(work, tag, target):
    fs = MemoryFileSystem(); fs.store.clear(); fs.pseudo_dirs[:] = [""]
    for n in ("x.jsonl", "x.parquet", "folder/keep"): fs.pipe_file(f"/there/{n}", b"keep")
    for overwrite in (False, True):
        with pytest.raises(BertNerError, match="is not a run of annotate"): tag("in.txt", target, overwrite=overwrite)
    assert {p: fs.cat_file(p) for p in fs.find("/")} == {
        f"/there/{n}": b"keep" for n in ("x.jsonl", "x.parquet", "folder/keep")
    }


def test_a_run_on_another_file_system_is_started_anew(work, tag):
    fs = MemoryFileSystem(); fs.store.clear(); fs.pseudo_dirs[:] = [""]
    for target in ("memory://o/x.parquet", "memory://o/y.jsonl.gz", "memory://o/folder"):
        tag("in.txt", target); tag("in.txt", target); tag("in.txt", target, rows_per_shard=7, overwrite=True)
        assert entity_stats(target)["rows"] == 1
    fs.pipe_file("/o/x.parquet", b"keep")
    with pytest.raises(BertNerError, match="was changed"):
        tag("in.txt", "memory://o/x.parquet", rows_per_shard=7, overwrite=True)
    assert fs.cat_file("/o/x.parquet") == b"keep"


# Names of the target

@pytest.mark.parametrize("target", ["", " ", "\t\n", "o.csv", "o.txt", "o.json", "o.tsv.gz", "o.parquet.gz", "a/o.xlsx", "o.CSV", "o.jsonl.bz2", "o.feather", "x\0.jsonl", "in.txt/out", "in.txt/a/b/x.jsonl",
    "zip://a.jsonl::/tmp/x.zip", "local::x", "nowhere://x/out", "http://127.0.0.1:9/out"])
def test_a_target_that_cannot_be_is_one_sentence(work, tag, target):
    before = sorted(work.rglob("*"))
    with pytest.raises(BertNerError) as e: tag("in.txt", target)
    assert "\n" not in str(e.value) and sorted(work.rglob("*")) == before


@pytest.mark.parametrize("target", ["o[1]", "o[1].parquet", "o*?.jsonl", "50% of it", "é ü/ñ.jsonl", " out ", "a\nb", "a\nb.jsonl", "x::y", "./x::y.jsonl", "{a,b}.parquet", "out.2024", "v1.5", "o.v2/", "o.PARQUET",
    "x.ndjson", "x.jsonl.gz", "x.jsonl.zst", "out/", "x.parquet/", "~x", "a#b?c.jsonl", "-o", "deep/er/x.parquet", "file:///{}/u.jsonl", "caf\udce9", "caf\udce9.jsonl", "sub/../out"])
def test_any_other_name_of_the_target_works(work, tag, target):
    target = target.replace("{}", str(work))
    for rows in (1, 1): assert tag("in.txt", target)["rows"] == rows
    assert entity_stats(target)["entities"] == 1
    assert tag("in.txt", target, overwrite=True)["rows"] == 1
    kind = manifest.single_file_format(target)
    written = [n for n in os.listdir(work) if n not in ("in.txt", "sub")]
    assert len(written) == (
        2 if kind and "/" not in target.removeprefix("./").removeprefix(f"file:///{work}/") else 1
    ), written


def test_a_target_may_end_as_a_folder_of_parts_with_a_slash(work, tag):
    tag("in.txt", "x.parquet/")
    assert (work / "x.parquet/part-00000-000000.parquet").is_file() and entity_stats("x.parquet")[
        "rows"
    ] == entity_stats("x.parquet/")["rows"] == 1
    with pytest.raises(BertNerError, match="is a folder"): tag("in.txt", "x.parquet")


# Input and output apart

@pytest.mark.parametrize("source, target", [("in", "in/out"), ("in", "in/../in/out"), ("in", "in"), ("link", "in/out"), ("in", "link/x.jsonl"), ("in/sub/..", "in/out.jsonl"), ("in/*.jsonl", "in/out.jsonl"),
    ("link/*.jsonl", "in/out.jsonl"), ("in/**", "in/sub/out"), ("in/*", "in/out.parquet"), ("in/./", "./in/out"), (["in/a.jsonl", "in"], "in/out"), (("in",), "in/out")])
def test_an_input_does_not_contain_its_own_output(work, tag, source, target):
    (work/"in/sub").mkdir(parents=True); (work/"in/a.jsonl").write_text(LINE); (work/"link").symlink_to("in")
    before = tree(work)
    with pytest.raises(BertNerError, match="would be read as input|exists and is not a run"): tag(source, target)
    assert tree(work) == before


def test_a_link_in_the_input_to_the_output_is_noticed(work, tag):
    (work/"in").mkdir(); (work/"in/a.jsonl").write_text(LINE)
    tag("in", "out.jsonl")
    (work/"in/b.jsonl").symlink_to(work/"out.jsonl")
    for kw in ({}, dict(overwrite=True)):
        with pytest.raises(BertNerError, match="choose another place"): tag("in", "out.jsonl", **kw)
    (work/"out.jsonl").unlink()
    with pytest.raises(BertNerError, match="broken link"): tag("in", "other")


def test_a_generator_of_sources_is_read_once(work, tag):
    (work/"in").mkdir(); (work/"in/a.jsonl").write_text(LINE)
    with pytest.raises(BertNerError, match="would be read as input"): tag((p for p in [work/"in"]), "in/out")
    assert tag((p for p in [work/"in", work/"in.txt"]), "out")["rows"] == 2


@pytest.mark.parametrize("source", ["", " ", [], [""], ["in.txt", ""], b"", None])
def test_an_empty_source_is_not_the_working_folder(work, tag, source):
    with pytest.raises(BertNerError, match="the source is empty"): tag(source, "out")


# Names in the input

def test_odd_names_in_a_folder_are_read(work, tag):
    (work/"in").mkdir()
    names = ["a::b.txt", "zip::c.txt", "50%20.txt", "[x].txt", "n\nl.txt", " .txt", "é.txt", "http:x.txt", "*.jsonl"]
    for n in names: (work/"in"/n).write_text(LINE if n.endswith("l") else "Paris\n")
    with open(os.fsencode(work/"in") + b"/caf\xe9.txt", "w") as f: f.write("Paris\nYork\n" + "x" * 60 + "\n")
    for target in ("out", "x.jsonl"):
        done = tag("in", target, max_chars=50)
        assert (done["rows"], done["rejected"]) == (len(names) + 2, 1) and entity_stats(target)["rows"] == len(
            names
        ) + 2
    assert "caf\\xe9.txt" in (work/"out"/REJECTED).read_text()
    assert (
        tag(os.fsencode(work / "in").decode("utf-8", "surrogateescape") + "/caf\udce9.txt", "one", max_chars=50)[
            "rows"
        ]
        == 2
    )


def test_what_a_folder_has_and_is_not_read_is_named(work, tag):
    (work/"in/sub/.git").mkdir(parents=True); (work/"in/_old").mkdir(); (work/"elsewhere").mkdir()
    for n in (
        "a.txt",
        "a.json",
        "b.bz2",
        "_x.txt",
        ".h.txt",
        "README",
        "sub/b.txt",
        "sub/c.docx",
        "_old/x.txt",
        "sub/.git/x.txt",
    ):
        (work/"in"/n).write_text("Paris\n")
    (work/"in/linked").symlink_to(work/"elsewhere")
    os.mkfifo(work/"in/pipe.txt")
    skipped = [
        "README",
        "a.json",
        "b.bz2",
        "linked/",
        "pipe.txt",
        "sub/c.docx",
        ".h.txt",
        "_old/",
        "_x.txt",
        "sub/.git/",
    ]
    files, found = find_files("in")
    assert [Path(f).name for f in files] == ["a.txt", "b.txt"] and sorted(found) == sorted(skipped)
    assert sorted(tag("in", "out")["skipped"]) == sorted(skipped)
    status, out, error = shell("annotate", work/"in", work/"out2")
    assert status == 0 and out.startswith("2 rows") and error == "bert-ner: passed over 10: README, a.json, b.bz2, …\n"
    (work/"only").mkdir(); (work/"only/x.json").touch()
    with pytest.raises(BertNerError, match=r"no texts at only \(passed over 1: x.json\)"): tag("only", "out4")


def test_a_link_to_nothing_is_one_sentence(work, tag):
    (work/"in").mkdir(); (work/"in/a.txt").write_text("Paris\n"); (work/"in/b.txt").symlink_to("gone.txt")
    for source in ("in", "in/*.txt"):
        with pytest.raises(BertNerError, match="b.txt is a broken link"): tag(source, "out")
    assert not (work/"out").exists()


def test_chained_addresses_are_read(work, tag):
    with zipfile.ZipFile(work/"z.zip", "w") as z:
        for n in ("in.txt", "d/a.jsonl", "d/b.jsonl"): z.writestr(n, LINE if n.endswith("l") else "Paris\n")
    for i, (source, rows) in enumerate(
        [
            ("zip://in.txt::z.zip", 1),
            (f"zip://in.txt::{work}/z.zip", 1),
            (f"zip://d::{work}/z.zip", 2),
            (f"zip://d/*.jsonl::file://{work}/z.zip", 2),
            (f"simplecache::file://{work}/in.txt", 1),
        ]
    ):
        assert tag(source, f"out{i}")["rows"] == rows and tag(source, f"out{i}")["rows"] == rows
    for source in (
        "zip://in.txt::nowhere.zip",
        "zip://in.txt::in.txt",
        "zip://no.txt::z.zip",
        "nowhere://in.txt",
        "zip://",
    ):
        with pytest.raises(BertNerError) as e: tag(source, "bad")
        assert "\n" not in str(e.value) and not (work/"bad").exists()


def test_partitions_are_columns(work, tag):
    for year, name, data in (
        ("2023", "a.csv", "text\nParis\n"),
        ("2024", "b.jsonl", LINE),
        ("__HIVE_DEFAULT_PARTITION__", "c.txt", "Paris\n"),
    ):
        folder = work/f"in/year={year}/city=S%C3%A3o Paulo"; folder.mkdir(parents=True); (folder/name).write_text(data)
    pq.write_table(pa.table(dict(text=["York"], year=[1999])), folder/"d.parquet")
    tag("in", "out.jsonl")
    assert [(r["year"], r["city"]) for r in lines("out.jsonl")] == [
        (y, "São Paulo") for y in ("2023", "2024", None, 1999)
    ]
    (folder/"d.parquet").unlink()
    for source in ("in", "in/year=*/*/*"):
        tag(source, "out.parquet", overwrite=True)
        assert pq.read_table("out.parquet")["year"].to_pylist() == ["2023", "2024", None]
    with pytest.raises(BertNerError, match="the column 'year' exists already"): tag("in", "new", output_column="year")
    os.rename(work/"in/year=2023", work/"in/year=2022")
    with pytest.raises(BertNerError, match="another input"): tag("in", "out.parquet")


# CSV as people count rows

def iter_csv(work, tag, data, name="a.csv", **kw):
    "Texts that came out, and (row, reason) of those that did not."
    (work/name).write_bytes(data if isinstance(data, bytes) else data.encode())
    done = tag(name, "csv.jsonl", overwrite=(work/"csv.jsonl").exists(), **kw)
    out = lines("csv.jsonl")
    bad = rejected("csv.jsonl.run")
    assert (len(out), len(bad)) == (done["rows"], done["rejected"])
    return [r["text"] for r in out], bad


@pytest.mark.parametrize("place", [0, 1, 1000, 1999])
@pytest.mark.parametrize("broken", ['{i},"never closed', '{i},"', '{i},"""', '{i},"a" b', '"{i},never closed', '{i},x,y', '{i}', '{i},"a ""b""'])
def test_a_broken_row_of_csv_costs_itself(work, tag, broken, place):
    rows = [f"{i},Paris {i}" for i in range(2001)]
    rows[place] = broken.format(i=place)
    out, bad = iter_csv(work, tag, "id,text\n" + "\n".join(rows) + "\n")
    assert [n for n, _ in bad] == [str(place + 1)] and out == [f"Paris {i}" for i in range(2001) if i != place]


def test_a_quote_that_some_later_row_closes_swallows_nothing(work, tag):
    rows = [f"{i},Paris {i}" for i in range(2001)]
    rows[2], rows[1900] = '2,"never closed', '1900,a screen of 5"'
    out, bad = iter_csv(work, tag, "id,text\n" + "\n".join(rows) + "\n")
    assert [n for n, _ in bad] == ["3"] and len(out) == 2000 and out[1899] == 'a screen of 5"'
    rows = [f"Paris {i},{i}" for i in range(2001)]
    rows[2], rows[1900] = '"never closed,2', 'a screen of 5",1900'
    assert len(iter_csv(work, tag, "text,id\n" + "\n".join(rows) + "\n")[0]) == 2000


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_breaks_in_quotes_are_text(work, tag, end):
    texts = [
        "a\nb",
        "\n",
        "\n\n\n",
        "Dear all,\n\nParis, in May,\nis fine.\n",
        'say "Paris"\n"York"',
        '"',
        '""',
        ",",
        "1,2\n3,4",
        "",
        "poem,\n" * 3,
    ]
    out = io.StringIO()
    csv.writer(out, lineterminator=end).writerows([["id", "text", "x"], *([i, t, "y"] for i, t in enumerate(texts))])
    assert iter_csv(work, tag, out.getvalue()) == (texts, [])


cells = st.text(st.sampled_from('a1 ,;"\n\r\té'), max_size=12)
@given(rows=st.lists(st.tuples(cells, cells), max_size=8))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_a_csv_writer_wrote_is_read_back(rows, tmp_path_factory):
    "Every text, in order, whatever it is made of."
    file = tmp_path_factory.mktemp("csv")/"a.csv"
    with file.open("w", newline="") as f: csv.writer(f).writerows([["id", "text"], *rows])
    with readers.open_reader(str(file), readers.AnnotateConfig()) as (found, *_):
        assert [(r["id"], t) for r, t, why in found if not why] == rows


good = st.text(st.sampled_from('a ,"é'), min_size=1, max_size=6).map(lambda t: "x" + t)
bad = st.sampled_from(['7,"never closed', '"7,never', '7,"a" b', "7", "7,8,9", '7,"a ""b"" c'])
@given(rows=st.lists(st.one_of(good, st.tuples(bad)), max_size=12))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_rows_out_and_refused_are_what_a_person_counts(rows, tmp_path_factory):
    """One row per line, good ones as a writer writes them, broken ones as they are: each good one comes out, each other
    is rejected with its number."""
    file, out = tmp_path_factory.mktemp("csv")/"a.csv", io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    write(["id", "text"])
    for i, r in enumerate(rows): out.write(r[0] + "\n") if isinstance(r, tuple) else write([i, r])
    file.write_text(out.getvalue())
    with readers.open_reader(str(file), readers.AnnotateConfig()) as (found, *_):
        seen = [None if why else t for _, t, why in found]
    assert seen == [None if isinstance(r, tuple) else r for r in rows]


def test_tsv_has_no_quotes_unless_asked(work, tag):
    texts = ['"Paris', 'say "Paris"', '"York"', '"', "a,b", "'"]
    data = "id\ttext\n" + "".join(f"{i}\t{t}\n" for i, t in enumerate(texts * 100))
    assert iter_csv(work, tag, data, "a.tsv") == (texts * 100, [])
    assert iter_csv(work, tag, 'id\ttext\n1\t"Paris\tin\nMay"\n2\t"never\n3\tYork\n', "a.tsv", quoted_tsv=True) == (
        ["Paris\tin\nMay", "York"],
        [("2", "not CSV: a quote is never closed")],
    )


@pytest.mark.parametrize("data, said", [(b'id,"text\n1,Paris\n', "its header is not CSV"), (b"id,text,\xff\n1,Paris,x\n", "its header is not valid UTF-8"), (b"id,text,id\n1,Paris,2\n", "two columns are named 'id'"),
    (b"id;text\n1;Paris\n", "no column 'text': there are id;text"), (b"id, text\n1,Paris\n", "there is ' text'"), (b"id,Text\n1,Paris\n", "there is 'Text'"), (b"\n1,Paris\n", "no column 'text'"),
    (b"text,Entities \nParis,1\n", "the column 'Entities ' exists already"), (b"text\rParis\r", "carriage return")])
def test_a_header_that_will_not_do_is_one_sentence(work, tag, data, said):
    with pytest.raises(BertNerError, match=said): iter_csv(work, tag, data)
    assert sorted(p.name for p in work.iterdir()) == ["a.csv", "in.txt"]


# Columns

@pytest.mark.parametrize("kw", [dict(output_column="text"), dict(output_column="Text"), dict(output_column=" text "), dict(output_column="other_json"), dict(output_column=""), dict(output_column=" "), dict(output_column="\udcff"), dict(output_column="id"), dict(output_column="ID"),
    dict(text_column="nope"), dict(text_column="id"), dict(text_column=""), dict(rows_per_shard=0), dict(max_chars=0), dict(max_shard_chars=0), dict(format="csv"), dict(format="jsonl"), dict(encoding="nope"), dict(encoding="rot13"), dict(encoding="undefined"), dict(encoding="hex")])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_columns_that_will_not_do_are_refused_before_anything_is_written(work, tag, name, kw):
    if name == "a.csv": (work/name).write_text("id,text\n1,Paris\n")
    if name == "a.jsonl": (work/name).write_text('{"id": 1, "text": "Paris"}\n' * 2)
    if name == "a.parquet": pq.write_table(pa.table(dict(id=[1], text=["Paris"])), work/name)
    if name == "a.jsonl" and kw in (dict(output_column="ID"),):
        pytest.skip("JSONL has no columns: the name is another")
    if name == "a.csv" and kw == dict(text_column="id"): pytest.skip("a column of CSV holds text")
    before = tree(work)
    with pytest.raises(BertNerError) as e: tag(name, "out.parquet", **kw)
    assert tree(work) == before and "\n" not in str(e.value)


def test_wrong_keywords_name_the_function(work, tag):
    with pytest.raises(TypeError, match=r"annotate\(\) got an unexpected keyword argument 'colum'"):
        tag("in.txt", "out", colum="x")


def test_the_columns_of_later_files_count_too(work, tag):
    (work/"in").mkdir()
    pq.write_table(pa.table(dict(text=["Paris"], n=[1], t=pa.array([None]))), work/"in/a.parquet")
    for bad in (
        pa.table([["Paris"], ["x"]], ["text", "text"]),
        pa.table(dict(text=["Paris"], entities=["x"])),
        pa.table(dict(body=["Paris"])),
        pa.table(dict(text=[b"Paris"])),
        pa.table(dict(text=["Paris"], n=["x"])),
        pa.table(dict(text=["Paris"], n=[2.5], t=[2**60])),
        pa.table(dict(text=["Paris"], n=[date(2024, 1, 1)])),
    ):
        pq.write_table(bad, work/"in/b.parquet")
        if bad.schema.names[-1] == "t": pq.write_table(pa.table(dict(text=["Paris"], n=[2**60])), work/"in/a.parquet")
        with pytest.raises(BertNerError): tag("in", "out.parquet")
        assert sorted(os.listdir(work)) == ["in", "in.txt"]
    for types in (
        [pa.int32(), pa.int64()],
        [pa.int64(), pa.float64()],
        [pa.string(), pa.large_string()],
        [pa.dictionary(pa.int8(), pa.string()), pa.string()],
        [pa.null(), pa.list_(pa.int8())],
        [pa.uint8(), pa.int16()],
    ):
        values = {
            pa.null(): None,
            pa.list_(pa.int8()): [1],
            pa.string(): "x",
            pa.large_string(): "x",
            pa.dictionary(pa.int8(), pa.string()): "x",
        }
        for n, t in zip("ab", types):
            pq.write_table(
                pa.table(dict(text=pa.array(["Paris"]), n=pa.array([values.get(t, 1)]).cast(t))),
                work / f"in/{n}.parquet",
            )
        tag("in", "out.parquet", overwrite=True)
        assert pq.read_table("out.parquet")["n"].to_pylist() == [values.get(t, 1) for t in types], types


def test_csv_numbers_and_parquet_numbers_go_into_a_folder(work, tag):
    (work/"in").mkdir()
    (work/"in/a.csv").write_text("text,n\nParis,1\n")
    pq.write_table(pa.table(dict(text=["Paris"], n=[1])), work/"in/b.parquet")
    with pytest.raises(BertNerError, match="'n' is string in .*a.csv and int64 in .*b.parquet.* give a folder"):
        tag("in", "out.parquet")
    assert tag("in", "out")["rows"] == tag("in", "out.jsonl")["rows"] == 2


def test_a_mistyped_column_of_jsonl_stops_the_run(work, tag):
    (work/"a.jsonl").write_text('{"body": "Paris", "id": 1}\n' * 2000)
    with pytest.raises(BertNerError, match=r"a.jsonl: no column 'txt': there are body, id"):
        tag("a.jsonl", "out", text_column="txt")
    with pytest.raises(BertNerError, match=r"a.jsonl: the column 'id' holds int, not text"):
        tag("a.jsonl", "out", text_column="id")
    status, out, error = shell("annotate", "a.jsonl", "out", "--text-column", "Body")
    assert (status, out) == (1, "") and "there is 'body'" in error and not (work/"out").exists()
    one_sentence(error)
    with (work/"a.jsonl").open("a") as f: f.write('{"txt": "Paris"}\n')
    assert (tag("a.jsonl", "out", text_column="txt") | dict(seconds=0)) == dict(
        rows=1, rejected=2000, shards=1, skipped=[], seconds=0
    )
    (work/"b.jsonl").write_text("no\nJSON\n")
    status, out, error = shell("annotate", "b.jsonl", "out2")
    assert (status, error) == (1, "") and out.startswith("0 rows in out2, 2 rejected")


# Encodings

@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig", "cp1252", "utf-8"])
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl", "a.txt.gz", "a.csv.zst"])
def test_the_encoding_is_recognised_or_named(work, tag, name, encoding):
    texts = ["Mr. Bush met Zürich.", "Paris", "York", "Mr. Bush again"] * 300
    kind = name.split(".")[1]
    text = {"txt": "", "csv": "id,text\r\n", "tsv": "id\ttext\n", "jsonl": ""}[kind] + "".join(
        {
            "txt": f"{t}\n",
            "csv": f"1,{t}\r\n",
            "tsv": f"1\t{t}\n",
            "jsonl": json.dumps(dict(text=t), ensure_ascii=False) + "\n",
        }[kind]
        for t in texts
    )
    data = text.encode(encoding)
    (work / name).write_bytes(
        gzip.compress(data)
        if name.endswith("gz")
        else pa.compress(data, "zstd", asbytes=True)
        if name.endswith("zst")
        else data
    )
    marked = encoding in ("utf-16", "utf-32", "utf-8-sig", "utf-8")
    if marked: tag(name, "found.jsonl"); assert [r["text"] for r in lines("found.jsonl")] == texts
    elif encoding != "cp1252":
        with pytest.raises(
            BertNerError, match=f"{name}: this looks like UTF-.. without a byte order mark: name its encoding"
        ):
            tag(name, "found.jsonl")
        assert sorted(os.listdir(work)) == sorted([name, "in.txt"])
    tag(name, "named.jsonl", encoding=encoding.upper().replace("-", "_"))
    assert [r["text"] for r in lines("named.jsonl")] == texts
    if encoding != "utf-8" and encoding[:6] != "utf-8-":
        for wrong in ("utf-8", "utf-16" if encoding[:6] == "utf-32" else "utf-32"):
            if encoding == "cp1252" and wrong == "utf-8": continue
            with pytest.raises(BertNerError, match="looks like UTF-"): tag(name, "wrong.jsonl", encoding=wrong)


def test_what_is_not_valid_in_the_named_encoding_is_refused_row_by_row(work, tag):
    (work/"a.txt").write_bytes("Paris\n".encode("utf-16-le") + b"\x00\xd8\n\x00" + "York\n".encode("utf-16-le"))
    assert tag("a.txt", "out", encoding="utf-16-le", format="jsonl")["rows"] == 2 and rejected("out") == [
        ("2", "not valid UTF-16-LE")
    ]
    (work/"b.txt").write_bytes(b"Paris\n\x81\nYork \xe9\n")
    assert tag("b.txt", "out2", encoding="cp1252", format="jsonl")["rows"] == 2 and rejected("out2") == [
        ("2", "not valid CP1252")
    ]
    (work/"c.txt").write_bytes(b"Paris\nZ\xfcrich\n")
    assert (
        tag("c.txt", "out3", encoding="ascii")["rows"] == 1
        and tag("c.txt", "out4")["rows"] == 1
        and rejected("out4") == [("2", "not valid UTF-8")]
    )


# JSON, dates, and tables with nothing in them

def test_jsonl_is_json(work, tag):
    (work / "a.jsonl").write_text(
        '{"text": "Paris", "x": NaN, "y": [Infinity, {"z": -Infinity}], "w": 1e999, "v": '
        '1.5}\n{"text": "York", "text": "Rome"}\n{"text": "York", "a": ' + "[" * 400 + "]" * 400 + "}\n"
    )
    tag("a.jsonl", "out.jsonl")
    row, = lines("out.jsonl")
    assert {k: row[k] for k in "xywv"} == dict(x=None, y=[None, dict(z=None)], w=None, v=1.5)
    assert rejected("out.jsonl.run") == [("2", "two values of 'text'"), ("3", "nested too deeply")]
    tag("a.jsonl", "out.parquet")
    assert json.loads(pq.read_table("out.parquet")["other_json"][0].as_py(), parse_constant=pytest.fail) == dict(
        y=[None, dict(z=None)]
    )
    pq.write_table(
        pa.table(dict(text=["Paris"] * 2, x=[float("nan"), float("-inf")], l=[[float("inf")], None])),
        work / "b.parquet",
    )
    tag("b.parquet", "b.jsonl")
    assert [(r["x"], r["l"]) for r in lines("b.jsonl")] == [(None, [None]), (None, None)]


def test_any_column_of_parquet_can_be_written(work, tag):
    far = [2**22, None]
    columns = dict(
        text=pa.array(["Paris", "York"], pa.string_view()),
        view=pa.array(["a", None], pa.string_view()),
        raw=pa.array([b"a", None], pa.binary_view()),
        large=pa.array(["a", None], pa.large_string()),
        kind=pa.array(["a", None]).dictionary_encode(),
        lists=pa.array([["a"], None], pa.list_(pa.string_view())),
        day=pa.array(far, pa.date32()),
        when=pa.array([10**15, None], pa.timestamp("ms")),
        zone=pa.array([10**12, None], pa.timestamp("s", "UTC")),
        days=pa.array([far, None], pa.list_(pa.date32())),
        deep=pa.array([dict(d=2**22, n=1.5), None], pa.struct([("d", pa.date32()), ("n", pa.float64())])),
        pairs=pa.array([[("k", 2**22)], None], pa.map_(pa.string(), pa.date32())),
        ns=pa.array([123456789, None], pa.timestamp("ns")),
        price=pa.array([1, None]).cast(pa.decimal128(20)),
        none=pa.nulls(2),
        past=pa.array([-(10**12), None], pa.timestamp("s")),
        mars=pa.array([1, None], pa.timestamp("s", "Mars/Olympus")),
        time=pa.array([1, None], pa.time64("ns")),
        lasts=pa.array([2**60, None], pa.duration("us")),
    )
    pq.write_table(pa.table(columns), work/"a.parquet")
    for target in ("out", "out.jsonl", "out.parquet"):
        assert tag("a.parquet", target)["rows"] == 2 and entity_stats(target)["entities"] == 1
    first, second = lines("out.jsonl")
    assert (first["day"], first["days"], first["deep"], first["kind"], first["view"]) == (
        "13453-08-13",
        ["13453-08-13", None],
        dict(d="13453-08-13", n=1.5),
        "a",
        "a",
    )
    assert {k: v for k, v in second.items() if k not in ("text", "entities")} == {
        k: None for k in columns if k != "text"
    } and set(first) == {*columns, "entities"}
    out = pq.read_table("out.parquet")
    assert [
        out[n].cast(a.type).combine_chunks().equals(a)
        if "view" not in str(a.type)
        else out[n].to_pylist() == a.to_pylist()
        for n, a in columns.items()
    ] == [True] * len(columns)


@pytest.mark.parametrize("name, data, columns", [("a.txt", b"", ["text"]), ("a.txt", b"\xef\xbb\xbf", ["text"]), ("a.csv", b"", ["text"]), ("a.csv", b"id,text\n", ["id", "text"]), ("a.csv", b"id,text", ["id", "text"]),
    ("a.tsv", b"id\ttext\r\n", ["id", "text"]), ("a.jsonl", b"", ["text", "other_json"]), ("a.txt.gz", b"", ["text"]), ("a.csv.gz", gzip.compress(b"x,text\n", mtime=0), ["x", "text"]), ("a.parquet", None, ["text", "n"]),
    ("a.txt", b"x" * 100, ["text"]), ("year=1/a.csv", b"text\n", ["text", "year"])])
def test_no_rows_have_columns_all_the_same(work, tag, name, data, columns):
    (work/name).parent.mkdir(exist_ok=True)
    if data is None:
        pq.write_table(pa.table(dict(text=pa.array([], pa.string()), n=pa.array([], pa.int16()))), work/name)
    else: (work/name).write_bytes(data)
    for target in ("out.parquet", "out", "out.jsonl"):
        assert tag(name, target, max_chars=50, **dict(format="parquet") if target == "out" else {})["rows"] == 0
        found = entity_stats(target)
        assert (found["rows"], found["entities"], found["labels"]) == (0, 0, {})
    for table in (pq.read_table("out.parquet"), pq.read_table("out/part-00000-000000.parquet")):
        assert (
            table.column_names == [*columns, "entities"]
            and len(table) == 0
            and table.schema.field("entities").type == shards.ENTITY_ARROW_TYPE
        )
    assert data is not None or pq.read_table("out.parquet")["n"].type == pa.int16()


def test_an_empty_folder_and_an_empty_parquet_file_are_one_sentence(work, tag):
    (work/"none").mkdir(); (work/"a.parquet").touch()
    with pytest.raises(BertNerError, match="no texts at none"): tag("none", "out")
    with pytest.raises(BertNerError, match="a.parquet cannot be read"): tag("a.parquet", "out")
    assert not (work/"out").exists()


# stats

def test_stats_take_the_runs_own_column(work, tag):
    for target in ("a.parquet", "a.jsonl", "a"):
        tag("in.txt", target, output_column="e")
        assert entity_stats(target)["entities"] == entity_stats(target, output_column="e")["entities"] == 1
        with pytest.raises(BertNerError, match="no column 'entities': there are text, e"):
            entity_stats(target, output_column="entities")
        with pytest.raises(BertNerError, match="'text' of .* does not hold entities"):
            entity_stats(target, output_column="text")
    assert shell("stats", "a.jsonl")[::2] == (0, "")


def test_stats_of_what_is_gone_or_changed_are_refused(work, tag):
    tag("in.txt", "a.jsonl"); tag("in.txt", "out", format="jsonl")
    (work/"a.jsonl").write_text("{}\n")
    with pytest.raises(BertNerError, match="was changed"): entity_stats("a.jsonl")
    (work/"a.jsonl").unlink()
    next((work/"out").glob("part-*")).unlink()
    for target in ("a.jsonl", "out"):
        with pytest.raises(BertNerError, match="not complete any more"): entity_stats(target)
        assert tag("in.txt", target, **dict(format="jsonl"))["rows"] == entity_stats(target)["rows"] == 1
    with pytest.raises(BertNerError, match="the target is empty"): entity_stats("")
    for target in ("nowhere", "in.txt", ".", "nowhere.parquet"):
        with pytest.raises(BertNerError, match="not a completed run"): entity_stats(target)


# Disks

@pytest.mark.parametrize("target", ["x.parquet", "x.jsonl", "out"])
def test_after_a_full_disk_the_same_command_goes_on(work, tag, monkeypatch, target):
    """The disk is full at the first write, the second, ...: each time one sentence, no half of a file, and the same
    command goes on."""
    (work/"in.txt").write_text("Paris\n" * 10)
    def written(folder): return {n: d for n, d in tree(folder).items() if not n.endswith("_manifest.json")}
    def whole(folder): os.makedirs(folder); return tag(work/"in.txt", f"{folder}/{target}", rows_per_shard=4)
    whole("expected")
    put, file, left = shards.write_atomic, manifest._whole_file, []
    def full(real, address, *args):
        if not left: raise BertNerError(f"{address} cannot be written: {os.strerror(errno.ENOSPC)}")
        left.pop()
        return real(address, *args)
    setattr_everywhere(monkeypatch, "write_atomic", lambda *a: full(put, *a))
    setattr_everywhere(monkeypatch, "_whole_file", lambda *a: full(file, *a))
    for writes in range(20):
        left[:] = [1] * writes
        try: whole(f"try{writes}"); break
        except BertNerError as e: assert "No space left" in str(e)
        if target != "out" and (work/f"try{writes}"/target).exists():
            assert (work/f"try{writes}"/target).read_bytes() == (work/"expected"/target).read_bytes()
        assert writes or not [*(work/"try0").iterdir()]
        left[:] = [1] * 20
        assert tag("in.txt", f"try{writes}/{target}", rows_per_shard=4)["rows"] == 10 and written(
            work / f"try{writes}"
        ) == written(work / "expected")
    # a manifest, two files for each of three parts, the rejected rows, (the one file,) the manifest
    assert writes == (9 if target == "out" else 10)


def test_a_write_that_fails_is_one_sentence_and_leaves_nothing(work, tag, monkeypatch):
    def full(self, data): self.open("wb").close(); raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BertNerError, match="No space left on device"): tag("in.txt", "out")
    assert sorted(os.listdir(work)) == ["in.txt"]


def test_a_foreign_project_is_left_alone(work):
    "A folder that has a dvc.yaml and params.yaml of its own: the model that ships is used, nothing is made."
    (work/"dvc.yaml").write_text("stages: {}\n"); (work/"params.yaml").write_text("lr: 1\n")
    command = [sys.executable, "-c", "from bert_ner.cli import main; main()", "annotate", "in.txt", "x.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=work)
    assert (done.returncode, done.stderr) == (0, "") and sorted(os.listdir(work)) == [
        "dvc.yaml",
        "in.txt",
        "params.yaml",
        "x.jsonl",
        "x.jsonl.run",
    ]


def test_what_ray_hands_around_are_rows_of_arrow(work, tag, mini_tagger_folder):
    "The two functions that Ray calls, with what it does between them: rows become Arrow and come back."
    (work/"in").mkdir()
    for n in ("caf\udce9.txt", "a.csv", "b.jsonl"):
        (work/"in"/n).write_text({"v": "text\nParis\n", "l": LINE}.get(n[-1], "Paris\n"))
    pq.write_table(pa.table(dict(text=["Paris", "York"])), work/"in/p.parquet")
    tag("in", "expected", format="parquet")
    files, config = find_files("in")[0], readers.AnnotateConfig()
    (work/"out").mkdir()
    job = dict(
        folder="out",
        config=config,
        columns=shards.infer_jsonl_schema(files, config),
        engine="onnx",
        model=mini_tagger_folder,
    )
    annotator = run.Annotator(**job)
    rows = pa.Table.from_pylist([dict(file=i, address=os.fsencode(f)) for i, f in enumerate(files)]).to_pylist()
    for row in rows:
        for part in run._cut_for_ray(row, config, frozenset()):
            annotator(dict(shard=pa.array([part["shard"]]).to_pylist()))
    def parts(folder): return {n: d for n, d in tree(work/folder).items() if n.startswith(("part-", "_shards"))}
    assert parts("out") == parts("expected")
