PYTHON ?= python3
BIN := .venv/bin
MODELS := $(or $(CADCPP_MODELS),models)
VERIFIER := $(MODELS)/smollm2-135m-wide-1.2GB-Q8_0.gguf
DRAFT := $(MODELS)/smollm2-135m-draft-Q2_K.gguf
NGRAM := $(MODELS)/smollm2-135m.ngram

.PHONY: setup chat chat-wall ngram test test-slow lint type bench bench-ablation bench-staged bench-wall bench-first bench-mixture bench-memory bench-chain bench-fixed bench-soak simulate profile clean fuzz bench-quick bench-report bench-acceptance bench-overcommit bench-sweep bench-agreement bench-context bench-size

setup: .venv/ready $(VERIFIER) $(DRAFT)  ## everything that the other targets need; done once

# The first time this builds llama.cpp, which takes some minutes; pip keeps the result.
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

# One command makes both; the order-only prerequisite keeps a new environment from making them again.
$(VERIFIER): | .venv/ready
	$(BIN)/cadcpp models demo --dir $(MODELS)
$(DRAFT): | $(VERIFIER)
	$(BIN)/cadcpp models demo --dir $(MODELS)

chat: setup  ## talk with the demo pair
	$(BIN)/cadcpp chat -m $(VERIFIER) -d $(DRAFT)

chat-wall: setup  ## the same in 900 MiB, which root makes a wall; ARGS="--speculative off" is plain decoding
	$(BIN)/python -m bench.measure.run_limited 900MiB $(BIN)/cadcpp chat -m $(VERIFIER) -d $(DRAFT) --ram 900MiB $(ARGS)

ngram: $(NGRAM)  ## an n-gram model of what the demo draft writes; a minute or two
$(NGRAM): | $(VERIFIER) $(DRAFT)
	$(BIN)/cadcpp models demo --dir $(MODELS) --ngram

test: setup  ## all but the tests that take minutes
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-slow: setup  ## those
	$(BIN)/python -m pytest -m slow

fuzz: setup  ## thousands of damaged files, opened in every way there is; ten minutes
	$(BIN)/python -m pytest -m "slow or not slow" -s tests/native/test_fuzz.py tests/native/test_saved_cache.py tests/pure/test_damage.py

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: .venv/ready
	$(BIN)/mypy

bench: setup .venv/charts  ## everything, in under an hour, into bench/report.md; root makes the wall; goes on if it was ended
	$(BIN)/python -m bench.run

bench-quick: setup .venv/charts  ## a part of it, in under ten minutes, into bench/results/quick.md
	$(BIN)/python -m bench.run --quick

bench-report: setup .venv/charts  ## the report again, out of what was measured
	$(BIN)/python -m bench.report.build

# The parts of the report, each alone, into bench/results.
bench-wall bench-overcommit bench-ablation bench-sweep bench-staged bench-agreement bench-first bench-context bench-size: setup .venv/charts
	$(BIN)/python -m bench.run $(@:bench-%=%)

.venv/charts: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

bench-acceptance: setup  ## tokens a pass, by kind of text; exact
	$(BIN)/python -m bench.studies.acceptance

bench-mixture: setup  ## a mixture of experts behind the wall
	$(BIN)/python -m bench.studies.mixture_of_experts

bench-memory: setup  ## what the drop-in class holds in memory, beside upstream's
	$(BIN)/python -m bench.studies.dropin_memory

bench-chain: setup  ## llama.cpp's own speculation, for `make bench` to compare with; needs cmake
	$(BIN)/python -m bench.baselines.llama_speculative

bench-fixed: setup  ## the cost model beside trees of every fixed size, all workloads, all walls; two hours and a half
	$(BIN)/python -m bench.studies.fixed_sizes

bench-soak: setup  ## random requests to one process, ARGS="--minutes 60"; 1 if a text differs or something grows
	$(BIN)/python -m bench.studies.soak $(ARGS)

simulate: setup  ## predictions for devices that were not measured, and how far predictions are off here
	$(BIN)/python -m bench.predict.simulate

profile: setup
	$(BIN)/python -m bench.studies.round_profile

clean:  ## all but the models
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
