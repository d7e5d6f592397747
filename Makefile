# What people run and what CI runs are the same targets. Each brings its own environment up to date first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= data/icons
RUNS ?= runs
OUT ?= out
RECIPES ?= recipes/icons

.PHONY: help venv demo test check bench icons gpu-pack
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(VENV)/.installed ## the environment in .venv, at the versions of constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: venv ## four pictures by the shipped model, in out/demo
	$(BIN)/unclip generate \
	  "a 3d render of a slice of pizza" "a flat icon of a red apple" "a noto emoji of a cat" "a 3d render of a rocket" \
	  --seed 7 --grid --out $(OUT)/demo

test: venv ## the whole test suite
	$(BIN)/python -m pytest

check: venv ## lint, formatting, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: venv ## every benchmark, each ends in one line of JSON
	set -e; for script in benchmarks/*.py; do $(BIN)/python $$script; done

icons: venv ## the shipped model from nothing: artwork, training of every part, bundle (hours on a GPU, days on two cores)
	$(BIN)/unclip data icons --out $(DATA)
	for part in clip evaluator prior decoder upsampler256 upsampler1024; do \
	  $(BIN)/unclip train $$part --config $(RECIPES)/$$part.yaml data=$(DATA) out=$(RUNS)/$$part || exit; \
	done
	$(BIN)/unclip train bundle --config $(RECIPES)/bundle.yaml runs=$(RUNS) out=$(RUNS)/icons

gpu-pack: ## code and prepared artwork in one tar, for training on a machine without a network
	mkdir -p $(OUT)
	git archive --format=tar --prefix=unclip/ --output=$(OUT)/gpu-pack.tar HEAD
	tar --append --file=$(OUT)/gpu-pack.tar --transform='s,^,unclip/,' $(DATA)
	@echo $(OUT)/gpu-pack.tar
