#!/usr/bin/env bash
# Builds the command and packs it for a release: program, completions, man pages, README and licences.
#
#     scripts/release.sh [FOLDER]            # by default target/release-archive
#
# Writes FOLDER/altdiffusion-VERSION-TARGET.tar.gz and its SHA-256 sum. Everything in the archive has the time of the last
# commit, so that the same program gives the same archive. PROGRAM names one that is built already; its features are those
# it was built with.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-target/release-archive}

program=${PROGRAM:-}
if [ -z "$program" ]; then
    cargo build --release --locked
    program=${CARGO_TARGET_DIR:-target}/release/altdiffusion
fi
version=$("$program" --version | head -n 1 | cut -d' ' -f2)
target=$(rustc -vV | sed -n 's/^host: //p')
name=altdiffusion-$version-$target

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/$name
mkdir -p "$root/completions" "$root/man" "$folder"
install -m 755 "$program" "$root/altdiffusion"
strip "$root/altdiffusion"
for shell in bash zsh fish elvish powershell; do
    "$program" completions "$shell" >"$root/completions/altdiffusion.$shell"
done
"$program" manual --output "$root/man"
cp README.md README.zh-CN.md LICENSE* "$root"

time=$(git log -1 --format=%ct)
tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$time" --directory "$work" "$name" |
    gzip --no-name --best >"$folder/$name.tar.gz"
(cd "$folder" && sha256sum "$name.tar.gz" | tee "$name.tar.gz.sha256")
