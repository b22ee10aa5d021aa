# make demo and make test do all the set-up themselves; after installing, everything runs offline.
PYTHON ?= python3
BIN := .venv/bin
# A waiting OpenMP thread that spins makes small networks many times slower on a busy laptop.
export OMP_WAIT_POLICY ?= PASSIVE
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help install chromium demo test test-quick bench-explorers lint format evaluate tune measure train-toy data wheel clean
help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed ## make .venv with the package (editable) and all that it needs

.venv/installed: pyproject.toml
	@echo "setting up .venv: some minutes, about 6 GB"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

demo: install ## segment bundled scenes by all four variants; out/demo/demo.png
	$(BIN)/refdiff-lite demo

# The browser tests drive Debian's Chromium. Where it cannot be installed they say so and are skipped (with CI set: fail).
chromium: ## install Chromium for the browser tests, where it is missing and this is root on Debian
	@command -v chromium >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || echo "no Chromium: the browser tests will be skipped; install it with: sudo apt-get install chromium"

test: install chromium lint ## lint, type-check, all tests
	$(BIN)/python -m pytest

test-quick: install ## the tests that take seconds
	$(BIN)/python -m pytest -m "not slow"

bench-explorers: install chromium ## hover, slider and opening times of the explorers; benchmarks/bench_explorers.json
	$(BIN)/python benchmarks/bench_explorers.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## ruff's formatter and safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

evaluate: install ## README's table: all variants and styles on ToyRef test, true masks as proposals
	$(BIN)/refdiff-lite evaluate toyref --split test --proposals oracle --out out/test-oracle
	$(BIN)/refdiff-lite evaluate toyref --split test --proposals felzenszwalb --out out/test-felzenszwalb

tune: install ## choose the toy preset's constants on val; data/models/toy/tune.json
	$(BIN)/python -m refdiff_lite.toy.tune

measure: install ## measure each toy network on test scenes; data/models/toy/measures.json
	$(BIN)/python -m refdiff_lite.toy.measure

train-toy: install ## train the three small networks (hours; resumes from build/toy) and write data/models/toy
	$(BIN)/python -m refdiff_lite.toy

data: install ## write ToyRef's bundled splits again
	$(BIN)/python -m refdiff_lite.toy.build_dataset

wheel: install ## a wheel with data and weights inside, in dist/
	$(BIN)/python -m build --no-isolation --wheel

clean: ## remove what was built (not .venv, not build/toy's checkpoints)
	rm -rf dist out .pytest_cache .ruff_cache .mypy_cache
