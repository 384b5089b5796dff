# On a fresh Debian machine with a Rust toolchain, `make demo` shows the main job and `make test` passes all tests.
# Both install what they need from Debian packages.

HOST := $(shell rustc -vV | sed -n 's/^host: //p')
RBUILD := $(CURDIR)/target/$(HOST)/release/rbuild
# Where the offline base images and the demo's store are.
export RBUILD_BASES ?= $(CURDIR)/target/bases

.PHONY: build bases demo test check unit e2e fuzz bench clean

## build: the static release binary, also as target/release/rbuild
build: $(RBUILD)
	mkdir -p target/release && ln -sf $(RBUILD) target/release/rbuild

$(RBUILD): FORCE
	scripts/packages gcc
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target $(HOST) -p cli

FORCE:

## bases: base images without a registry, in the store: busybox, alpine, debian, ubuntu
bases: build
	scripts/bases $(RBUILD)

## demo: build, run, push and rebuild the memcached example
demo: build
	scripts/demo $(RBUILD)

## test: everything that CI checks
test: check unit e2e fuzz

check:
	cargo fmt --all --check
	cargo fmt --manifest-path parser/fuzz/Cargo.toml --check
	cargo fmt --manifest-path executor/fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/deny

unit:
	scripts/packages gcc busybox-static uidmap docker-registry git openssh-client python3 python3-pip
	scripts/moto target/moto
	scripts/actions-cache target/actions-cache
	scripts/cargo-test --workspace --exclude cli

e2e:
	scripts/packages gcc busybox-static uidmap qemu-user-static docker-registry skopeo umoci buildah procps curl git openssh-server openssh-client xz-utils zstd bzip2 passt python3 python3-pip chromium graphviz e2fsprogs
	scripts/e2e

## fuzz: the parser and the reader of archives against hostile input, FUZZ_SECONDS for each target
FUZZ_SECONDS ?= 10
fuzz:
	scripts/fuzz $(FUZZ_SECONDS)

## bench: how long parsing takes, and the digest and the copies of a context
bench:
	cargo bench --locked -p parser
	cargo run --locked --release -p executor --example measure_context

clean:
	cargo clean
