# Talea's own commands.  `make run` shows the whole system at work; `make test` checks it.

SHELL      := /bin/bash
CARGO      ?= cargo
MPICC      ?= mpicc.mpich
CFLAGS     ?= -O3 -std=gnu11 -Wall -Wextra
HDF5_DIR   ?= /usr/lib/x86_64-linux-gnu/hdf5/mpich
SEEDS      ?= 200
GROWTH     ?= 10000000
RELEASE    := target/release
EXAMPLES   := target/examples
HEAT       := examples/heat

export PATH := $(PATH):$(HOME)/.cargo/bin
export MPICC HDF5_DIR

PREFIX     ?= /usr/local
.PHONY: install pictures help run test test-all test-suites bench sim crash growth test-guest fuzz check build examples prepare clean

help:
	@echo 'make run      build all and run the main job: a parallel HDF5 program writes, a consumer follows (target/run.json)'
	@echo 'make test     lints, unit and system tests, the main job with and without a planted fault'
	@echo 'make test-suites   the test suites of ROMIO, MPICH and others on /talea/ (SUITES="romio mpich" for some of them)'
	@echo 'make test-all      make test, and what takes hours: all of test-suites, test-guest, many seeds, the fuzzer'
	@echo 'make bench    figures with the floors of this machine beside them (target/bench.json)'
	@echo 'make sim      the simulation; SEEDS=$(SEEDS)'
	@echo 'make test-guest  tiers and store in a virtual machine with DAX pmem and NVMe, which is killed'
	@echo 'make crash    the store after power losses; SEEDS=$(SEEDS)'
	@echo 'make growth   what ten million extents and keys cost the store; GROWTH=$(GROWTH)'
	@echo 'make fuzz     the decoders under a fuzzer, where a nightly compiler is installed'
	@echo 'make check    the lints alone'
	@echo 'make install  puts a release build below PREFIX=$(PREFIX)'
	@echo 'make pictures the screenshots of the documentation'

run: prepare build examples
	@tools/main-job

prepare:
	@tools/prepare run

build:
	$(CARGO) build --release
	@ln -sf libtalea.so $(RELEASE)/libtalea.so.0

examples: $(EXAMPLES)/heat $(EXAMPLES)/watch $(EXAMPLES)/follow $(EXAMPLES)/yield.so $(EXAMPLES)/ending.so

# An ordinary parallel HDF5 program: nothing of Talea on its command line.
$(EXAMPLES)/heat: $(HEAT)/heat.c | $(EXAMPLES)
	$(MPICC) $(CFLAGS) -I$(HDF5_DIR)/include -o $@ $< -L$(HDF5_DIR)/lib -L$(HDF5_DIR) -lhdf5 -lm

# The consumer uses libtalea for notices and HDF5 for the data.
$(EXAMPLES)/watch: $(wildcard $(HEAT)/watch.c $(HEAT)/snapshot.* $(HEAT)/picture.*) middleware/capi/include/talea.h | build $(EXAMPLES)
	$(MPICC) $(CFLAGS) -I$(HDF5_DIR)/include -Imiddleware/capi/include -o $@ $(filter %.c,$^) \
	    -L$(HDF5_DIR)/lib -L$(HDF5_DIR) -lhdf5 -lpng -lm -L$(RELEASE) -l:libtalea.so.0 -Wl,-rpath,'$$ORIGIN/../release'

# The smallest consumer, as docs/programs.md shows it.
$(EXAMPLES)/follow: examples/follow/follow.c middleware/capi/include/talea.h | build $(EXAMPLES)
	$(MPICC) $(CFLAGS) -I$(HDF5_DIR)/include -Imiddleware/capi/include -o $@ $< \
	    -L$(HDF5_DIR)/lib -L$(HDF5_DIR) -lhdf5 -L$(RELEASE) -l:libtalea.so.0 -Wl,-rpath,'$$ORIGIN/../release'

$(EXAMPLES)/yield.so: $(HEAT)/yield.c | $(EXAMPLES)
	$(CC) $(CFLAGS) -shared -fPIC -o $@ $< -ldl

# Linked without MPI: it is loaded into other programs, too.
$(EXAMPLES)/ending.so: $(HEAT)/ending.c | $(EXAMPLES)
	$(MPICC) $(CFLAGS) -fPIC -c -o $(EXAMPLES)/ending.o $<
	$(CC) -shared -o $@ $(EXAMPLES)/ending.o -ldl

$(EXAMPLES):
	@mkdir -p $@

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

test:
	@tools/prepare test
	@tools/test

# Hours. Goes on after a failure, and ends with what failed.
test-all:
	@tools/test-all

# Fetches Debian's source packages and builds them outside of the checkout.
test-suites: build
	@tools/prepare test
	@tools/test-suites/run $(SUITES)
	@tools/test-suites/steps/run

bench: prepare build examples
	@tools/bench

sim:
	$(CARGO) run -p talea-simulation -- --seeds $(SEEDS)
	$(CARGO) run -p talea-simulation -- --groups --seeds $(SEEDS)

# The store's crash harness, with more seeds than the tests have: LAYOUT=pmem, nvme or two; FROM=first seed.
crash:
	TALEA_CRASH_SEEDS=$(SEEDS) TALEA_CRASH_FROM=$(or $(FROM),0) TALEA_CRASH_LAYOUT=$(LAYOUT) \
	    $(CARGO) test -p talea-vos --test crash -- --nocapture pmem nvme two_tiers

# The index beside one of ten thousand: nodes a look-up touches, bytes an extent and a key; that replay reads each record once.
growth:
	GROWTH=$(GROWTH) $(CARGO) test --workspace --test growth -- --nocapture

# The tiers and the store in a virtual machine with real DAX and NVMe, killed KILLS times.
test-guest:
	@tools/test-guest

fuzz:
	@tools/fuzz

install: build
	@packaging/install $(PREFIX)

pictures: build examples
	@tools/pictures

clean:
	$(CARGO) clean
