# CommuCat. Needs Go and git; what tests need beyond that is installed by "make deps".
#
#   make build    all programs into bin/
#   make run      a relay on an empty data folder
#   make test     everything: lint (with vet), tests with the race detector, budgets and
#                 loads without it, interop, fuzz smoke, modules
#   make demo     a relay and two clients on this machine, through every transport
#   make bench    the load generator's report
#   make clean    removes what the others made

SHELL := /bin/sh
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
PROGRAMS := $(notdir $(wildcard cmd/*))
# They run only because plugins.lock beside them lists them.
PLUGINS := $(filter commucat-transport-% commucat-storage-% commucat-ledger-%,$(PROGRAMS))
GOLANGCI := v2.15.0
LINT := bin/tools/golangci-lint-$(GOLANGCI)
# Seconds for each fuzz target of the smoke run; there are some seventy.
FUZZTIME ?= 1
# For one package; the race detector makes everything several times slower.
TEST_TIMEOUT ?= 15m
# Packages tested at once: most tests wait more than they compute.
TEST_PACKAGES ?= 4
# They take longest, and come first: at the end one of them would run alone.
SLOW := sdk/host plugins/transport/reality plugins/storage/sqlite plugins/transport/amnesiawg \
	plugins/transport/masque core/pluginhost examples/transport-tls plugins/storage/postgres

# One way to build for programs, tests, linter and peers, so that each package is
# compiled once; the race detector's build is the only other one.
export GOFLAGS ?= -mod=readonly -trimpath
export CGO_ENABLED := 0
export GOTOOLCHAIN ?= local

.DEFAULT_GOAL := build
.PHONY: build run test vet lint unit interop fuzz generate modules modules-update docs deps demo bench clean

build:
	@mkdir -p bin
	@for p in $(PROGRAMS); do \
		echo "build $$p"; \
		$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/$$p ./cmd/$$p || exit 1; \
	done
	@bin/commucat plugin add $(PLUGINS:%=bin/%)

# The data folder is new each time; DATA=… keeps one.
run: build
	@data="$(DATA)"; [ -n "$$data" ] || data=$$(mktemp -d); echo "data: $$data" >&2; exec bin/commucat serve --data "$$data"

test: deps lint unit interop fuzz build modules
	@echo "all tests passed"

deps:
	@.ci/deps

# For a quick look; lint runs the same analyzers (govet) and more, and needs no second pass
# over what the project imports.
vet:
	$(GO) vet ./...

lint: $(LINT)
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }
	$(LINT) run ./...

$(LINT):
	@mkdir -p bin/tools
	GOFLAGS=-trimpath GOBIN=$(CURDIR)/bin/tools $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
	@mv bin/tools/golangci-lint $@

# Everything with the race detector; without it what the detector would spoil: budgets of
# memory, and loads whose full count it makes too slow. They are found by their names,
# which core/internal/house insists on. Vet is part of lint. The detector would make every
# process wait for a second when it ends.
PLAIN := Test(Budget|Load)
# SQLite itself, translated C without a goroutine, is spared the detector's instructions:
# its tests take a third of the time. That is for no package that uses generic types of the
# standard library: the linker might take its plain copy of their code for everybody.
unit:
	CGO_ENABLED=1 GORACE="atexit_sleep_ms=10 $$GORACE" $(GO) test -race -gcflags=modernc.org/sqlite/lib=-race=false -vet=off -p $(TEST_PACKAGES) -timeout $(TEST_TIMEOUT) $(SLOW:%=./%) ./...
	$(GO) test -vet=off -p $(TEST_PACKAGES) -timeout $(TEST_TIMEOUT) -run "^$(PLAIN)" \
		$$(git grep -lE "^func $(PLAIN)" -- '*_test.go' | xargs -n1 dirname | sort -u | sed 's,^,./,')

# Peers that others wrote live in modules of their own, so that what they need stays
# out of the project's.
interop:
	@for m in $$(git ls-files '*interop/go.mod' '*interop/*/go.mod'); do \
		echo "interop $$(dirname $$m)"; \
		(cd $$(dirname $$m) && $(GO) test -vet=off -timeout $(TEST_TIMEOUT) ./...) || exit 1; \
	done

fuzz:
	@.ci/fuzz $(FUZZTIME)

# The code beside the protobuf sources; compiler and generators are pinned by the
# module sdk/internal/wire/generate.
generate:
	cd sdk/internal/wire/generate && $(GO) run . ../wirepb

# Which modules reach which program: a new one shows in review. The modules of peers use
# the project's, and follow where it moves a version that both need.
modules: build
	@.ci/modules check

modules-update: build
	@.ci/modules update

# The pages that are made from the source.
docs:
	$(GO) test ./core/config -run TestDescriptionsAgree -update
	$(GO) test ./cmd/commucat -run TestPluginKeys -update

demo: build
	bin/commucat demo $(DEMOFLAGS)

bench: build
	bin/commucat bench $(BENCHFLAGS)

clean:
	rm -rf bin
	$(GO) clean -testcache
