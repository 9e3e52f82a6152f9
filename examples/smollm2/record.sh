#!/usr/bin/env bash
# Record the experiments of examples/results again, in a directory that does not exist yet. `make demo-live` runs this.
#
#   record.sh RESULTS_DIR [OPTION]...     the options are passed to run.py
set -euo pipefail
case $1 in
    /*) results=$1 ;;
    *) results=$PWD/$1 ;;
esac
shift
cd "$(dirname "$0")"

run() { # processes, arguments of run.py
    torchrun --standalone --nproc-per-node "$1" run.py --results-dir "$results" "${@:2}"
}

for cycle in 0 1; do
    for batch in 1 4; do
        run 2 --experiment "smollm2_b${batch}_c${cycle}" --cycle "$cycle" --batch-size "$batch" "$@"
    done
done
echo "In the next run, process 2 of 4 kills itself half way. torchrun then ends the others (SIGTERM) and fails:"
run 4 --experiment smollm2_b1_crash --config-name smollm2_b1_crash --crash-process 2 "$@" 2>/dev/null || true
