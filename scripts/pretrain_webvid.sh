#!/usr/bin/env bash
# Pre-train on WebVid with objects and actions, the settings of the released run. From the environment:
#   DATA_PATH   folder with shards/, json_files/ and object_feature/  (default: data)
#   OUTPUT_DIR  folder of the run, resumed when it has a restore.bin     (default: output/pretrain_webvid)
#   MODEL_PATH  checkpoint to start from; empty: CLIP alone              (default: empty)
#   NPROC       processes on this machine                                (default: 1)
#   MASTER_PORT port of the process group                                (default: a free one)
# Further arguments are passed on to tasks/pre_training.py and win over those below.
# Relative paths that are given mean the folder in which the script is called, defaults the repository.
set -euo pipefail
source "$(dirname "$0")/launch.sh"
DATA_PATH="${DATA_PATH:-$ROOT/data}"
OUTPUT_DIR="${OUTPUT_DIR:-$ROOT/output/pretrain_webvid}"
SHARDS="${SHARDS:-$DATA_PATH/video_data/webvid}"

launch pre_training --do_train --num_thread_reader=4 \
  --epochs=10 --batch_size=8 --n_display=50 \
  --clip_archive "${CLIP_ARCHIVE:-$ROOT/data/models/clip}" \
  --labelmap_path "$DATA_PATH/object_feature/label_map.json" \
  --train_csv "$SHARDS" \
  --data_path "$SHARDS/frozen_train_labels.json" \
  --val_csv "$DATA_PATH/video_data/json_files/MSRVTT_JSFUSION_test.csv" \
  --val_features_path "$DATA_PATH/video_data/MSRVTT/MSRVTT_Videos" \
  --output_dir "$OUTPUT_DIR" \
  --lr 1e-5 --max_words 32 --max_frames 12 --batch_size_val 32 \
  --datatype pretrain --expand_msrvtt_sentences \
  --feature_framerate 1 --coef_lr 1e-3 \
  --freeze_layer_num 0 --slice_framepos 2 \
  --loose_type --linear_patch 2d --sim_header meanP \
  ${MODEL_PATH:+--init_model "$MODEL_PATH"} \
  --need_object \
  --object_path "$DATA_PATH/object_feature/webvid" \
  --object_count 10 \
  --object_layer 12 \
  --object_fuse fusion \
  --use_action "$@"
