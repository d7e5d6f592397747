#!/usr/bin/env bash
# One full training run on a machine with a GPU, many cores and no network, in stages that each end within ten minutes.
#
#   here    make gpu-pack                              what that machine lacks, into gpu-pack/; take the repository and it along
#   there   STAGE=clip OUT=back scripts/gpu_run.sh     artwork, pools, CLIP, the judge, embeddings
#           STAGE=decoder OUT=back scripts/gpu_run.sh  the decoder; each further call trains it on
#           STAGE=rest OUT=back scripts/gpu_run.sh     prior, upsamplers, bundle, figures
#   here    scripts/gpu_collect.sh back                after each stage: joins what came back, into runs/gpu
#
# STAGE=check runs everything with micro networks for a few steps: minutes well spent before the others.
# A training step ends by the clock, cool-down included (train.minutes), so a stage takes as long on any machine. What the
# stage made comes back in pieces of 15 MiB with a list of checksums, also when it failed or was interrupted.
#
# Variables beside those of train_icons.sh (DATA, RUNS, INIT, PROFILE=gpu):
#   OUT     where that is put (out/gpu)
#   WHEELS  packages to install beside the machine's own; empty: none (gpu-pack/wheels)
#   CLIP_MINUTES, JUDGE_MINUTES, DECODER_MINUTES, PRIOR_MINUTES, UPSAMPLER_MINUTES    the time of each training step
#   PEAK    the GPU's dense bf16 peak, TFLOP/s (an H200: 990)
set -euo pipefail
cd "$(dirname "$0")/.."

STAGE=${STAGE:?expected check, clip, decoder or rest} OUT=${OUT:-out/gpu} PEAK=${PEAK:-990} WHEELS=${WHEELS-gpu-pack/wheels}
export PROFILE=${PROFILE:-gpu} RUNS=${RUNS:-runs/gpu} DATA=${DATA:-data/icons} PYTHON=${PYTHON:-python3} NICE=${NICE:-0}
export PACKAGES=${PACKAGES-gpu-pack/npm} INIT=${INIT-$([ -d gpu-pack/init ] && echo gpu-pack/init || true)}
CLIP_MINUTES=${CLIP_MINUTES:-1.5} JUDGE_MINUTES=${JUDGE_MINUTES:-1.5} DECODER_MINUTES=${DECODER_MINUTES:-8}
PRIOR_MINUTES=${PRIOR_MINUTES:-1.5} UPSAMPLER_MINUTES=${UPSAMPLER_MINUTES:-1.3}

install() { # the packages that this machine lacks, once, before its own
  local site
  export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
  [ -n "$WHEELS" ] || return 0
  site=$(realpath "$RUNS")/site
  [ -d "$site" ] || "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$WHEELS"/*.whl
  PYTHONPATH="$site:$PYTHONPATH"
}

steps() { # steps MINUTES STEP...
  MINUTES=$1 scripts/train_icons.sh "${@:2}"
}

bring_back() { # what is named in MADE, runs without what only their continuation needs, in pieces
  local name folder="$RUNS/back"
  [ ${#MADE[@]} -gt 0 ] || return 0
  rm -rf "$folder" "$OUT/$STAGE".tar.part-* && mkdir -p "$folder" "$OUT"
  for name in "${MADE[@]}"; do
    if [ -d "$RUNS/$name/checkpoints" ]; then
      "$PYTHON" scripts/slim_run.py "$RUNS/$name" "$folder/$name" || continue
      nice -n "$NICE" "$PYTHON" scripts/mfu.py "$RUNS/$name" --peak "$PEAK" | tee "$folder/$name/mfu.json" || true
    elif [ -d "$RUNS/$name" ]; then
      cp -r "$RUNS/$name" "$folder/$name"
    fi
  done
  tar -C "$folder" -cf - . | split -b 15m - "$OUT/$STAGE.tar.part-"
  (cd "$OUT" && sha256sum "$STAGE".tar.part-* >"$STAGE.sha256")
  du -ch "$OUT"/* | tail -n 1 >&2
}

mkdir -p "$RUNS"
install
MADE=()
trap bring_back EXIT
case $STAGE in
check)
  PROFILE=smoke RUNS=$RUNS/check INIT='' MINUTES='' scripts/train_icons.sh
  ;;
clip)
  MADE=(clip judge)
  steps '' artwork pools
  steps "$CLIP_MINUTES" clip
  steps '' embed
  steps "$JUDGE_MINUTES" judge
  ;;
decoder)
  MADE=(decoder)
  steps "$DECODER_MINUTES" decoder
  ;;
rest)
  MADE=(prior upsampler-64 upsampler-256 upsampler-1024 figures)
  steps "$PRIOR_MINUTES" prior
  steps "$UPSAMPLER_MINUTES" upsamplers
  steps '' pack evaluate
  ;;
*)
  echo "error: STAGE=$STAGE: expected check, clip, decoder or rest" >&2
  exit 2
  ;;
esac
