#!/usr/bin/env bash
# Text-video retrieval on LSMDC. Paths, beside those of scripts/fine_tune.sh:
#   ANNOTATIONS (folder of the LSMDC16_*.csv), VIDEOS, OBJECT_PATH ({split}/inference/... below it, or flat)
set -euo pipefail
source "$(dirname "$0")/fine_tune.sh"
fine_tune eval_retrieval --datatype lsmdc_retrieval --epochs 5 --batch_size 8 --batch_size_val 32 --max_words 32 \
  --num_thread_reader 4 --eval_every 250 --save_every 500 \
  --data_path "${ANNOTATIONS:-$VIDEO_DATA/LSMDC}" --features_path "${VIDEOS:-$VIDEO_DATA/LSMDC/LSMDC_Videos}" \
  --object_path "${OBJECT_PATH:-$OBJECTS/lsmdc_videos}" "${OBJECT_FLAGS[@]}" "$@"
