#!/usr/bin/env bash
# From a fresh clone to a pre-trained model: bash scripts/quickstart.sh [--smoke] [--compare]
#
# Sets up .venv, renders a world of captioned demo clips with detections, writes shards, pre-trains a small model with
# objects and actions, and prints zero-shot retrieval on held-out clips. 15 minutes on 2 cores; run again it goes on
# where it was. --smoke: the same path on a handful of clips. --compare: adds a run without objects and actions.
# Results: output/quickstart/summary.json (OUTPUT_DIR changes the folder).
set -euo pipefail
START=$(date +%s)
SMOKE="" COMPARE=""
for argument in "$@"; do
  case "$argument" in
    --smoke) SMOKE=1 ;;
    --compare) COMPARE=1 ;;
    *) echo "unknown argument $argument; usage: bash scripts/quickstart.sh [--smoke] [--compare]" >&2; exit 2 ;;
  esac
done
OUT="${OUTPUT_DIR:-output/quickstart$([ -z "$SMOKE" ] || echo -smoke)}"
case "$OUT" in /*) ;; *) OUT="$PWD/$OUT" ;; esac
source "$(dirname "$0")/environment.sh" requirements.txt
mkdir -p "$OUT"
FRAMES=8 RATE=2 # of 12 candidates in the 6 s of a clip
if [ -n "$SMOKE" ]; then CLIPS=96 HELD_OUT=12 EPOCHS=2 BATCH=16 SHOW=4; else CLIPS=2000 HELD_OUT=100 EPOCHS=12 BATCH=32 SHOW=20; fi

: > "$OUT/seconds.tsv"
stage() { # name, command...: run it and note its seconds
  local name="$1" begin
  begin=$(date +%s)
  shift
  echo "== $name"
  "$@"
  printf '%s\t%s\n' "$name" "$(($(date +%s) - begin))" >> "$OUT/seconds.tsv"
}
printf 'setup\t%s\n' "$(($(date +%s) - START))" >> "$OUT/seconds.tsv"

pretrain() { # output folder, further flags...
  local folder="$1"
  shift
  "$PY" tasks/pre_training.py --do_train --output_dir "$folder" --num_thread_reader 1 \
    --epochs "$EPOCHS" --batch_size "$BATCH" --batch_size_val 50 --n_display "$SHOW" --eval_every 200 \
    --clip_archive "$OUT/clip.pt" --train_csv "$OUT/shards" --data_path "$OUT/shards/frozen_train_labels.json" \
    --val_csv "$OUT/demo/msrvtt/test.csv" --val_features_path "$OUT/demo/msrvtt/videos" \
    --feature_framerate "$RATE" --max_frames "$FRAMES" --max_words 32 --fusion_layers 2 \
    --lr 1e-3 --coef_lr 1 --fusion_lr 1e-3 --weight_decay 0.05 --dropout 0.1 --contrastive_weight 2 --freeze_layer_num -1 "$@"
}

stage render "$PY" utils/make_demo_data.py --output_dir "$OUT/demo" --train_clips "$CLIPS" --val_clips "$HELD_OUT" \
  --test_clips "$HELD_OUT" --feature_framerate "$RATE" --max_frames "$FRAMES" --workers 2
stage clip "$PY" utils/make_random_clip.py --preset demo --text_width 64 --output "$OUT/clip.pt"
stage shards "$PY" utils/webvid_to_tfrecord.py --csv "$OUT/demo/webvid/results_demo_train.csv" \
  --video_dir "$OUT/demo/webvid/videos" --output_dir "$OUT/shards" --size 96 --feature_framerate "$RATE" --workers 2
stage pretrain pretrain "$OUT/pretrain" --need_object --use_action --object_count 5 \
  --labelmap_path "$OUT/demo/label_map.json" --object_path "$OUT/demo/webvid/objects" \
  --val_object_path "$OUT/demo/msrvtt/objects"
if [ -n "$COMPARE" ]; then
  stage pretrain_without_objects pretrain "$OUT/pretrain_without_objects"
fi
"$PY" utils/summarise_quickstart.py "$OUT"
