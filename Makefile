# make run: set up, then do the main job.  make test: set up, then the tests.  See README.md.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CC ?= cc
CORE := $(filter-out dgmp/_core/module.c $(wildcard dgmp/_core/bind_*.c),$(wildcard dgmp/_core/*.c))
SOURCES := pyproject.toml setup.py $(wildcard dgmp/_core/*.[ch])
CTESTS := $(patsubst tests/core/%.c,%,$(wildcard tests/core/test_*.c))
CFLAGS_TEST := -std=gnu11 -O2 -g -Wall -Wextra -pthread -Idgmp/_core

.PHONY: run test test-runtime test-rest ctest tsan asan asan-python fuzz killpoints mutants model wheel lint bench chaos soak kills clean
.DELETE_ON_ERROR:

$(VENV)/.ready: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "dgmp needs Python 3.11 or newer; say make PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "no venv: install it (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	@$(BIN)/pip install -q --disable-pip-version-check -e .
	@$(BIN)/python -m compileall -q dgmp workers
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[test]'
	@touch $@

run: $(VENV)/.ready
	@$(BIN)/dgmp run examples/stdlib_index.py

test: $(VENV)/.ready-test ctest
	@$(MAKE) -s -j2 --output-sync test-runtime test-rest

# Two halves side by side: much of a test is waiting.
test-runtime: $(VENV)/.ready-test
	@$(BIN)/python -m pytest tests/runtime tests/chaos

test-rest: $(VENV)/.ready-test
	@$(BIN)/python -m pytest --ignore=tests/runtime --ignore=tests/chaos

# The C core without Python, each concept a program of its own.
build/tsan/%: VARIANT := -fsanitize=thread
build/asan/%: VARIANT = $(SANITIZE)
build/%/core.a: $(CORE) $(wildcard dgmp/_core/*.h)
	@mkdir -p $(@D)
	@cd $(@D) && $(CC) $(CFLAGS_TEST) $(VARIANT) -c $(addprefix ../../,$(CORE)) && rm -f core.a && ar rcs core.a *.o

.PRECIOUS: build/%/core.a

define tests_with
build/$(1)/test_%: tests/core/test_%.c $(wildcard tests/core/*.h) build/$(1)/core.a
	@$$(CC) $$(CFLAGS_TEST) $$(VARIANT) $$< build/$(1)/core.a -o $$@
endef
$(foreach variant,ctest tsan asan,$(eval $(call tests_with,$(variant))))

ctest: $(addprefix build/ctest/,$(CTESTS))
	@for t in $^; do $$t || exit 1; done

# test_kill steps one process through each operation: there is nothing for it in here.
tsan: $(addprefix build/tsan/,$(filter-out test_kill,$(CTESTS)))
	@for t in $^; do TSAN_OPTIONS=halt_on_error=1 $$t || exit 1; done

# Out-of-bounds, use after free, leaks; overflows, misaligned and out-of-range values.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
asan: $(addprefix build/asan/,$(filter-out test_kill,$(CTESTS)))
	@for t in $^; do $$t || exit 1; done

# Hostile bytes: tests/fuzz/fuzz_*.c, each for FUZZ_SECONDS from the seeds in tests/fuzz/seeds.
FUZZ_SECONDS ?= 60
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
build/fuzz/%: tests/fuzz/%.c tests/core/hostile.h tests/core/check.h $(CORE) $(wildcard dgmp/_core/*.h)
	@command -v clang > /dev/null || { echo "make fuzz needs clang and its libFuzzer (Debian, Ubuntu: apt install clang libclang-rt-14-dev)"; exit 1; }
	@mkdir -p $(@D)
	@clang $(CFLAGS_TEST) -Itests/core $(SANITIZE) -fsanitize=fuzzer $< $(CORE) -o $@

fuzz: $(addprefix build/fuzz/,$(FUZZERS))
	@for f in $(FUZZERS); do mkdir -p build/fuzz/found/$$f && build/fuzz/$$f -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -verbosity=0 \
	    -print_final_stats=1 -artifact_prefix=build/fuzz/ build/fuzz/found/$$f tests/fuzz/seeds/$$f || exit 1; done

# The core built for tests.  PYTHONPATH=build/NAME makes every Python started with it load that build (its sitecustomize.py).
NATIVE_CFLAGS = -std=gnu11 -O2 -g -fPIC -shared -fvisibility=hidden -pthread -DPy_LIMITED_API=0x030b0000 \
    -I$(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')
build/killpoints/native.so: FLAGS := -DDGMP_KILLPOINTS
build/asan-python/native.so: FLAGS := $(SANITIZE) -O1
build/%/native.so: tests/native/sitecustomize.py $(SOURCES) | $(VENV)/.ready-test
	@mkdir -p $(@D) && cp $< $(@D)
	@$(CC) $(NATIVE_CFLAGS) $(FLAGS) dgmp/_core/*.c -o $@

# Places at which a process dies as DGMP_KILLPOINT says: dgmp/_core/killpoints.c.
killpoints: build/killpoints/native.so

# The binding under the sanitizers, in every process of the tests.  CPython keeps much to its end, so leaks are not looked for.
ASAN_TESTS := tests/unit tests/runtime
asan-python: build/asan-python/native.so
	@LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" PYTHONMALLOC=malloc \
	    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:handle_segv=0:allocator_may_return_null=1:log_path=$(CURDIR)/build/asan-python/report \
	    UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=$(CURDIR)/build/asan-python \
	    $(BIN)/python -m pytest --timeout 600 -p no:cacheprovider $(ASAN_TESTS)

mutants:
	@$(PYTHON) tests/core/mutants.py

# SPIN models of parking, the rings under kills, and channels, and that SPIN finds the fault in each mutant of them; minutes.
model:
	@$(PYTHON) tests/model/check.py

wheel: $(VENV)/.ready
	@$(BIN)/pip wheel -q --disable-pip-version-check --no-deps -w dist .
	@ls dist/*.whl

lint: $(VENV)/.ready
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[lint]'
	@$(BIN)/ruff check .
	@$(BIN)/mypy

# dgmp beside its peers, side by side in one run; minutes.  The table goes to docs/performance.md by hand.
bench: $(VENV)/.ready
	@$(BIN)/pip install -q --disable-pip-version-check -r benchmarks/requirements.txt
	@mkdir -p benchmarks/results
	@cd benchmarks && ../$(BIN)/python -m bench --systems dgmp,mp_pool,ppe,loky,pebble,ray \
	    --workloads startup,latency,noop_submit,fine,skewed_submit,nested,crash,idle,noop_map,skewed_map,closures,payload_in,payload_in_reused,payload_out \
	    --out results/all.json

# Processes killed and stopped at random, and the history of what happened checked (tests/chaos/harness.py).  SEED is the
# first of SEEDS, each of which takes SECONDS.
SEED ?= 1
SEEDS ?= 1
SECONDS ?= 5
chaos: $(VENV)/.ready-test build/killpoints/native.so
	@$(BIN)/python -m tests.chaos.harness --seed $(SEED) --seeds $(SEEDS) --seconds $(SECONDS) --points

# Mixed work for MINUTES, with a kill now and then: memory, descriptors and processes must stay flat.
MINUTES ?= 30
soak: $(VENV)/.ready-test
	@$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES)

# 1,000 clients and 200 coordinators killed at random moments, and what they leave counted, and 100 daemons and keepers of the
# queue, and what their tasks have done; twenty minutes.
kills: $(VENV)/.ready-test
	@nice $(BIN)/python -m tests.chaos.kills
	@nice $(BIN)/python -m tests.jobs.kills --kills 100

clean:
	@rm -rf build dist .venv *.egg-info
