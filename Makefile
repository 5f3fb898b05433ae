# `make` lists the targets. Each creates the virtual environment if necessary; all share it.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
DEMO_DIR ?= runs/demo
MODEL_DIR ?= runs/model_demo
CONFIG ?= configs/demo_synthetic.yaml
KILLS ?= 200
INDEX_KILLS ?= 100
ERRORS ?= 8
CACHE_KILLS ?= 100
CRASHES ?= 6
INPUTS ?= 400
# One per core that this process may use; nproc does not know CPU quotas.
JOBS ?= $(shell $(PYTHON) -S -c 'import reid.threads; print(reid.threads.available_cores())' 2>/dev/null || nproc 2>/dev/null || echo 2)
# The versions the tests have run with; LATEST=1 installs the newest ones that setup.py allows.
LOCK := $(if $(LATEST),,--constraint requirements.lock)
# The oldest versions that setup.py allows, and a core of the tests, which runs with them in a minute or two.
OLDEST := --constraint constraints/oldest.txt
OLDEST_TESTS ?= tests/losses tests/ranking/exact/test_first_pass.py tests/ranking/test_metrics.py tests/test_distributed.py

# In contiguous parts, so that tests of a file share what they set up; a process without work takes over from another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

# A prerequisite that is never up to date.
.always:

.PHONY: .always help setup lock demo model test test-oldest test-times coverage lint docs tables pictures bench profile fault fuzz clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 19

setup: .venv/ready  ## create the virtual environment .venv with tested versions; LATEST=1: with the newest

.venv/ready: setup.py requirements.lock $(if $(LATEST),.always)
	$(call install,.venv,$(LOCK),$(if $(LATEST),--upgrade,--build-constraint requirements.lock),dev)

.venv-oldest/ready: setup.py constraints/oldest.txt
	$(call install,.venv-oldest,$(OLDEST),--build-constraint constraints/oldest.txt,tests)

# Create a virtual environment (1) with the versions that the options (2) of pip allow; (3) are more, for this package with its extra (4).
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is required; choose one: make PYTHON=python3.12 ...")'
@echo "installing PyTorch and other dependencies into $(1): takes several minutes and several GB the first time"
@$(PYTHON) -m venv $(1) || { echo "cannot create a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
@$(1)/bin/python -m pip install -q --upgrade $(2) pip setuptools
@$(1)/bin/python -m pip install -qq $(3) $(2) --editable '.[$(4)]'
@touch $(1)/ready
endef

lock: .venv/ready  ## write the versions in .venv to requirements.lock
	$(BIN)/python -m pip freeze --all --exclude-editable > requirements.new
	@if grep -vE '^[A-Za-z0-9._-]+==[A-Za-z0-9.!+-]+$$' requirements.new; then rm requirements.new; \
		echo "the packages above were not installed by name and version: remove them from .venv first"; exit 1; fi
	@mv requirements.new requirements.lock && touch .venv/ready

demo: .venv/ready  ## train SVDNet from scratch on synthetic pedestrians, or resume; DEMO_DIR=
	$(call train,configs/demo_synthetic.yaml,$(DEMO_DIR),DEMO_DIR)

model: .venv/ready  ## retrain the bundled model, Embedder.load("demo"), or resume; MODEL_DIR=
	$(call train,configs/model_demo.yaml,$(MODEL_DIR),MODEL_DIR)
	$(BIN)/python tools/pack.py "$(MODEL_DIR)/checkpoints/rri_last.pth" reid/assets/demo.safetensors --no-classifier --force

# Train with a configuration (1) into a folder (2), or resume the run in it; (3) is the variable that holds the folder.
define train
@if [ -f "$(2)/config.yaml" ]; then \
  echo "resuming the run in $(2); to start a new one: make $@ $(3)=ANOTHER_FOLDER, or remove $(2)"; \
fi
$(BIN)/python tools/train_svdnet.py --config-file $(1) $$(test -f "$(2)/config.yaml" && echo --resume) OUTPUT_DIR "$(2)"
endef

test: .venv/ready  ## run the tests in JOBS processes (default: one per core that may be used)
	$(PYTEST)

test-times: .venv/ready  ## run the tests and list the thirty that take longest
	$(PYTEST) --durations 30

coverage: .venv/ready  ## run the tests and list the lines of reid/ that they do not run; takes longer
	$(PYTEST) --cov reid --cov-report term-missing:skip-covered

test-oldest: .venv-oldest/ready  ## run a core of the tests with the oldest versions; OLDEST_TESTS=
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest --numprocesses $(JOBS) $(OLDEST_TESTS)

lint: .venv/ready  ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready  ## regenerate the tables of docs/configuration.md and docs/commands.md, build the pages into site/
	$(BIN)/python -m reid.config.table
	$(BIN)/python -m reid.commands.parsers.table
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html; $(BIN)/mkdocs serve shows changes at once and has a search"

tables: .venv/ready  ## write the tables of measured scores in README.md and docs/ from docs/results/
	$(BIN)/python docs/tables.py

pictures: .venv/ready  ## draw the pictures of the README from the run of make demo
	$(BIN)/python docs/pictures/make.py "$(DEMO_DIR)"

bench: .venv/ready  ## time ranking, decorrelation and dataset generation on this machine
	$(BIN)/python benchmarks/ranking.py
	$(BIN)/python benchmarks/decorrelation.py
	$(BIN)/python benchmarks/synthetic.py

profile: .venv/ready  ## profile a training step; CONFIG=configs/NAME.yaml
	$(BIN)/python tools/profile_step.py --config-file $(CONFIG)

fault: .venv/ready fuzz  ## fuzz, flip bits of stored files, damage indexes, kill and resume, make system calls fail, simulate power failures; KILLS=, JOBS=, INDEX_KILLS=, CACHE_KILLS=, ERRORS=, CRASHES=
	PYTHONPATH=tests $(BIN)/python tests/fault/bit_flips.py
	PYTHONPATH=tests $(BIN)/python tests/fault/kills.py --kills $(KILLS) --jobs $(JOBS)
	PYTHONPATH=tests $(BIN)/python tests/fault/index_kills.py --kills $(INDEX_KILLS)
	PYTHONPATH=tests $(BIN)/python tests/fault/index_damage.py
	PYTHONPATH=tests $(BIN)/python tests/fault/injections.py --per $(ERRORS)
	PYTHONPATH=tests $(BIN)/python tests/fault/cache_kills.py --kills $(CACHE_KILLS)
	PYTHONPATH=tests $(BIN)/python tests/fault/power_loss.py --steps 40 --crashes $(CRASHES)

fuzz: .venv/ready  ## run the fuzz tests: read 10,000 malicious files; INPUTS= per kind
	FUZZ_INPUTS=$(INPUTS) $(BIN)/python -m pytest tests/fuzz

clean:  ## remove the virtual environment and caches, not runs/
	rm -rf .venv .venv-oldest build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
