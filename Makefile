VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
RUN_DIR ?= runs/demo
SEED ?= 0
ZOO ?= .zoo
STAMP := $(VENV)/.lean_align_ready
STACK_VENV ?= .venv-stack
STACK_BIN := $(STACK_VENV)/bin
STACK_PIP := $(STACK_BIN)/python -m pip install --quiet --disable-pip-version-check
STACK_STAMP := $(STACK_VENV)/.lean_align_ready
# processes that the tests are shared out to, a file each: as many as cores that this shell may use, 4 at most
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 1); [ $$n -gt 4 ] && n=4; [ $$n -eq 1 ] && n=0; echo $$n)

.PHONY: setup setup-stack demo test test-stack check bench bench-full bench-peers cross-check-env docs demo-model models-zoo lock lock-gpu clean

$(STAMP): requirements/cpu.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(STAMP)

setup: $(STAMP)  ## make the environment

demo: setup  ## run the whole method on the embedded model
	$(BIN)/lean-align run demo --set seed=$(SEED) --run-dir $(RUN_DIR)

test: setup  ## tests, under 8 minutes on 2 cores
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

$(STACK_STAMP): requirements/cpu.txt requirements/stack.txt pyproject.toml
	@{ $(PYTHON) -m venv $(STACK_VENV) && \
	$(STACK_PIP) -r requirements/cpu.txt && \
	$(STACK_PIP) --no-deps -r requirements/stack.txt && \
	$(STACK_PIP) --no-deps --editable . && \
	$(STACK_BIN)/python -m tests.stack_kernels && \
	$(STACK_BIN)/python -c "import unsloth" && $(STACK_BIN)/python -c "import vllm" && touch $@; } || \
	{ echo "test-stack FAILED: its environment, $(STACK_VENV), could not be built (see above); no test was run" >&2; exit 1; }

setup-stack: $(STACK_STAMP)  ## make the environment with Unsloth and vLLM's CPU build

test-stack: $(STACK_STAMP)  ## slow tests on real models, with Unsloth and vLLM in an environment of their own
	$(STACK_BIN)/python -m pytest -m stack

check: setup  ## lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

bench: setup  ## measure in under 10 minutes, and write bench/RESULTS.md
	$(BIN)/python -m bench

bench-full: setup  ## measure at full size: hours on 2 cores
	$(BIN)/python -m bench --full

bench-peers: setup  ## the environment of trak, dattri and bergson, in .venv-peers; bench makes it when needed
	$(BIN)/python -m bench.peers

cross-check-env: setup  ## the environment of lm-eval, in .venv-lm-eval; bench.cross_check makes it when needed
	$(BIN)/python -m bench.lm_eval_tasks.environment

docs: setup  ## write docs/cli.md, docs/models.md and docs/architecture.md from the command line, the tests and the rooms
	$(BIN)/python -m docs.make_cli
	$(BIN)/python -m docs.make_models
	$(BIN)/python -m docs.make_architecture

demo-model: setup  ## train the embedded model again (about 25 minutes on 2 cores)
	$(BIN)/python -m lean_align.demo.make_model lean_align/demo/model

models-zoo: setup  ## write tiny random models of the families that people use into ZOO (.zoo/)
	$(BIN)/python tests/zoo.py $(ZOO)

lock: setup  ## lock every version again
	$(BIN)/python -m pip freeze --exclude-editable > requirements/cpu.txt

lock-gpu: $(STACK_STAMP)  ## lock lean-align[gpu] again, with the versions of cpu.txt where they fit
	grep --invert-match --extended-regexp '^(#|numpy|torch|certifi|setuptools)' requirements/cpu.txt > $(STACK_VENV)/constraints.txt
	{ grep '^#' requirements/gpu.txt; $(STACK_BIN)/uv pip compile --quiet --no-header --no-annotate --python-version 3.11 \
	--python-platform x86_64-manylinux_2_28 --extra gpu --constraint $(STACK_VENV)/constraints.txt pyproject.toml; } > $(STACK_VENV)/gpu.txt
	mv $(STACK_VENV)/gpu.txt requirements/gpu.txt

clean:
	rm -rf $(VENV) $(STACK_VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
