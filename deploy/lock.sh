#!/bin/sh
# What servers install, by hashes, from pyproject.toml: the newest that is allowed there, or with --check, whether what is
# locked is still what pyproject.toml asks for.  `pip install uv` first.
set -eu
cd "$(dirname "$0")"

# write SOURCE FILE [OPTION...]: versions that FILE has already stay, if they are allowed.
write() {
    source=$1 file=$2
    shift 2
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
        --custom-compile-command deploy/lock.sh --output-file "$file" "$@" "$source"
}

pins() { grep -o '^[^ ]*==[^ ]*' "$1"; }

if [ "${1:-}" = --check ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cp requirements.lock build.lock "$work"
    write ../pyproject.toml "$work/requirements.lock" --extra service
    write build.in "$work/build.lock"
    for lock in requirements.lock build.lock; do
        pins "$lock" >"$work/is"
        pins "$work/$lock" >"$work/wanted"
        diff "$work/is" "$work/wanted" || { echo "deploy/$lock and pyproject.toml disagree: run deploy/lock.sh" >&2; exit 1; }
    done
else
    write ../pyproject.toml requirements.lock --extra service --upgrade
    write build.in build.lock --upgrade
fi
