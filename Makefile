# Everything a day's work needs; each target is safe to repeat.
#   PYTHON=python3.12   which Python the environment is made from      VENV=.venv   where it is
#   JOBS=2              how many processes share the tests

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo downstream test test-compile torture check format bench sizes

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

setup: $(READY)  ## make the environment .venv with svilm in it (two or three minutes)
	@echo "svilm is ready: $(BIN)/svilm --help.  Next: make demo"

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing svilm with torch and the tools of this repository into $(VENV): two or three minutes"
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[log,search,app,dev]"
	@touch $@

demo: $(READY)  ## draw a world, train on it, retrieve, and write runs/demo/report.html (about ten minutes)
	$(BIN)/svilm demo --to runs/demo

downstream: $(READY)  ## carry the model of `make demo` to every downstream task; runs/downstream/report.html
	test -f runs/demo/scores.json || $(MAKE) demo
	$(BIN)/svilm downstream runs/demo --world runs/demo-world --to runs/downstream

test: test-compile  ## all tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-compile: $(READY)  ## only what torch.compile does, for which the shape checks of the other tests are off
	$(BIN)/python -m pytest -m compile --jaxtyping-packages=

torture: $(READY)  ## what scans and runs must survive, long form (SEED=7 for other videos and damage)
	PYTHONPATH=tests $(BIN)/python -m torture $(if $(SEED),--seed $(SEED))

check: $(READY)  ## what must hold before a change is proposed: format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: $(READY)  ## put the sources in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## time and memory of our parts against peers (below 15 minutes; PEERS=DIR with clones of other projects)
	$(BIN)/svilm bench --pictures benchmarks/pictures --json benchmarks/latest.json $(if $(PEERS),--peers $(PEERS))

sizes: $(READY)  ## the ten longest files and functions
	$(BIN)/python .ci/sizes.py
