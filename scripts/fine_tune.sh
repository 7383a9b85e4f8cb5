# Sourced by the scripts of the downstream tasks: what they share. From the environment:
#   DATA_PATH    folder with video_data/ and object_feature/                 (default: data)
#   OUTPUT_DIR   folder of the run, resumed when it has a restore.bin        (default: output/{name of the script})
#   MODEL_PATH   checkpoint to start from; empty: CLIP alone                 (default: empty)
#   CLIP_ARCHIVE CLIP weights                                                (default: modules/clip)
#   LABEL_MAP    label map of the object classes                             (default: $DATA_PATH/object_feature/label_map.json)
#   NPROC        processes on this machine                                   (default: 1)
#   MASTER_PORT  port of the process group                                   (default: 29500)
# and the paths of the data set, which each script names. Further arguments are passed on and win over the script's own.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
DATA_PATH="${DATA_PATH:-data}"
VIDEO_DATA="$DATA_PATH/video_data"
OBJECTS="$DATA_PATH/object_feature"
OUTPUT_DIR="${OUTPUT_DIR:-output/$(basename "$0" .sh)}"
PYTHON="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"

OBJECT_FLAGS=(--need_object --object_count 10 --object_layer 12 --object_fuse fusion --use_action)

fine_tune() { # task, flags...: train, choose on the validation split, score the test split once
  local task="$1"
  shift
  exec "$PYTHON" -m torch.distributed.run --nproc_per_node "${NPROC:-1}" --master_port "${MASTER_PORT:-29500}" \
    "./tasks/$task.py" --do_train --output_dir "$OUTPUT_DIR" --clip_archive "${CLIP_ARCHIVE:-modules/clip}" \
    --labelmap_path "${LABEL_MAP:-$OBJECTS/label_map.json}" ${MODEL_PATH:+--init_model "$MODEL_PATH"} \
    --coef_lr 1e-3 --lr 1e-4 --max_frames 12 --feature_framerate 1 --freeze_layer_num 0 --slice_framepos 2 \
    --loose_type --linear_patch 2d --sim_header meanP --expand_msrvtt_sentences --n_display 50 "$@"
}
