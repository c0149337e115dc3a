# ctrd: `make build` makes bin/, `make demo` shows it, `make test` proves it. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

SWIFT ?= swift
CC ?= cc
STRIP ?= strip
PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local
DESTDIR ?=
BUILD ?= .build
# A crashed program otherwise leaves a backtrace child that holds the output pipe.
export SWIFT_BACKTRACE := enable=no

SWIFT_PROGRAMS := ctrd ctrctl ctr-shim ctrun
PROGRAMS := $(SWIFT_PROGRAMS) ctr-keeper
SWIFT_SOURCES := $(shell find Sources -type f -not -path 'Sources/ctr-keeper/*' 2>/dev/null) Package.swift
KEEPER_SOURCES := $(wildcard Sources/ctr-keeper/*.c Sources/ctr-keeper/*.h)
STAMP := $(BUILD)/release-programs.stamp

.PHONY: help fuzz deps deps-peers deps-proto deps-vm build install demo test unit integration skew-test crashwalk rounds leakcheck bench vm-test \
	proto proto-check format lint docs clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' Makefile

deps: ## install from Debian what the build and the tests need (nothing is done when all is there)
	@tools/deps.sh build

deps-peers: ## install the engines that the bench compares with, and fetch newer containerds and Docker into .build/peers
	@tools/deps.sh peers
	@tools/peers.sh

deps-proto: ## install the protobuf generators
	@tools/deps.sh proto

deps-vm: ## install what boots a virtual machine
	@tools/deps.sh vm

build: $(addprefix bin/,$(PROGRAMS)) ## build the release programs into bin/

# The stamp is as old as the start of the build: what was changed meanwhile is built the next time.
# Static links name every use of dlopen and getpwnam; tools/build.sh filters those lines and nothing else.
$(STAMP): $(SWIFT_SOURCES)
	@mkdir -p $(BUILD); touch $(BUILD)/started
	@tools/build.sh $(SWIFT) build -c release --static-swift-stdlib --scratch-path $(BUILD)
	@touch -r $(BUILD)/started $@

# Copied beside and renamed: a program that is running is replaced, never written into.
define copied
bin/$(1): $(STAMP)
	@mkdir -p bin
	@if [ bin/$(1) -nt $(BUILD)/release/$(1) ]; then touch bin/$(1); else \
		$(STRIP) -o bin/.$(1).new $(BUILD)/release/$(1); mv -f bin/.$(1).new bin/$(1); echo "bin/$(1)"; fi
endef
$(foreach program,$(SWIFT_PROGRAMS),$(eval $(call copied,$(program))))

# No C library: the keeper lives as long as its container and keeps 12 KB.
KEEPER_FLAGS := -std=c11 -Os -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-stack-protector -fno-asynchronous-unwind-tables \
	-fcf-protection=none -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,norelro -Wl,-z,noexecstack -s

bin/ctr-keeper: $(KEEPER_SOURCES) Makefile
	@mkdir -p bin
	@$(CC) $(KEEPER_FLAGS) -o bin/.ctr-keeper.new $(filter %.c,$(KEEPER_SOURCES))
	@mv -f bin/.ctr-keeper.new $@; echo "$@"

install: build ## install the programs and the systemd unit under DESTDIR/PREFIX
	install -d -m 0755 $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 0755 $(addprefix bin/,$(PROGRAMS)) $(DESTDIR)$(PREFIX)/bin
	ln -sf ctr-shim $(DESTDIR)$(PREFIX)/bin/containerd-shim-ctr-v2
	sed 's|@PREFIX@|$(PREFIX)|g' deploy/ctrd.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/ctrd.service
	chmod 0644 $(DESTDIR)$(PREFIX)/lib/systemd/system/ctrd.service

demo: deps build ## a container that outlives the SIGKILL of its manager, step by step (as root)
	@$(PYTHON) tools/demo.py

test: build ## everything that is checked, the fast first; the last line is the total
	@tools/test.sh lint docs $(if $(CI),proto) unit integration crashwalk rounds leakcheck

unit: ## unit tests (debug build)
	@tools/test.sh unit

integration: build ## real containers, driving the programs in bin/
	@tools/test.sh integration

skew-test: build ## the previous release's manager and shims beside this one's (builds that release once)
	@SWIFT="$(SWIFT)" BUILD="$(BUILD)" tools/previous.sh
	@PREVIOUS="$(abspath $(BUILD))/previous/bin" tools/test.sh skew leakcheck

fuzz: ## each parser of foreign bytes under libFuzzer and the address sanitizer, FUZZ_SECONDS each
	@tools/fuzz.sh $(or $(FUZZ_SECONDS),60)

rounds: build ## 200 rounds of SIGKILL under a writer at full speed
	@tools/test.sh rounds

leakcheck: build ## the leak checker's own controls, then the whole host
	@tools/test.sh leakcheck

crashwalk: build ## kill every program at its every call of a kind, all of it (long)
	@$(PYTHON) Tests/Chaos/crashwalk.py

vm-test: build deps-vm ## the programs on Debian 12's kernel with control groups of version 2, in qemu (as root)
	@VM_PLANT="$(VM_PLANT)" $(PYTHON) tools/vm.py

bench: build ## the numbers, beside containerd and podman
	@$(PYTHON) Tests/Bench/bench.py

proto: deps-proto ## regenerate the committed protobuf code
	@tools/build.sh $(SWIFT) build -c release --scratch-path $(BUILD)/proto --product protoc-gen-swift
	@tools/generate-proto.sh $(BUILD)/proto/release/protoc-gen-swift

proto-check: proto ## fail when the committed protobuf code is not what proto/ gives
	@test -z "$$(git status --porcelain -- Sources/CtrProto Sources/CShimProto)" || \
		{ git --no-pager diff --stat -- Sources/CtrProto Sources/CShimProto; \
		  echo "proto-check: generated code differs from what is committed: run make proto and commit" >&2; exit 1; }

format: ## format the Swift sources in place
	@tools/lint.sh --fix

lint: ## what format would change, and the style rules, as errors
	@tools/lint.sh

docs: ## check the links, targets and commands in the Markdown pages
	@$(PYTHON) tools/check-docs.py

clean: ## remove what was built
	rm -rf $(BUILD) bin .pytest_cache
