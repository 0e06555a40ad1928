# make all     builds the programs for PREFIX (release)
# make check   formatting, lints, tests, documentation, manual pages (never builds release)
# make check-pam  what is different in a build with PAM; needs libpam and its development files
# make demo    sends mail the whole way, shows each step, and ends
# make run     the same set-up, which stays up until ^C
# make bench   measurements
# make fuzz    every fuzz target for FUZZ_SECONDS; cargo-fuzz and a C++ compiler first
# make clean   removes what was built
#
# make install    puts what `all` built where it belongs; see hikyaku(7)
# make uninstall  takes it away again, but for configuration, queue and accounts

PREFIX = /usr/local
SYSCONFDIR = $(PREFIX)/etc
# For packages: a directory that stands in for /.
DESTDIR =
CARGO = cargo
# What the programs have beyond the usual: pam, or nothing.
FEATURES =
# How long each fuzz target runs, and which ones do.
FUZZ_SECONDS = 60
FUZZ_TARGETS = addresses aliases cache command data forward header imap_command imap_session index mbox proxy search session structure
# Where `install` finds the programs.
BIN = $(or $(CARGO_TARGET_DIR),target)/release

all:
	HIKYAKU_PREFIX="$(PREFIX)" HIKYAKU_SYSCONFDIR="$(SYSCONFDIR)" \
		$(CARGO) build --locked --release --bins --features "$(FEATURES)"

# Whoever installs may not be who built: nothing is built here.
install:
	@PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" DESTDIR="$(DESTDIR)" BIN="$(BIN)" \
		sh etc/install.sh

uninstall:
	@PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" DESTDIR="$(DESTDIR)" \
		sh etc/install.sh remove

# More tests at once than there are processors: many of them wait for other people's programs.
check: tools
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(nproc)))} $(CARGO) test --locked
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps
	@if command -v mandoc >/dev/null 2>&1; then \
		echo "mandoc -T lint -W warning man/*"; \
		mandoc -T lint -W warning man/* && echo "The manual pages are clean."; \
	elif [ "$$CI" = true ]; then \
		echo "mandoc is missing: the manual pages can't be checked" >&2; exit 1; \
	else \
		echo "mandoc is missing: the manual pages were not checked"; \
	fi

# The same for a build with PAM, as far as it is another one.
check-pam: tools
	$(CARGO) clippy --locked --all-targets --features pam -- -D warnings
	$(CARGO) test --locked --features pam --lib -- auth:: config::
	$(CARGO) test --locked --features pam --test pam

# A minimal toolchain has neither rustfmt nor clippy; rustup can add them.
tools:
	@$(CARGO) fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@$(CARGO) clippy --version >/dev/null 2>&1 || rustup component add clippy

demo:
	$(CARGO) build --locked --bins --example demo
	$(CARGO) run --locked --quiet --example demo

run:
	$(CARGO) build --locked --bins --example demo
	$(CARGO) run --locked --quiet --example demo -- --stay

bench:
	tests/bench/run
	tests/bench/receive
	tests/bench/relay
	tests/bench/deliver
	$(CARGO) build --locked --release --example store_bench --example imap_bench
	tests/bench/store
	tests/bench/imap

# By the stable toolchain: no sanitizer. What is new goes below fuzz/target; the corpora in the tree
# stay as they are.
fuzz: fuzz-tools
	@for target in $(FUZZ_TARGETS); do \
		found=fuzz/target/corpus/$$target; \
		mkdir -p $$found || exit 1; \
		echo "cargo fuzz run $$target"; \
		$(CARGO) fuzz run -s none $$target $$found fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -max_len=4096 || exit 1; \
	done

fuzz-tools:
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { \
		echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2; exit 1; }
	@command -v c++ >/dev/null 2>&1 || { \
		echo "a C++ compiler is missing, for libFuzzer (on Debian: apt-get install g++)" >&2; \
		exit 1; }

clean:
	$(CARGO) clean

.PHONY: all install uninstall check check-pam tools demo run bench fuzz fuzz-tools clean
