# Every target sets up what it needs in .venv, once; `make` alone lists them. No recipe asks a question.
# pip reads your own configuration (proxy, index): PIP_* variables and pip.conf are respected.
#
# CPU-only Linux: the usual torch for Linux brings several GB of CUDA libraries that lcm does not need. Before
# `make setup`, set PIP_EXTRA_INDEX_URL to the CPU index that PyTorch's install page (pytorch.org, "Start Locally")
# names; the pinned version is then taken from there.

.DEFAULT_GOAL := help
.PHONY: help setup run notebooks test lint lab serve clean distclean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.lcm-ready
CAN_RUN_LCM := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

PYTHON ?= $(shell for name in python3.11 python3 python3.12 python3.13; do \
	"$$name" -c "$(CAN_RUN_LCM)" 2>/dev/null && echo "$$name" && break; done)
PARAMS ?= sample
EXAMPLES ?= reports/examples/*.jpg
ARGS ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=python3.12  PARAMS=flickr8k  ARGS='-p epochs 3'  EXAMPLES='photos/*.jpg'"
	@echo "CPU-only Linux: PIP_EXTRA_INDEX_URL spares gigabytes at setup, see the top of the Makefile"

setup: $(READY) ## install lcm with everything it needs, the test tools too, in .venv

$(READY): pyproject.toml
	@python="$(PYTHON)"; [ ! -x $(BIN)/python ] || python=$(BIN)/python; \
	[ -n "$$python" ] && "$$python" -c "$(CAN_RUN_LCM)" || { \
		echo "lcm needs Python 3.11, 3.12 or 3.13; $${python:-python3} is $$("$${python:-python3}" -V 2>&1 | tail -n 1)." >&2; \
		echo "Install one, remove $(VENV) if it is there, and say which: make setup PYTHON=python3.12" >&2; \
		exit 1; }
	@[ -x $(BIN)/pip ] || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --no-input -e '.[all,dev]'
	@touch $@

run: notebooks ## learn from the generated sample, then caption example photos with the shipped model
	$(BIN)/lcm caption $(EXAMPLES)

notebooks: $(READY) ## execute the notebooks of the preset PARAMS
	$(BIN)/lcm run --params $(PARAMS) $(ARGS)

test: $(READY) ## run every test
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(READY) ## check style, format, and that notebooks carry no outputs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/nbstripout --verify notebooks/*.ipynb

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

serve: $(READY) ## serve captions, tags and corrections over HTTP
	$(BIN)/lcm serve $(ARGS)

# Data that cannot be made again stays: your images, contributions, and trained or shipped models.
clean: ## remove caches, the generated sample and runs; never images, contributions or models
	rm -rf data/cache data/raw/sample reports/runs build dist .pytest_cache .ruff_cache
	find lcm tests notebooks -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf $(VENV)
