#!/bin/sh
# `tessera` with the kernels that were compiled at build time.  Numba wants to write beside them, and the image is
# read-only: so they are copied, some MB, to memory.
set -eu
ulimit -c 0
kernels=${TESSERA_KERNELS:-/opt/tessera/kernels}
NUMBA_CACHE_DIR=$(mktemp -d "${TMPDIR:-/tmp}/kernels.XXXXXX")
export NUMBA_CACHE_DIR
[ ! -d "$kernels" ] || cp -R "$kernels/." "$NUMBA_CACHE_DIR/"
exec tessera "$@"
