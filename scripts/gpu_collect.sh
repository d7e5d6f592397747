#!/usr/bin/env bash
# Joins what gpu_run.sh brought back: checks every piece, unpacks the runs into RUNS (runs/gpu).
#
#   scripts/gpu_collect.sh FOLDER
#   RUNS=runs/gpu scripts/train_icons.sh pack evaluate      then: the bundle, and its figures
set -euo pipefail
from=$(cd "${1:?the folder that came back}" && pwd)
cd "$(dirname "$0")/.."
RUNS=${RUNS:-runs/gpu}
mkdir -p "$RUNS"
found=0
for sums in "$from"/*.sha256; do
  [ -e "$sums" ] || continue
  (cd "$from" && sha256sum --check --quiet "$sums")
  cat "${sums%.sha256}".tar.part-* | tar -x -m -C "$RUNS" -f -
  found=1
done
[ "$found" = 1 ] || { echo "error: $from holds no *.sha256: expected what gpu_run.sh left in OUT" >&2; exit 2; }
for run in "$RUNS"/*/; do
  [ ! -e "$run/mfu.json" ] || cat "$run/mfu.json"
done
