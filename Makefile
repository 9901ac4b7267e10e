# make demo | test | test-all | lint | docs | quick | soak | fuzz | audit | bench | bench-gpu: each does its
# own set-up, in .venv beside this file (bench in .venv-bench, which holds TensorFlow and fastai too).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PHONES := $(VENV)/.phones
BENCH := .venv-bench
BENCH_READY := $(BENCH)/.ready
AUDIT := .venv-audit
SHARED ?= ../shared
# A worker more than cores, each a process of 0.5 GB; who is done takes the last tests of another.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# What was compiled is kept, for every worker and every process that a test starts.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-all lint format docs quick soak fuzz audit bench bench-gpu install-check clean

demo: $(READY)
	$(BIN)/thawnet train digits

test: $(READY)
	$(PYTEST) -m "not slow"

test-all: $(PHONES)
	$(PYTEST) -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet .github

# The site, into build/site, with docs/cli.md as the program has it. A broken link is a failure.
docs: $(READY)
	$(BIN)/python tools/command_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The reference data in minutes: accuracy and peak memory, red below 75.0 % or above 3 GB.
# QUICK_FLAGS="--epochs 6 2": a shorter run.
quick: $(READY)
	$(BIN)/python .ci/quick.py $(SHARED) $(QUICK_FLAGS)

# A hundred kills at random moments, and the bits of runs never killed: 25 minutes on 2 cores.
soak: $(READY)
	$(BIN)/python benchmarks/soak.py --kills 100 --shared $(SHARED)

# A quarter of a million spoilt inputs for all that reads something from outside: 5 minutes on 2
# cores. FUZZ_FLAGS="--hypothesis-seed=7": others.
fuzz: $(READY)
	FUZZ_INPUTS=23000 $(PYTEST) -m slow tests/faults/test_fuzz.py -k spoilt $(FUZZ_FLAGS)

# Known holes in the versions of constraints.txt. It asks a service, so it needs the network; that
# a package could not be looked up is a failure.
audit: $(AUDIT)/.ready
	$(AUDIT)/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

# Everything beside its rivals, hours on 2 cores; ROW="quick trunk": these rows alone.
bench: $(BENCH_READY)
	$(BENCH)/bin/python benchmarks/bench.py --shared $(SHARED) $(if $(ROW),--rows $(ROW)) $(BENCH_FLAGS)

# The same on a GPU, each row in under nine minutes.
bench-gpu: $(READY)
	$(BIN)/python benchmarks/bench.py --gpu --shared $(SHARED) $(if $(ROW),--rows $(ROW)) $(BENCH_FLAGS)

# What a user installs, before anything of ours lies beside it: requirements.txt for main.py, and the
# wheel outside the checkout. In .venv itself, made anew: a second copy of torch is 6 GB.
install-check:
	rm -rf $(VENV) build
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python main.py --help > /dev/null
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/dist .
	$(BIN)/python -m pip uninstall --quiet --yes thawnet
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps build/dist/*.whl
	there=$$(mktemp -d) && wheel=$$(pwd)/$(BIN) && cd $$there && $$wheel/thawnet train digits --epochs 1 1
	rm -rf build

# The stamp is written last, so that an interrupted set-up is done again.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[train,serve,heic,dev]"
	touch $@

$(AUDIT)/.ready:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	touch $@

# Converters for phones, without what they would also install: litert-torch asks for a torch below
# 2.15, and works with it.
$(PHONES): tests/phones.txt $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	touch $@

# TensorFlow wants an older h5py than constraints.txt names.
$(BENCH_READY): pyproject.toml constraints.txt benchmarks/constraints.txt
	$(PYTHON) -m venv $(BENCH)
	grep -v '^h5py==' constraints.txt > $(BENCH)/constraints.txt
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(BENCH)/constraints.txt --constraint benchmarks/constraints.txt \
		tensorflow fastai --editable ".[train]"
	touch $@

clean:
	rm -rf $(VENV) $(BENCH) $(AUDIT) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
