# Every target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.
# The only thing that must be there is Python 3.11 (or newer); name another one with `make PYTHON=...`.

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint check bench bench-quality ui protos clean
SHELL := /bin/bash

DATA   ?= retail
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN    := .venv/bin
# Named after what is installed: when pyproject.toml or constraints.txt change, set-up runs again.
READY  := .venv/ready-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

help: ## this list
	@echo "make <target>, one of:"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(READY) ## the virtual environment .venv, without running anything

demo: $(READY) ## the whole loop; DATA=retail (default), complete-journey or open-bandit
	@$(BIN)/python -m examples.demo $(DATA)

test: $(READY) ## all tests
	@$(BIN)/python -m pytest -q -n 2

lint: $(READY) ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

check: lint test ## everything that must pass before a commit is shared: lint and test

bench: $(READY) ## how fast it is on this machine (tests/benchmarks)
	@$(BIN)/python -m pytest -q -s tests/benchmarks -o python_files='bench_*.py'

bench-quality: $(READY) ## how good it is: a table of each long study; STUDY=name runs what is missing of one
	@$(BIN)/python -m tests.benchmarks.quality $(STUDY)

ui: $(READY) ## compare runs and models in the MLflow UI
	@$(BIN)/nextbest ui

protos: $(READY) ## regenerate serving/pb from protos/
	@$(BIN)/python -m serving.generate

clean: ## remove .venv and what tools left behind; never runs/ or mlruns/
	rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY):
	@if [ -z "$(PYTHON)" ]; then echo "NextBest needs Python 3.11 or newer on the PATH (or: make PYTHON=/path/to/python3.11)."; exit 2; fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3.11-venv"; exit 2; fi
	@echo "Setting up .venv with $(PYTHON) and the versions of constraints.txt; a few minutes, once."
	@rm -f .venv/ready-*
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --editable '.[serving,training,datasets,dev]' --constraint constraints.txt \
		> .venv/setup.log 2>&1 || \
		{ grep -v '^WARNING' .venv/setup.log | tail -n 20; echo "Set-up failed; all of it is in .venv/setup.log."; exit 1; }
	@touch $@
