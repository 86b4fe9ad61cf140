# `make demo` and `make test` are all a newcomer needs. CONTRIBUTING.md explains the rest.

GO      ?= go
BIN     := bin/stacktrail
PKGS    := ./...
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X github.com/stacktrail/stacktrail/agent.version=$(VERSION)

GOFUMPT  := $(GO) run mvdan.cc/gofumpt@v0.12.0
GOLANGCI := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: default build demo test unit race scripts python kill fuzz bench soak generate check lint fmt fmt-check vet install clean need-go need-test

default: fmt-check vet lint unit

# One line that says what is missing and how to get it.
need-go:
	@command -v $(GO) >/dev/null 2>&1 || { echo "stacktrail needs Go 1.26 or newer: https://go.dev/dl, or your distribution's package"; exit 1; }

need-test:
	@bash test/scripts/need.sh

build: need-go
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./agent/cmd/stacktrail

demo: build
	@$(GO) run ./test/demo -agent $(BIN) -config configs/quickstart.yaml -logs test/testdata/real-logs

# Everything that must hold.
test: need-go need-test fmt-check vet unit race scripts python

unit:
	$(GO) test -timeout 20m $(PKGS)

race:
	$(GO) test -timeout 30m -race -tags poison $$($(GO) list ./... | grep -v /test/)

# The real binary from outside: kills, memory, broken configurations, command line.
scripts: need-test build
	STACKTRAIL_BIN=$(CURDIR)/$(BIN) $(GO) test -count=1 -timeout 40m -tags blackbox ./test/scripts/...

# The Python SDK and the example that is written with it, in virtual environments of their own.
python: need-test
	$(MAKE) -C plugins/python test
	$(MAKE) -C plugins/examples/quota test

# Each fuzz target for 20 seconds.
fuzz: need-go
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime 20s -fuzzminimizetime 100x $$pkg; \
	  done; done

bench: build
	STACKTRAIL_BIN=$(CURDIR)/$(BIN) $(GO) run ./test/bench

# What `make test` does for a few seconds, for longer: ten minutes (STACKTRAIL_SOAK=10m) of kills, rotations of every kind and faults, then 50 seeds
# of random kills, power cuts, 10,000 files that come and go, and a backlog of 1 GB. It prints its seed; STACKTRAIL_SEED=… gives another.
SOAK ?= TestC01|TestC02|TestR01ToR11WithKills|TestR12Inodes|TestR21Memory|TestR29
soak: need-test build
	STACKTRAIL_BIN=$(CURDIR)/$(BIN) STACKTRAIL_SOAK=$${STACKTRAIL_SOAK:-10m} STACKTRAIL_SEED=$${STACKTRAIL_SEED:-$$(date +%s)} \
	STACKTRAIL_SEEDS=50 STACKTRAIL_KILL_MB=100 STACKTRAIL_BACKLOG_MB=1000 STACKTRAIL_CHURN=10000 STACKTRAIL_CUTS=10 STACKTRAIL_PLAYS=10 STACKTRAIL_FAST_MB=1000 \
	$(GO) test -count=1 -v -timeout 180m -tags blackbox -run "$(SOAK)" ./test/scripts/...

# READMEs of the plugins, configs/reference, configs/schema.json and plugins/api.txt, from the code. Tests fail when they are stale.
generate: need-go
	$(GO) test -count=1 -run '^TestGeneratedFilesAreFresh$$' ./agent -update
	$(GO) test -count=1 -run '^TestAPIListingIsThatOfTheCode$$' ./plugins -update

# Just these tests: is what is made from the code fresh, and is the API still what plugins are written against?
check: need-go
	$(GO) test -count=1 -run '^TestGeneratedFilesAreFresh$$|^TestAPIListingIsThatOfTheCode$$' ./agent ./plugins

lint: need-go
	$(GOLANGCI) run ./...

fmt: need-go
	$(GOFUMPT) -w .

fmt-check: need-go
	@out="$$($(GOFUMPT) -l .)"; test -z "$$out" || { echo "not formatted (make fmt mends it):"; echo "$$out"; exit 1; }

vet: need-go
	$(GO) vet ./...
	$(GO) vet -tags blackbox,poison ./test/scripts/... ./plugins/...

# For packages: make install DESTDIR=…; a configuration that is there already stays. See configs/systemd.
PREFIX ?= /usr
install: build
	install -D -m 0755 $(BIN) $(DESTDIR)$(PREFIX)/bin/stacktrail
	install -D -m 0644 configs/systemd/stacktrail.service $(DESTDIR)$(PREFIX)/lib/systemd/system/stacktrail.service
	sed -i 's#^ExecStart=/usr/bin/#ExecStart=$(PREFIX)/bin/#' $(DESTDIR)$(PREFIX)/lib/systemd/system/stacktrail.service
	install -D -m 0644 configs/systemd/stacktrail.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/stacktrail.conf
	install -D -m 0644 configs/systemd/stacktrail.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/stacktrail.conf
	install -d -m 0750 $(DESTDIR)/etc/stacktrail/conf.d
	test -e $(DESTDIR)/etc/stacktrail/stacktrail.yaml || install -m 0640 configs/controller.yaml $(DESTDIR)/etc/stacktrail/stacktrail.yaml
	install -d $(DESTDIR)$(PREFIX)/lib/stacktrail/plugins

clean:
	rm -rf bin
