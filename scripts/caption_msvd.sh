#!/usr/bin/env bash
# Captioning on MSVD. Greedy, as released; beam search by further arguments: bash scripts/caption_msvd.sh --beam_size 5
# Paths, beside those of scripts/fine_tune.sh:
#   ANNOTATIONS (folder of {train,val,test}_list.txt and raw-captions.pkl), VIDEOS, OBJECT_PATH
set -euo pipefail
source "$(dirname "$0")/fine_tune.sh"
fine_tune eval_captioning --datatype msvd_caption --epochs 10 --batch_size 6 --batch_size_val 32 --max_words 32 \
  --num_thread_reader 4 --eval_every 500 --save_every 1000 \
  --data_path "${ANNOTATIONS:-$VIDEO_DATA/MSVD}" --features_path "${VIDEOS:-$VIDEO_DATA/MSVD/MSVD_Videos}" \
  --object_path "${OBJECT_PATH:-$OBJECTS/msvd_videos}" "${OBJECT_FLAGS[@]}" "$@"
