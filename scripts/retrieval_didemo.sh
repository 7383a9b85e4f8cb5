#!/usr/bin/env bash
# Video-paragraph retrieval on DiDeMo. Paths, beside those of scripts/fine_tune.sh:
#   ANNOTATIONS (folder of {train,val,test}_list.txt and _data.json), VIDEOS (folder of videos, or LMDB of containers),
#   OBJECT_PATH ({split}/inference/... below it, or flat)
set -euo pipefail
source "$(dirname "$0")/fine_tune.sh"
fine_tune eval_retrieval --datatype didemo_retrieval --epochs 5 --batch_size 8 --batch_size_val 8 --max_words 64 \
  --num_thread_reader 2 --eval_every 1000000 --save_every 1000 \
  --data_path "${ANNOTATIONS:-$VIDEO_DATA/DiDeMo/txt_db/didemo_retrieval}" \
  --features_path "${VIDEOS:-$VIDEO_DATA/DiDeMo/vis_db/didemo}" \
  --object_path "${OBJECT_PATH:-$OBJECTS/didemo_videos}" "${OBJECT_FLAGS[@]}" "$@"
