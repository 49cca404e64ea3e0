"The notebooks are clean, and `bert_ner/` is what they export to, byte for byte, no file more or less."
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from bert_ner.core import ROOT, list_notebooks
from bert_ner.docs import PAGES, render_page

STAGES = {
    name: stage
    for file in ("dvc.yaml", "gpu/dvc.yaml", "ablations/dvc.yaml", "bench/dvc.yaml", "bulk/dvc.yaml", "consumers/dvc.yaml")
    for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items()
    if name != "code"
}
NOTEBOOKS = [*list_notebooks(), ROOT/"nbs/index.ipynb", ROOT/"nbs/results.ipynb"]


def tree(top: Path, folder: str) -> dict[str, bytes]:
    keep = {".py", ".ipynb"}
    return {
        p.relative_to(top).as_posix(): p.read_bytes()
        for p in sorted((top / folder).rglob("*"))
        if p.suffix in keep and ".ipynb_checkpoints" not in p.parts
    }


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    "A copy of the project in which every generated module was removed, the notebooks cleaned and exported again."
    copy = tmp_path_factory.mktemp("again")
    for name in ("settings.ini", "pyproject.toml", "setup.py", "params.yaml", "dvc.yaml"):
        shutil.copy(ROOT/name, copy/name)
    shutil.copytree(ROOT/"nbs", copy/"nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copytree(ROOT/"bert_ner", copy/"bert_ner", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name in ("__init__.py", "__main__.py", "annotate/__init__.py", "triton/__init__.py"):      # written by hand
        (copy/"bert_ner"/name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT/"bert_ner"/name, copy/"bert_ner"/name)
    for command in ("nbdev_clean", "nbdev_export"):
        subprocess.run([command], cwd=copy, check=True, capture_output=True, text=True)
    return copy


def test_notebooks_are_clean(again):
    before, after = tree(ROOT, "nbs"), tree(again, "nbs")
    assert len(before) >= 12
    assert [n for n in before if before[n] != after[n]] == []


def test_library_is_what_the_notebooks_export(again):
    before, after = tree(ROOT, "bert_ner"), tree(again, "bert_ner")
    assert len(before) >= 12
    assert sorted(before) == sorted(after)
    assert [n for n in before if before[n] != after[n]] == []


@pytest.mark.parametrize("stage", STAGES)
def test_stage_notebook_has_its_parameters_cell(stage):
    "Without the tag papermill only warns, and runs the defaults."
    notebook, = [p for p in NOTEBOOKS if p.stem.partition("_")[2] == stage]
    tagged = [c for c in json.loads(notebook.read_text())["cells"] if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_opens_with_a_title_and_a_promise(notebook):
    first = "".join(json.loads(notebook.read_text())["cells"][0]["source"])
    assert first.startswith("# ") and "\n> " in first


def test_params_are_what_conf_composes():
    "`params.yaml` is the default of `conf/`, so plain `dvc repro` and `dvc exp run` start from the same place."
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    # as DVC writes it
    with initialize_config_dir(str(ROOT/"conf"), version_base=None):
        composed = OmegaConf.to_container(compose("config"), resolve=True)
    assert yaml.safe_load((ROOT/"params.yaml").read_text()) == composed


def test_every_parameter_of_a_stage_is_known_to_its_notebook():
    import papermill as pm
    from bert_ner.stages import stage_parameters
    values, checked = yaml.safe_load((ROOT/"params.yaml").read_text()), 0
    for stage in STAGES:
        notebook, = [p for p in NOTEBOOKS if p.stem.partition("_")[2] == stage]
        assert stage_parameters(set(pm.inspect_notebook(str(notebook))), stage, values)["seed"] == 42
        checked += 1
    assert checked >= 8


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_made_from_their_notebooks_and_the_figures(name):
    """`make readme` writes them.

    A run on another machine leaves other figures in `metrics/`: then a page is held to those that were committed."""
    text = (ROOT/name).read_text()
    assert text == render_page(name) or text == render_page(name, committed=True), (
        f"{name} is not what {PAGES[name]} and metrics/ make: run `make readme`"
    )


def test_what_shows_without_a_kernel_is_what_the_shipped_model_finds():
    from bert_ner.docs import static_preview
    made, cells = static_preview(), json.loads((ROOT/"nbs/07_demo.ipynb").read_text())["cells"]
    assert made in ["".join(c["source"]) for c in cells], (
        "07_demo shows another text than bert_ner/pretrained marks: run `make readme`"
    )
    bare = re.sub(r' (style|class|dir)=".*?"', "", made)                      # what GitHub keeps of it
    assert bare.count("</b> <small>GEO</small></mark>") >= 3 and "=" not in bare.partition("<p>")[2]


def test_each_notebook_leads_to_the_next():
    told = [p for p in NOTEBOOKS if p.stem[0].isdigit() and p.stem not in ("07a_page", "07f_review_page")]   # Voila shows all of these
    lasts = ["".join(json.loads(p.read_text())["cells"][-1]["source"]) for p in told]
    assert (
        len(told) >= 19
        and [
            p.stem
            for p, after, last in zip(told, told[1:], lasts)
            if not (last.startswith("Next: [") and f"({os.path.relpath(after, p.parent)})" in last)
        ]
        == []
    )
    assert "(../index.ipynb)" in lasts[-1]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT/"docs").glob("*.md"))])
def test_links_of_a_page_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", (ROOT/page).read_text(), flags=re.S)
    links = [l.partition("#")[0] for l in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in l]
    assert (len(links) > 30 or page != "README.md") and [l for l in links if not ((ROOT/page).parent/l).exists()] == []


def test_the_readme_is_short_and_leads_to_every_guide_and_notebook():
    text = (ROOT/"README.md").read_text()
    assert len(text.split()) <= 900
    assert [
        p.name
        for p in [*(ROOT / "docs").glob("*.md"), *NOTEBOOKS]
        if p.name not in ("index.ipynb", "results.ipynb") and f"/{p.name})" not in text
    ] == []


def test_the_tree_in_contributing_names_what_is_there():
    tree, = re.findall(r"```\n(nbs/ .*?)```", (ROOT/"CONTRIBUTING.md").read_text(), flags=re.S)
    made = {"data/", "models/", "reports/"}                        # by the stages
    names = [n for line in tree.splitlines() for n in line.partition("  ")[0].split()]
    assert (
        len(names) >= 10
        and made <= set(names)
        and [n for n in names if n not in made and not (ROOT / n).exists()] == []
    )


def test_outputs_in_git_are_those_of_their_cells():
    from bert_ner.outputs import stale_outputs
    assert stale_outputs() == [], "run `make outputs`"
