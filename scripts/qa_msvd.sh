#!/usr/bin/env bash
# Open-ended question answering on MSVD. Paths, beside those of scripts/fine_tune.sh:
#   QUESTIONS (folder of {train,val,test}_qa.json, train_ans2label.json, and id_mapping.json or youtube_mapping.txt),
#   VIDEOS, OBJECT_PATH
# Answers are classified; the released objective (first token over the vocabulary): --behaviour released
set -euo pipefail
source "$(dirname "$0")/fine_tune.sh"
QUESTIONS="${QUESTIONS:-$VIDEO_DATA/MSVD/MSVD-QA}"
fine_tune eval_qa --datatype msvd_qa --epochs 5 --batch_size 8 --batch_size_val 32 --max_words 32 \
  --num_thread_reader 2 --eval_every 1000000 --save_every 1000 \
  --msvd_qa_train_json "$QUESTIONS/train_qa.json" --msvd_qa_val_json "$QUESTIONS/val_qa.json" \
  --msvd_qa_test_json "$QUESTIONS/test_qa.json" --msvd_qa_anslabel_json "$QUESTIONS/train_ans2label.json" \
  --msvd_features_path "${VIDEOS:-$VIDEO_DATA/MSVD/MSVD_Videos}" \
  --object_path "${OBJECT_PATH:-$OBJECTS/msvd_videos}" "${OBJECT_FLAGS[@]}" "$@"
