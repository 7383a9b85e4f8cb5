# Sourced by the scripts of the downstream tasks: what they share. From the environment:
#   DATA_PATH    folder with video_data/ and object_feature/                 (default: data)
#   OUTPUT_DIR   folder of the run, resumed when it has a restore.bin        (default: output/{name of the script})
#   MODEL_PATH   checkpoint to start from; empty: CLIP alone                 (default: empty)
#   CLIP_ARCHIVE CLIP weights                                                (default: modules/clip)
#   LABEL_MAP    label map of the object classes                             (default: $DATA_PATH/object_feature/label_map.json)
#   NPROC        processes on this machine                                   (default: 1)
#   MASTER_PORT  port of the process group                                   (default: a free one)
# and the paths of the data set, which each script names. Further arguments are passed on and win over the script's own.
# Relative paths that are given mean the folder in which the script is called, defaults the repository.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
DATA_PATH="${DATA_PATH:-$ROOT/data}"
VIDEO_DATA="$DATA_PATH/video_data"
OBJECTS="$DATA_PATH/object_feature"
OUTPUT_DIR="${OUTPUT_DIR:-$ROOT/output/$(basename "$0" .sh)}"

OBJECT_FLAGS=(--need_object --object_count 10 --object_layer 12 --object_fuse fusion --use_action)

fine_tune() { # task, flags...: train, choose on the validation split, score the test split once
  local task="$1"
  shift
  launch "$task" --do_train --output_dir "$OUTPUT_DIR" --clip_archive "${CLIP_ARCHIVE:-$ROOT/modules/clip}" \
    --labelmap_path "${LABEL_MAP:-$OBJECTS/label_map.json}" ${MODEL_PATH:+--init_model "$MODEL_PATH"} \
    --coef_lr 1e-3 --lr 1e-4 --max_frames 12 --feature_framerate 1 --freeze_layer_num 0 --slice_framepos 2 \
    --loose_type --linear_patch 2d --sim_header meanP --expand_msrvtt_sentences --n_display 50 "$@"
}
