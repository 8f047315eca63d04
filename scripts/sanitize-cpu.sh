#!/usr/bin/env bash
# Checks the memory accesses of fused-ops' CPU kernels.
#
# Miri interprets the kernels at small shapes, with portable instructions, since it does not support AVX-512. It finds reads of
# uninitialized memory, out-of-bounds accesses, and references that must not coexist. AddressSanitizer runs every test of the operations with each
# instruction set of this machine. It finds out-of-bounds accesses.
#
# Usage: sanitize-cpu.sh [miri|address]        both by default
#
# Needs a nightly toolchain: rustup toolchain install nightly --component miri,rust-src. SANITIZE_TOOLCHAIN selects another one.
set -euo pipefail
cd "$(dirname "$0")/.."
toolchain=${SANITIZE_TOOLCHAIN:-nightly}
target=${CARGO_TARGET_DIR:-target}
host=$(rustc "+$toolchain" -vV | sed -n 's/^host: //p')

step() {
    printf '\n== %s\n' "$*"
    "$@"
}

under_miri() {
    # rayon's threads outlive the tests, and its queues cast integers to pointers. Miri has no mallopt. With two threads, it
    # would mostly interpret the waiting of the one that has nothing to do.
    export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-ignore-leaks -Zmiri-permissive-provenance"
    export FUSED_OPS_INSTRUCTIONS=portable FUSED_OPS_FREED_MEMORY=return RAYON_NUM_THREADS=1
    step cargo "+$toolchain" miri test -p fused-ops --target-dir "$target/miri" --lib -- sanitizer_tests
}

under_address_sanitizer() {
    # Memory that glibc keeps would hide uses after free.
    export RUSTFLAGS=-Zsanitizer=address FUSED_OPS_FREED_MEMORY=return
    step cargo "+$toolchain" test -p fused-ops --target-dir "$target/address" --target "$host" --lib \
        --test against_reference --test quantized --test low_rank --test fused_normalisations --test around_the_unet
}

case ${1:-both} in
    miri) under_miri ;;
    address) under_address_sanitizer ;;
    both)
        (under_miri)
        (under_address_sanitizer)
        ;;
    *)
        echo "usage: ${0##*/} [miri|address]" >&2
        exit 2
        ;;
esac
