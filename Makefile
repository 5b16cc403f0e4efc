# make test is what CI runs; everything else goes deeper. Each target can be run alone.

GO ?= go
PACKAGES ?= ./...
# Simulated schedules, fuzzing time for each target, and rounds of faults on real processes.
SEEDS ?= 10000
FUZZTIME ?= 30s
ROUNDS ?= 20
# Arguments of the benchmark: BENCH="-parts qos1 -rounds 1". Without any, everything is measured and docs/benchmarks.md written.
BENCH ?=

.PHONY: test needs format vet lint vulnerabilities build unit race clients bench fuzz sim chaos compat clean

test: needs format vet lint vulnerabilities build unit race clients

needs:
	@scripts/needs

format:
	@scripts/format

vet:
	$(GO) vet $(PACKAGES)

lint:
	$(GO) tool staticcheck $(PACKAGES)
	@scripts/own-checks

vulnerabilities:
	@scripts/vulnerabilities

build:
	$(GO) build -o bin/tandem ./cmd/tandem

unit:
	$(GO) test -timeout 10m $(PACKAGES)

race:
	CGO_ENABLED=1 $(GO) test -short -race -timeout 12m $(PACKAGES)

# Real clients against a running system; says what it skipped and why.
clients: build
	@scripts/clients short

compat: build
	@scripts/clients full

sim:
	TANDEM_SIM_SEEDS=$(SEEDS) $(GO) test -v -timeout 6h ./sim/...

fuzz:
	@FUZZTIME=$(FUZZTIME) scripts/fuzz

# Kills, pauses and cuts on real processes, at random moments; a failing seed is printed and replays with SEED=.
chaos: build
	TANDEM_BINARY=$(CURDIR)/bin/tandem TANDEM_CHAOS_ROUNDS=$(ROUNDS) TANDEM_CHAOS_SEED=$(SEED) $(GO) test -v -timeout 3h -run Chaos ./compat/...

bench: build
	@scripts/bench $(BENCH)

clean:
	rm -rf bin
