#!/usr/bin/env bash
# The main job on real results: aggregate what each process saved, list it, look at one experiment, export a table.
# Works on a copy, so that examples/results, or the directory that is named, stays as it was recorded. `make demo` runs it in
# an environment of its own; `make demo-live` records the results anew first.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "${1:-examples/results}" "$work/results"
cd "$work"

show() { # print a command as one would type it, then run it
    printf '\n$ llm-energy-measure %s\n' "$*"
    llm-energy-measure "$@"
}

echo "Five runs of a small language model on a CPU (energy modelled, see examples/README.md)."
echo "Each process saved its own file; in one run a process was killed:"
find results/raw -name 'process_*.json' | sort | sed 's/^/  /'

show aggregate --all || echo "(exit status $?: an incomplete experiment is refused, and the others are done)"
show aggregate smollm2_b1_crash --no-strict
show results list
show results show smollm2_b1_crash
show results repeats
show results export --to table.csv
show results export --to table.json
show results export smollm2_b4_c0 --raw --to processes.csv

for file in table.csv processes.csv; do
    printf '\n$ cut -c1-150 %s\n' "$file"
    cut -c1-150 "$file"
done
printf '\n$ head -16 table.json\n'
head -16 table.json
