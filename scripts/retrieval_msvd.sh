#!/usr/bin/env bash
# Text-video retrieval on MSVD, all captions of each video. Paths, beside those of scripts/fine_tune.sh:
#   ANNOTATIONS (folder of {train,val,test}_list.txt and raw-captions.pkl), VIDEOS, OBJECT_PATH
set -euo pipefail
source "$(dirname "$0")/fine_tune.sh"
fine_tune eval_retrieval --datatype msvd_retrieval --epochs 5 --batch_size 8 --batch_size_val 32 --max_words 32 \
  --num_thread_reader 4 --eval_every 250 --save_every 500 \
  --data_path "${ANNOTATIONS:-$VIDEO_DATA/MSVD}" --features_path "${VIDEOS:-$VIDEO_DATA/MSVD/MSVD_Videos}" \
  --object_path "${OBJECT_PATH:-$OBJECTS/msvd_videos}" "${OBJECT_FLAGS[@]}" "$@"
