# bert-ner: `make repro` and `make test` do all the set-up themselves.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DVC_NO_ANALYTICS := 1
READY := $(VENV)/ready
TRITON := .venv-triton/made-from

.PHONY: help setup repro test check lab demo docs readme outputs experiments bench bulk consumers pretrained pretrained-fast image rayimage lock clean

help: ## show the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

$(READY): settings.ini setup.py pyproject.toml constraints.txt
	@echo "setup: making the environment $(VENV) (about 3 GB, two to three minutes)"
	@command -v $(PYTHON) >/dev/null || { echo "setup: Python 3.11 is needed: install it, or pass PYTHON=/path/to/python3.11" >&2; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt pip install --quiet --no-compile --editable '.[all]'
	@touch $@

$(TRITON): triton-constraints.txt | $(READY)
	@echo "setup: making the Triton server's environment .venv-triton"
	@bert-ner setup-triton

.PHONY: scm
scm: $(READY)
	@if [ -e .git ]; then ! grep -qs no_scm .dvc/config.local || dvc config --quiet --local --unset core.no_scm; \
	elif ! grep -qs no_scm .dvc/config.local; then \
	  echo "setup: this copy is no git repository: DVC runs without git (experiments need one: git init && git add . && git commit -m start)"; \
	  dvc config --quiet --local core.no_scm true; fi

setup: $(READY) $(TRITON) scm ## make the two environments

repro: setup ## run the whole pipeline: corpus, baseline, BERT, ONNX, Triton, demo
	@echo "repro: running the pipeline (dvc repro)"
	@dvc repro
	@echo "repro: done; the figures:"
	@dvc metrics show --precision 4
	@echo "repro: executed notebooks are in reports/; next: make demo"

test: setup chromium ## run the notebooks' tests, then tests/
	@echo "test: the notebooks, then tests/"
	@nbdev_test --n_workers 2
	@pytest --numprocesses 2 --dist loadfile

check: setup ## lint, types, notebooks clean and in sync with bert_ner/ and README.md
	@echo "check: ruff, mypy, notebooks clean, bert_ner/ and README.md in sync"
	@ruff check --quiet bert_ner tests
	@mypy --no-error-summary
	@pytest tests/test_sync.py

.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || { echo "test: installing Debian's chromium for the browser tests"; \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	  else echo "test: chromium is missing: install it (Debian: sudo apt-get install chromium) and run make test again" >&2; exit 1; fi; }

lab: setup ## open the notebooks in JupyterLab
	@echo "lab: JupyterLab, open on nbs/index.ipynb"
	@jupyter lab --LabApp.default_url=/lab/tree/nbs/index.ipynb

demo: setup ## show the highlighting page on localhost
	@echo "demo: the page on localhost"
	@bert-ner demo-local

docs: setup ## the executed notebooks, the figures and the library's functions as a site in _docs/
	@echo "docs: writing the site (about a minute)"
	@python -c "from bert_ner.docs import *; print('docs: open', write_site())"

readme: setup ## write README.md and docs/results.md from their notebooks and metrics/, and the highlighted text in nbs/07_demo.ipynb
	@python -c "from bert_ner.docs import *; print('readme: wrote', *write_pages(), write_static_preview())"

outputs: setup ## run the notebooks and keep what their cells tagged `output` show (some minutes)
	@echo "outputs: running the notebooks"
	@python -c "from bert_ner.outputs import *; print('outputs:', sum(write_outputs().values()), 'cells')"

experiments: setup ## the finished experiments of this corpus, best first: F1, minutes, what differs
	@bert-ner experiments

bench: repro ## every engine against its rivals on this machine (a few minutes, wants an idle one)
	@echo "bench: installing the rivals"
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt pip install --quiet --no-compile --editable '.[bench]'
	@dvc repro --single-item bench/dvc.yaml:bench

bulk: repro ## very many texts, in one process and with Ray (a few minutes, wants an idle machine)
	@echo "bulk: the corpus annotated every way"
	@dvc repro --single-item bulk/dvc.yaml:bulk

consumers: repro ## the trained model in transformers, optimum, transformers.js, spaCy (a few minutes; needs node and npm)
	@command -v npm >/dev/null || { echo "consumers: npm is missing: install Node 20 or later" >&2; exit 1; }
	@echo "consumers: installing optimum in .venv-consumers and transformers.js in consumers/ (3 GB, some minutes)"
	@[ -e .venv-consumers/bin/python ] || $(PYTHON) -m venv .venv-consumers
	@.venv-consumers/bin/pip install --quiet --no-compile --requirement consumers/requirements.txt
	@npm install --prefix consumers --silent --no-package-lock --ignore-scripts
	@dvc repro --single-item consumers/dvc.yaml:consumers

pretrained: setup ## train on the real corpus, put the int8 model into bert_ner/pretrained (hours)
	@[ -e .git ] || { echo "pretrained: experiments need a git repository: run git init && git add . && git commit -m start" >&2; exit 1; }
	@echo "pretrained: training on the Groningen Meaning Bank extract (dvc exp run -S data=gmb export)"
	@dvc exp run -S data=gmb export
	@bert-ner publish

pretrained-fast: setup ## the same for the model named fast, which learns from the one in bert_ner/pretrained (an hour)
	@[ -e .git ] || { echo "pretrained-fast: experiments need a git repository: run git init && git add . && git commit -m start" >&2; exit 1; }
	@echo "pretrained-fast: training on the Groningen Meaning Bank extract (dvc exp run -S data=gmb -S model=minilm_l2 export)"
	@dvc exp run -S data=gmb -S model=minilm_l2 export
	@bert-ner publish --fast

BASE ?= debian:bookworm-slim
image: setup ## build the container image bert-ner: the server and the shipped model, for the processor (needs Docker)
	@echo "image: collecting wheels in build/image"
	@rm -rf build/image && mkdir -p build/image/wheels
	@python -m build --no-isolation --wheel --outdir build/image/wheels . >/dev/null
	@pip download --quiet --no-deps --dest build/image/wheels --requirement triton-constraints.txt
	@cp deploy/cpu/Dockerfile deploy/health.py build/image
	@docker build --quiet --build-arg BASE=$(BASE) --tag bert-ner build/image
	@echo "image: docker run -p 8000:8000 -p 8001:8001 bert-ner"

rayimage: setup ## build the container image bert-ner-ray: Ray with bert-ner, for deploy/kuberay (needs Docker)
	@echo "rayimage: putting the library into build/rayimage"
	@rm -rf build/rayimage && mkdir -p build/rayimage
	@python -m build --no-isolation --wheel --outdir build/rayimage . >/dev/null
	@cp deploy/kuberay/Dockerfile constraints.txt build/rayimage
	@docker build --quiet $(if $(RAY_BASE),--build-arg BASE=$(RAY_BASE)) --tag bert-ner-ray build/rayimage
	@echo "rayimage: docker tag bert-ner-ray REGISTRY/bert-ner-ray, then see deploy/kuberay/rayjob.yaml"

lock: $(READY) ## write constraints.txt from the environment as it is
	@echo "lock: writing constraints.txt"
	@pip freeze --all --exclude-editable --exclude pip | sed -E 's/\+cpu$$//' > constraints.txt

clean: ## remove the environments and what the stages made
	@echo "clean: removing environments, models, reports, stored corpora"
	@rm -rf .venv .venv-triton .venv-consumers consumers/node_modules _docs models reports data/*/arrow data/*/sample.csv model_repository/*/[0-9]* bert_ner.egg-info
