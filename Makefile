# The only door: `make help` says what is behind it. CI and the README call these targets and nothing else.
#
# Assumed: cargo, a C compiler, git, make, bash; Debian 12 or alike with apt; root (the tests mount tmpfs, give
# files away, and make network namespaces). Everything else is brought by tests/packages*.sh, into target/
# where possible.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

CARGO ?= cargo
TARGET := target
# What `make images` builds with, and how it calls the images; the manifests name the same.
ENGINE ?= docker
VERSION ?= 0.1.0
BUILT := $(or $(CARGO_TARGET_DIR),target)/debug
# The scripts that bring up a cluster, and the folder with its four binaries. Without them `make test` says
# loudly that the cluster part did not run.
CLUSTER ?= ../shared/cluster
K8S_BIN ?= $(TARGET)/k8s
# How long the long-running parts of `make test` and `make fuzz` take.
LONG_SECONDS ?= 100
FUZZ_SECONDS ?= 600
# How many histories `make simulate` runs.
HISTORIES ?= 2000
KILLS ?= 1000
SEED ?= 1

# Names of the integration tests in some folders: NAME.rs or NAME/main.rs.
tests_in = $(sort $(foreach dir,$(1),$(patsubst $(dir)/%.rs,%,$(wildcard $(dir)/*.rs)) $(patsubst $(dir)/%/main.rs,%,$(wildcard $(dir)/*/main.rs))))
UNIT_TESTS := $(call tests_in,$(addsuffix /tests,proto broker node-agent flexvolume))
CLUSTER_TESTS := cluster kube_api
STORIES := $(filter-out $(CLUSTER_TESTS),$(call tests_in,tests/tests))
LONG := $(filter torture simulate fuzz,$(notdir $(basename $(wildcard tests/src/bin/*))))

.PHONY: help build driver agent manifests images packages packages-cluster packages-python cluster-binaries
.PHONY: test test-build test-unit test-stories test-long test-cluster cluster-test cluster-test-full check fmt clippy doc deny advisories demo bench fuzz torture simulate

help:
	@echo 'make demo      a realm, a broker, an agent and a pod, on this machine'
	@echo 'make test      everything: units, stories on a real KDC, torture, fuzzing, a real cluster'
	@echo 'make cluster-test  what an operator installs, on a real cluster of two nodes (STORY=, KRB_CLUSTER_KEEP=1)'
	@echo 'make cluster-test-full  the long stories, too'
	@echo 'make check     fmt, clippy, doc, licences, advisories'
	@echo 'make bench     the budgets, measured'
	@echo 'make simulate  keys and leases in virtual time: a day of losses, then $(HISTORIES) histories (HISTORIES=, SEED=)'
	@echo 'make fuzz      $(FUZZ_SECONDS) s of fuzzing (FUZZ_SECONDS=, SEED=)'
	@echo 'make torture   $(KILLS) kills of the broker under load on a real KDC (KILLS=, SEED=)'
	@echo 'make build     all programs; the driver static, in $(TARGET)/dist'
	@echo 'make agent     the node agent static, in $(TARGET)/dist'
	@echo 'make images    container images (ENGINE=docker, VERSION=$(VERSION))'
	@echo 'make manifests deploy/*.yaml from deploy/kustomize (needs kubectl)'
	@echo 'Needs: cargo, cc, git, make, bash; Debian with apt; root for demo, test and bench.'

# ---- What must be there

define need_root
@[ "$$(id -u)" = 0 ] || { echo 'make $@: needs root: it mounts tmpfs, gives files away and makes network namespaces' >&2; exit 1; }
endef

packages:
	@command -v apt-get >/dev/null || { echo 'make packages: needs Debian or alike with apt' >&2; exit 1; }
	@command -v cc >/dev/null || { echo 'make packages: needs a C compiler (cc)' >&2; exit 1; }
	bash tests/packages.sh
	bash tests/packages-python.sh

packages-cluster:
	@if [ -f '$(CLUSTER)/up.sh' ]; then bash tests/packages-cluster.sh; fi

cluster-binaries:
	@bash tests/cluster-binaries.sh '$(CLUSTER)' '$(K8S_BIN)'

# ---- Build

build: driver
	$(CARGO) build --locked --workspace --bins

driver:
	bash flexvolume/build.sh $(TARGET)/dist/krb-flexvolume

agent:
	bash node-agent/build.sh $(TARGET)/dist/krb-node-agent

manifests:
	bash deploy/render.sh deploy

images:
	@command -v '$(ENGINE)' >/dev/null || { echo 'make images: needs docker, or another by ENGINE=' >&2; exit 1; }
	$(ENGINE) build -f deploy/docker/broker.Dockerfile -t krb-broker:$(VERSION) .
	$(ENGINE) build -f deploy/docker/node-agent.Dockerfile -t krb-node-agent:$(VERSION) .

# ---- Test. Budget on 2 cores from an empty target: build 30 min, units 5, stories 12, long 6, cluster 20.
# All stages select from the whole workspace, so that everything is compiled once, with the same features.

TEST := $(CARGO) test --locked --workspace --no-fail-fast

define stage
@SECONDS=0; $(MAKE) $(1) && echo "*** $(1): $$SECONDS s"
endef

TEST_STAGES := test-unit test-stories test-long test-cluster

# A stage that fails does not hide what the others would say.
test:
	$(need_root)
	$(call stage,packages packages-cluster cluster-binaries)
	$(call stage,build)
	$(call stage,test-build)
	@failed=; \
	for stage in $(TEST_STAGES); do \
		SECONDS=0; $(MAKE) $$stage || failed="$$failed $$stage"; echo "*** $$stage: $$SECONDS s"; \
	done; \
	[ -z "$$failed" ] || { echo "*** FAILED:$$failed" >&2; exit 1; }

test-build:
	$(TEST) --no-run

test-unit:
	$(TEST) --lib --bins $(addprefix --test ,$(UNIT_TESTS))
	$(TEST) --doc

test-stories:
	$(TEST) $(addprefix --test ,$(STORIES))

test-long: $(addprefix long-,$(LONG))

# Built by `make build`. The same histories each time, as many as the time allows: `make simulate` finds new ones.
long-simulate:
	$(BUILT)/simulate --histories 600 --seconds $(LONG_SECONDS) --seed $(SEED)

long-%:
	$(BUILT)/$* --seconds $(LONG_SECONDS) --seed $(SEED)

test-cluster: cluster-test

# On the cluster that the scripts of CLUSTER bring up. STORY=part_of_a_name; with KRB_CLUSTER_KEEP=1 the cluster
# stays for the next run.
cluster-test: packages-cluster cluster-binaries
	$(CLUSTER_TEST)

cluster-test-full: packages-cluster cluster-binaries
	KRB_CLUSTER_FULL=1 $(CLUSTER_TEST)

CLUSTER_TEST = CLUSTER='$(CLUSTER)' K8S_BIN='$(K8S_BIN)' $(TEST) $(addprefix --test ,$(CLUSTER_TESTS)) -- $(STORY)

# ---- Check

check: fmt clippy doc deny advisories

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings

doc:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps

# cargo-deny is built into target/tools once (5 min on 2 cores) unless the machine has one.
DENY := PATH="$$PATH:$(CURDIR)/$(TARGET)/tools/bin" $(CARGO) deny

deny: | cargo-deny
	$(DENY) --locked check bans licenses sources

# The advisories are a git repository on the internet: where it can't be reached this says so and goes on;
# with REQUIRE_ADVISORIES=1 it fails.
advisories: | cargo-deny
	@if $(DENY) --locked fetch db 2>$(TARGET)/advisories.log; then \
		$(DENY) --locked check --disable-fetch advisories; \
	else \
		tail -n 3 $(TARGET)/advisories.log >&2; \
		echo '*** check: ADVISORIES NOT CHECKED: the RustSec database could not be fetched' >&2; \
		[ -z '$(REQUIRE_ADVISORIES)' ]; \
	fi

.PHONY: cargo-deny
cargo-deny:
	@PATH="$$PATH:$(CURDIR)/$(TARGET)/tools/bin"; command -v cargo-deny >/dev/null \
		|| $(CARGO) install cargo-deny --version 0.20.2 --locked --root $(TARGET)/tools

# ---- Run

demo: packages build
	$(need_root)
	$(BUILT)/demo

bench: packages driver
	$(need_root)
	$(CARGO) build --locked --release $(addprefix --package krb-,broker node-agent tests) $(addprefix --bin ,krb-broker krb-node-agent bench)
	KRB5_CONFIG=tests/empty.krb5.conf $(dir $(BUILT))release/bench

fuzz:
	$(CARGO) run --locked --release --quiet --package krb-tests --bin fuzz -- --cases 1000000000 --seconds $(FUZZ_SECONDS) --seed $(SEED)

torture: packages build
	$(need_root)
	$(BUILT)/torture --kills $(KILLS) --seed $(SEED) --seconds 86400

simulate:
	$(CARGO) run --locked --quiet --package krb-tests --bin simulate -- --histories $(HISTORIES) --seconds 86400 --seed $(SEED)
