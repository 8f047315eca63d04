#!/usr/bin/env bash
# Looks for races between threads.
#
# shuttle runs what is synchronized by hand (a model's thread, work ahead, parallel downloads) in thousands of interleavings,
# with the atomics, mutexes and channels replaced by its own. It finds deadlocks, lost messages and wrong orders.
# ThreadSanitizer watches the libraries' tests at small shapes on real threads, standard library included. It finds memory
# that two threads use at once; sanitize-threads.txt names what is other libraries' own.
#
# Usage: sanitize-threads.sh [interleavings|sanitizer]        both by default
#
# shuttle needs no other toolchain. The sanitizer needs a nightly one, with the sources of the standard library, and LLVM's
# symbolizer: rustup toolchain install nightly --component rust-src. SANITIZE_TOOLCHAIN selects another toolchain.
set -euo pipefail
cd "$(dirname "$0")/.."
toolchain=${SANITIZE_TOOLCHAIN:-nightly}
target=${CARGO_TARGET_DIR:-target}

step() {
    printf '\n== %s\n' "$*"
    "$@"
}

interleavings() {
    export RUSTFLAGS="--cfg shuttle"
    step cargo test -p model-files -p altclip-encoder -p altdiffusion-server --target-dir "$target/shuttle" --lib -- interleavings
}

under_thread_sanitizer() {
    local host suppressions=$PWD/scripts/sanitize-threads.txt
    host=$(rustc "+$toolchain" -vV | sed -n 's/^host: //p')
    command -v llvm-symbolizer >/dev/null || {
        echo "error: expected llvm-symbolizer, by whose names reports of other libraries are recognized" >&2
        exit 1
    }
    # A report ends the test program with 66, after its other tests. On few cores, too, threads have to meet.
    export TSAN_OPTIONS="suppressions=$suppressions:exitcode=66:external_symbolizer_path=$(command -v llvm-symbolizer)"
    export RUSTFLAGS=-Zsanitizer=thread RAYON_NUM_THREADS=4
    tests() {
        step cargo "+$toolchain" test -Zbuild-std --target-dir "$target/thread" --target "$host" "$@"
    }
    tests -p fused-ops --lib --test against_reference --test quantized --test low_rank --test fused_normalisations \
        --test around_the_unet
    tests -p model-files --lib --test hub
    tests -p altclip-encoder --lib --test embedder --test rows --test dual_encoders
    tests -p altdiffusion-pipeline --lib --test pipeline --test unet --test vae
    tests -p embedding-index --lib --test jobs
    tests -p altclip-training --lib --test parallel
    tests -p altdiffusion-server --lib
}

case ${1:-both} in
    interleavings) interleavings ;;
    sanitizer) under_thread_sanitizer ;;
    both)
        (interleavings)
        (under_thread_sanitizer)
        ;;
    *)
        echo "usage: ${0##*/} [interleavings|sanitizer]" >&2
        exit 2
        ;;
esac
