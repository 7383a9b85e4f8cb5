#!/usr/bin/env bash
# Captioning on MSR-VTT, in the usual split by the videos' numbers (6,513 / 497 / 2,990). Paths, beside those of
# scripts/fine_tune.sh:
#   CAPTIONS (MSRVTT_data.json), VIDEOS, OBJECT_PATH
# Another split: TRAIN_CSV and VAL_CSV (the test videos; or, with TEST_CSV, the validation videos), csvs of video_id.
# Greedy, as released; beam search by further arguments: bash scripts/caption_msrvtt.sh --beam_size 5
set -euo pipefail
source "$(dirname "$0")/fine_tune.sh"
fine_tune eval_captioning --datatype msrvtt_caption --epochs 5 --batch_size 4 --batch_size_val 24 --max_words 32 \
  --num_thread_reader 4 --eval_every 1000 --save_every 2000 \
  ${TRAIN_CSV:+--train_csv "$TRAIN_CSV"} ${VAL_CSV:+--val_csv "$VAL_CSV"} ${TEST_CSV:+--test_csv "$TEST_CSV"} \
  --data_path "${CAPTIONS:-$VIDEO_DATA/json_files/MSRVTT_data.json}" \
  --features_path "${VIDEOS:-$VIDEO_DATA/MSRVTT/MSRVTT_Videos}" \
  --object_path "${OBJECT_PATH:-$OBJECTS/msr_vtt}" "${OBJECT_FLAGS[@]}" "$@"
