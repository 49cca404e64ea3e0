"""Runs stages' cells in this process, one case a line: `{"stage": "bert", "changes": {"epochs": 1}}` in, `{"error": null}` or `{"error": type, "message": text}` out.

A case executes what `bert-ner run-stage` would (`is_stage_cell`), with `changes` set where papermill injects them. Started with BERT_NER_ROOT, it works in that project.
"""
import ast
import asyncio
import json
import os
import sys
import types
import warnings

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)                                       # what cells print goes to stderr
os.environ["TQDM_DISABLE"] = "1"
import matplotlib

matplotlib.use("agg")
from bert_ner.stages import is_stage_cell
from bert_ner.core import list_notebooks


def run(stage, changes):
    notebook, = [p for p in list_notebooks() if p.stem.partition("_")[2] == stage]
    names = types.ModuleType("__main__").__dict__       # as in a kernel: what is defined here is pickled by value
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code" or not is_stage_cell(cell): continue
        tree = ast.parse("".join(cell["source"]))
        done = eval(compile(tree, f"{notebook.name} {cell['id']}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if asyncio.iscoroutine(done): asyncio.run(done)
        if "parameters" in cell["metadata"].get("tags", []): names.update(changes)
        # seconds each time, and nobody reads it here
        if "measure_peak_flops" in names: names["measure_peak_flops"] = lambda *args, **options: 1e10


for line in sys.stdin:
    case = json.loads(line)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default"); warnings.simplefilter("ignore", ResourceWarning)         # as Python has it
        try: run(case["stage"], case["changes"]); answer = dict(error=None)
        except Exception as e:
            import traceback
            answer = dict(error=type(e).__name__, message=str(e), trace=traceback.format_exc()[-1500:])
    answer["warnings"] = sorted(
        {
            f"{w.category.__name__}: {w.message}"
            for w in said
            if "__main__" in str(w.filename) or ".ipynb" in str(w.filename) or "bert_ner" in str(w.filename)
        }
    )
    print(json.dumps(answer), file=answers, flush=True)
