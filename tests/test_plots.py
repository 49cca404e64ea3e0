"`dvc plots show`: a page that fetches nothing, on which a curve of one epoch is seen."
import os
import shutil
import subprocess
import sys

import pytest
from playwright.sync_api import sync_playwright

from bert_ner.core import ROOT


@pytest.mark.browser
def test_a_curve_of_one_point_is_seen_without_a_network(tmp_path):
    for name in (
        ".dvc/config",
        ".dvc/plots_page.html",
        ".dvc/plots/curve.json",
        ".dvcignore",
        "dvc.yaml",
        "params.yaml",
    ):
        (tmp_path/name).parent.mkdir(exist_ok=True, parents=True); shutil.copy(ROOT/name, tmp_path/name)
    (tmp_path/".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    shutil.copytree(ROOT/"plots/sample", tmp_path/"plots/sample")
    curve = tmp_path/"plots/sample/bert/f1.csv"
    curve.write_text("".join(curve.read_text().splitlines(keepends=True)[:2]))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "DVC_"))}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "plots", "show", "-o", "shown", "plots/sample/bert/f1.csv"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**env, "DVC_NO_ANALYTICS": "1"},
    )
    assert done.returncode == 0, done.stderr
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        pytest.fail(
            "the browser tests need Chromium: install it (Debian: apt-get install chromium), or leave them "
            "out by `-m 'not browser'`"
        )
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        context = browser.new_context(); context.set_offline(True)
        tab, asked, faults = context.new_page(), [], []
        tab.set_default_timeout(600_000)
        tab.on("request", lambda r: asked.append(r.url))
        tab.on("pageerror", lambda e: faults.append(str(e)))
        tab.goto((tmp_path/"shown"/"index.html").as_uri())
        tab.wait_for_selector("svg.marks")
        points = tab.locator("svg.marks .mark-symbol path").evaluate_all(
            "all => all.map(p => p.getBoundingClientRect().width).filter(w => w >= 6)"
        )
        browser.close()
    # one in the legend
    assert (
        [u for u in asked if not u.startswith(("file:", "data:", "blob:"))] == [] and faults == [] and len(points) >= 2
    )
