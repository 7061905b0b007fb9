PYTHON ?= python3
BIN := .venv/bin
MODELS := $(or $(CADCPP_MODELS),models)
VERIFIER := $(MODELS)/smollm2-135m-wide-1.2GB-Q8_0.gguf
DRAFT := $(MODELS)/smollm2-135m-draft-Q2_K.gguf
NGRAM := $(MODELS)/smollm2-135m.ngram
PARTS := wall neighbours overcommit ablation sweep staged agreement first context size
PIP := $(BIN)/pip --quiet --disable-pip-version-check

.PHONY: help setup chat chat-limited chat-wall ngram test test-arm test-fast test-slow coverage lint type bench bench-types bench-mixture bench-hybrid bench-machines bench-memory bench-chain bench-fixed bench-soak simulate profile clean clients fuzz bench-quick bench-report bench-acceptance $(PARTS:%=bench-%)

help:  ## this list
	@awk -F ':.*  ## ' '/^[a-z][a-z -]*:.*  ## / { printf "%-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/ready $(VERIFIER) $(DRAFT)  ## everything that the other targets need; done once

# The first time this builds llama.cpp, which takes some minutes; pip keeps the result. It is a lean one, so it is kept
# apart from pip's own cache: other projects may want the rest. One that is there already is as good.
CMAKE_ARGS ?= -DCMAKE_PROJECT_llama_cpp_INCLUDE='$(CURDIR)/.ci/lean_llama.cmake'
LEAN_CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cadcpp/lean
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	if ! $(BIN)/pip cache list llama_cpp_python 2>&1 | grep -q llama_cpp_python-; then \
		export CMAKE_ARGS="$(CMAKE_ARGS)" PIP_CACHE_DIR="$(LEAN_CACHE)"; fi; \
	$(PIP) install -e '.[dev]'
	touch $@

# One command makes both; the order-only prerequisite keeps a new environment from making them again.
$(VERIFIER): | .venv/ready
	$(BIN)/cadcpp models demo --dir $(MODELS)
$(DRAFT): | $(VERIFIER)
	$(BIN)/cadcpp models demo --dir $(MODELS)

chat: setup  ## talk with the demo pair
	$(BIN)/cadcpp chat -m $(VERIFIER) -d $(DRAFT)

chat-limited: setup  ## the same with a memory limit of 900 MiB, as root; ARGS="--speculative off" is plain decoding
	$(BIN)/python -m bench.measure.run_limited 900MiB $(BIN)/cadcpp chat -m $(VERIFIER) -d $(DRAFT) --ram 900MiB $(ARGS)

chat-wall: chat-limited  ## the name of chat-limited before

ngram: $(NGRAM)  ## an n-gram model of what the demo draft writes; a minute or two
$(NGRAM): | $(VERIFIER) $(DRAFT)
	$(BIN)/cadcpp models demo --dir $(MODELS) --ngram

test: setup .venv/recipes  ## all but the tests that take minutes
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-fast: .venv/ready  ## those that need neither llama.cpp nor a model, in seconds
	$(BIN)/python -m pytest -n 2 tests/pure tests/test_layers.py tests/test_habits.py

coverage: setup .venv/recipes  ## the lines of cadcpp/ that no test runs; fails below the floor in pyproject.toml
	$(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report=term-missing:skip-covered

test-slow: setup  ## those that take minutes
	$(BIN)/python -m pytest -m slow

test-arm: .venv/ready  ## which kernels are exact on emulated ARM processors, and the tests of that; ARGS=--quick: a part; goes on where it was ended
	$(BIN)/python -m tests.support.arm $(ARGS)

fuzz: setup  ## thousands of damaged files, opened in every way there is; ten minutes
	$(BIN)/python -m pytest -m "slow or not slow" -s tests/native/test_fuzz.py tests/native/test_saved_cache.py tests/pure/test_damage.py

# Clients of other projects, which the page for those who come from llama-cpp-python shows.
.venv/recipes: .venv/ready
	$(PIP) install -e '.[recipes]'
	touch $@

clients: setup .venv/clients  ## other projects' clients, lm-eval and a browser, on the server; what ran, with versions
	$(BIN)/python -m pytest -m slow -s -rs tests/real/test_real_clients.py tests/real/test_evaluation.py tests/cli/test_page.py

.venv/clients: .venv/ready
	$(PIP) install -e '.[clients]'
	touch $@

lint: .venv/ready  ## ruff's rules and its formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: .venv/ready  ## mypy, strict
	$(BIN)/mypy

bench: setup .venv/charts  ## everything, in under an hour, into bench/report.md; memory limits need root; goes on where it was ended
	$(BIN)/python -m bench.run

bench-quick: setup .venv/charts  ## a part of it, in under eight minutes, into bench/results/quick.md
	$(BIN)/python -m bench.run --quick

bench-report: setup .venv/charts  ## the report again, out of what was measured
	$(BIN)/python -m bench.report.build

$(PARTS:%=bench-%): setup .venv/charts
	$(BIN)/python -m bench.run $(@:bench-%=%)

.venv/charts: .venv/ready
	$(PIP) install -e '.[bench]'
	touch $@

bench-acceptance: setup  ## tokens a pass, by kind of text; exact
	$(BIN)/python -m bench.studies.acceptance

bench-mixture: setup  ## a mixture of experts larger than memory, as root; half an hour, then the same goes on
	$(BIN)/python -m bench.studies.mixture_of_experts $(ARGS)

bench-machines: setup  ## two machines on one, with a link and a disk of set speeds, as root; ten minutes
	$(BIN)/python -m bench.studies.machines $(ARGS)

bench-hybrid: setup  ## a hybrid larger than memory, with chains of drafts; some minutes
	$(BIN)/python -m bench.studies.hybrid

bench-types: setup  ## in memory by weight type, beside llama.cpp at its own defaults; half an hour
	$(BIN)/python -m bench.studies.weight_types

bench-memory: setup  ## what the drop-in class holds in memory, beside upstream's
	$(BIN)/python -m bench.studies.dropin_memory

bench-chain: setup  ## llama.cpp's own speculation, for `make bench` to compare with; needs cmake
	$(BIN)/python -m bench.baselines.llama_speculative

bench-fixed: setup  ## the cost model beside trees of every fixed size, all workloads, all limits; two hours and a half
	$(BIN)/python -m bench.studies.fixed_sizes

bench-soak: setup  ## random requests to one process, ARGS="--minutes 60"; 1 if a text differs or something grows
	$(BIN)/python -m bench.studies.soak $(ARGS)

simulate: setup  ## predictions for devices that were not measured, and how far predictions are off here
	$(BIN)/python -m bench.predict.simulate

profile: setup  ## where the time of a round goes
	$(BIN)/python -m bench.studies.round_profile

clean:  ## all but the models
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
