# Every target sets up what it needs in .venv, once; `make` alone lists them. No recipe asks a question.
# pip reads your own configuration (proxy, index): PIP_* variables and pip.conf are respected.
#
# CPU-only Linux: the usual torch for Linux brings several GB of CUDA libraries that lcm does not need. Before
# `make setup`, set PIP_EXTRA_INDEX_URL to the CPU index that PyTorch's install page (pytorch.org, "Start Locally")
# names; the pinned version is then taken from there.

.DEFAULT_GOAL := help
.PHONY: help setup run notebooks test lint docs lab serve dashboard benchmark clean distclean
.PHONY: driver current contributions retrain summary release dispatch

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.lcm-ready
CAN_RUN_LCM := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

PYTHON ?= $(shell for name in python3.11 python3 python3.12 python3.13; do \
	"$$name" -c "$(CAN_RUN_LCM)" 2>/dev/null && echo "$$name" && break; done)
PARAMS ?= sample
EXAMPLES ?= reports/examples/*.jpg
ARGS ?=
RETRAINED ?= reports/runs/retrain
RELEASED := data/released
# On GitHub Actions, no line after this one is a command to the runner: lcm may print what users sent.
UNHEARD = @[ -z "$$GITHUB_ACTIONS" ] || \
	echo "::stop-commands::$$($(BIN)/python -c 'import secrets; print(secrets.token_hex(16))')"

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
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
	$(BIN)/python -m benchmarks.examples

notebooks: $(READY) ## execute the notebooks of the preset PARAMS
	$(BIN)/lcm run --params $(PARAMS) $(ARGS)

# One worker more than cores: many tests wait, for a service, a browser or a kernel. They start hundreds of processes,
# which would compile all modules anew where bytecode is not kept.
test: $(READY) ## run every test
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) --maxprocesses 4 \
		--dist loadfile --no-loadscope-reorder --durations 25 $(ARGS)

lint: $(READY) ## check style, format, the direction of imports, notebooks without outputs, generated tables
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	$(BIN)/cog --check docs/*.md

docs: $(READY) ## write the generated tables of the documents again
	$(BIN)/cog -r docs/*.md

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks $$([ "$$(id -u)" != 0 ] || echo --allow-root) $(ARGS)

serve: $(READY) ## serve captions, tags and corrections over HTTP
	$(BIN)/lcm serve $(ARGS)

dashboard: $(READY) ## open the page for captions, corrections and the quality of models, with a service where none runs
	$(BIN)/python -m lcm.dashboard $(ARGS)

benchmark: $(READY) ## measure speed and scale on Flickr8k, beside references, into reports/benchmark.md
	$(BIN)/python -m benchmarks $(ARGS)

# What .github/workflows does, step by step; it works on any machine. Values that come from elsewhere (STORE_DRIVER,
# APPROVED, VERSION) are read by the shell, as one word each: neither make nor the shell takes anything in them for code.
driver: $(READY) ## install STORE_DRIVER (adlfs, s3fs, gcsfs), if it is set, to reach stores elsewhere
	@[ -z "$$STORE_DRIVER" ] || $(BIN)/python -m pip install --no-input -e '.[serve]' -- "$$STORE_DRIVER"

current: $(READY) ## take the newest model that was released on GitHub, as the current one
	$(UNHEARD)
	@tag="$$(gh release list --exclude-drafts --limit 100 --json tagName \
		--jq '[.[].tagName | select(startswith("model-"))][0] // ""')" && \
	if [ -z "$$tag" ]; then echo "no model was released yet"; else \
		rm -rf $(RELEASED) && gh release download "$$tag" --dir $(RELEASED) && \
		$(BIN)/lcm models publish $(RELEASED) --promote --force --reason "released as $$tag"; \
	fi

contributions: $(READY) ## fetch the contributions that a service has copied to LCM_STORE_URL
	$(UNHEARD)
	$(BIN)/lcm contributions fetch

retrain: $(READY) ## learn what users sent; APPROVED lets numbers of contributions pass
	$(UNHEARD)
	@$(BIN)/lcm run --params retrain --out $(RETRAINED) -p approved "$$APPROVED" $(ARGS)

summary: $(READY) ## say what became of a retraining
	$(UNHEARD)
	@$(BIN)/lcm summary $(RETRAINED) --out $(RETRAINED)/summary.md

release: ## release the model that was retrained on GitHub, as model-VERSION
	@[ -n "$$VERSION" ] || { echo "VERSION is not set: the gate has passed no model" >&2; exit 1; }
	@gh release create "model-$$VERSION" $(RETRAINED)/bundle/* --target "$$GITHUB_SHA" --latest=false \
		--title "Model $$VERSION" --notes-file $(RETRAINED)/summary.md

dispatch: ## start retrain.yml on GitHub
	@gh workflow run retrain.yml --ref "$${GITHUB_REF_NAME:-main}"

# Data that cannot be made again stays: your images, contributions, and trained or shipped models.
clean: ## remove caches, the generated sample and runs; never images, contributions or models
	rm -rf data/cache data/raw/sample reports/runs build dist .pytest_cache .ruff_cache
	find lcm tests notebooks -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf $(VENV)
