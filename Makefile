# make demo and make test do all the set-up themselves; after installing, everything runs offline.
PYTHON ?= python3
BIN := .venv/bin
# A waiting OpenMP thread that spins makes small networks many times slower on a busy laptop.
export OMP_WAIT_POLICY ?= PASSIVE
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help install chromium demo test test-quick test-colab lint format notebooks lesson-table lab evaluate bench bench-time bench-evaluation bench-explorers bench-growth bench-live tune measure ablation live successors pictures train-toy data site slides dist clean
help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed ## make .venv with the package (editable) and all that it needs

.venv/installed: pyproject.toml
	@echo "setting up .venv: some minutes, about 6 GB"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,teach]"
	touch $@

demo: install ## segment bundled scenes by all four variants; out/demo/demo.png
	$(BIN)/refdiff-lite demo

# The browser tests drive Debian's Chromium. Where it cannot be installed they say so and are skipped (with CI set: fail).
chromium: ## install Chromium for the browser tests, where it is missing and this is root on Debian
	@command -v chromium >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || echo "no Chromium: the browser tests will be skipped; install it with: sudo apt-get install chromium"

# One thread: the same sums in the same order on every machine, and no slower for networks as small as these.
test: install chromium lint ## lint, type-check, all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-quick: install ## the tests that take seconds
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow"

# Colab runs Python 3.13: on the path, or pyenv's; where there is none, the same packages in another Python.
COLAB := .venv-colab
COLAB_PYTHON ?= $(or $(shell python3.13 -c 'import sys; print(sys.executable)' 2>/dev/null),\
  $(lastword $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python3.13)),$(PYTHON))
MARKED ?= not slow
$(COLAB)/installed: pyproject.toml tests/colab.txt
	@echo "setting up $(COLAB) with Colab's versions: some minutes, about 7 GB"
	test -x $(COLAB)/bin/python || $(COLAB_PYTHON) -m venv $(COLAB)
	$(COLAB)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]" -c tests/colab.txt
	touch $@

test-colab: $(COLAB)/installed ## the quick tests with Colab's versions, in .venv-colab (all: MARKED=)
	OMP_NUM_THREADS=1 $(COLAB)/bin/python -m pytest $(if $(MARKED),-m "$(MARKED)") --ignore=tests/browser

bench-live: install chromium ## the live page beside PyTorch: first mask, sentences, memory, weight
	$(BIN)/python benchmarks/bench_live.py

bench-explorers: install chromium ## hover, slider and opening times of the explorers; benchmarks/bench_explorers.json
	$(BIN)/python benchmarks/bench_explorers.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check --python .venv
	$(BIN)/lint-imports

format: install ## ruff's formatter and safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: install ## build all lessons and their exercises from notebooks/*.py and the tour (one: make notebooks ONLY=03)
	$(BIN)/python notebooks/build_notebooks.py $(ONLY)

lesson-table: install ## run all lessons; cells, words, figures, exercises and seconds of each
	$(BIN)/python notebooks/lesson_table.py $(ONLY)

lab: install ## open the lessons in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=. notebooks/README.md

VARIANTS := g gs ds full refam concept hybridgl relations
METHODS := $(VARIANTS) random largest oracle cropping region-token global-local
evaluate: install ## README's tables, on ToyRef test and unseen; goes on after a stop (new weights: make evaluate FLAGS=--fresh)
	$(BIN)/refdiff-lite evaluate toyref --split test --proposals oracle --out out/test-oracle $(VARIANTS:%=--variant %) $(FLAGS)
	$(BIN)/refdiff-lite evaluate toyref --split unseen --proposals oracle --out out/unseen-oracle $(VARIANTS:%=--variant %) $(FLAGS)
	$(BIN)/refdiff-lite evaluate toyref --split test --proposals felzenszwalb --out out/test-felzenszwalb $(METHODS:%=--variant %) $(FLAGS)
	$(BIN)/python -m studies.results out/test-oracle out/unseen-oracle out/test-felzenszwalb

live: install ## the page in which Ref-Diff runs: out/live/ for a web server, out/live.html to hand out
	$(BIN)/refdiff-lite live --out out/live
	$(BIN)/refdiff-lite live --out out/live.html

successors: install ## what came after Ref-Diff, measured; data/models/toy/successors.md (PRESET=toy-dit: the transformer)
	$(BIN)/python -m studies.successors --preset $(or $(PRESET),toy)

bench: install ## compute and memory at real size, counted without running: benchmarks/
	$(BIN)/python benchmarks/bench_compute.py
	$(BIN)/python benchmarks/bench_memory.py

bench-time: install ## CPU seconds on this machine, and a dry run of the whole pipeline at full size (10 minutes, 6 GB)
	$(BIN)/python benchmarks/bench_time.py
	$(BIN)/python benchmarks/full_size.py

bench-growth: install ## how cost grows with a picture's side and the sentences; what threads cost on a busy machine
	$(BIN)/python benchmarks/bench_growth.py
	$(BIN)/python benchmarks/bench_threads.py

bench-evaluation: install ## what sharing an image's work and a second process buy; memory over 1000 images
	$(BIN)/python benchmarks/bench_evaluation.py sharing
	$(BIN)/python benchmarks/bench_evaluation.py processes
	$(BIN)/python benchmarks/bench_evaluation.py memory

tune: install ## choose the toy preset's constants on val; data/models/toy/tune.json
	$(BIN)/python -m studies.tune

measure: install ## measure each toy network on test scenes; data/models/toy/measures.json
	$(BIN)/python -m studies.measure

ablation: install ## what each part of the method buys, on test; data/models/toy/ablation.json, .md, .png
	$(BIN)/python -m studies.ablation

pictures: install ## training curves, samples, word maps, inversion; data/models/toy/*.png
	$(BIN)/python -m studies.pictures

train-toy: install ## train the three small networks (hours; resumes from build/toy) and write data/models/toy
	$(BIN)/python -m refdiff_lite.toy

data: install ## write ToyRef's bundled splits again
	$(BIN)/python -m refdiff_lite.toy.build_dataset

site: install ## the course's site with lessons, live page and API, from what is committed: out/site/index.html (minutes)
	$(BIN)/python docs/build_site.py

slides: install chromium ## slides from the lessons' cells, for a browser and as PDF: out/slides/index.html (make slides ONLY="03 07")
	$(BIN)/python docs/build_slides.py $(ONLY) $(FLAGS)

dist: install ## sdist and wheel, both with data and weights inside, in dist/
	$(BIN)/python -m build --no-isolation

clean: ## remove what was built (not .venv, not build/toy's checkpoints)
	rm -rf dist out .pytest_cache .ruff_cache .import_linter_cache
