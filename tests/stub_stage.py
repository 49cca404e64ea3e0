"""Stands in for a stage in a copy of the project: `python stub_stage.py NAME DVC_YAML` writes each of its outputs and
notes the run in runs.txt; with STUB_FAIL=NAME that one fails."""
import os
import sys
from pathlib import Path

import yaml

name, file = sys.argv[1:]
if os.environ.get("STUB_FAIL") == name: raise SystemExit(1)
corpus = yaml.safe_load(Path("params.yaml").read_text())["data"]["name"]
stage = yaml.safe_load(Path(file).read_text())["stages"][name]
for out in (
    o if isinstance(o, str) else next(iter(o)) for key in ("outs", "metrics", "plots") for o in stage.get(key, [])
):
    path = Path(out.replace("${data.name}", corpus))
    if not path.suffix: path /= "part"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x,y\n1,2\n" if path.suffix == ".csv" else "{}")
with open("runs.txt", "a") as f: print(name, file=f)
