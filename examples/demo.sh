#!/usr/bin/env bash
# Show the main commands on real results: aggregate the raw results, list and show experiments, export a table. The
# script works on a copy of examples/results, or of the directory given as argument. `make demo` runs it in its own
# environment; `make demo-live` records new results first. The report stays in build/.
set -euo pipefail
cd "$(dirname "$0")/.."

report=$PWD/build/demo-report.html
mkdir -p build
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "${1:-examples/results}" "$work/results"
cd "$work"

show() { # print a command, then run it
    printf '\n$ llm-energy-measure %s\n' "$*"
    llm-energy-measure "$@"
}

echo "Five runs of a small language model on a CPU (energy modelled, see examples/README.md)."
echo "Each process saved its own file; in one run a process was killed:"
find results/raw -name 'process_*.json' | sort | sed 's/^/  /'

show aggregate --all || echo "(exit status $?: one experiment is incomplete and was refused; the others are aggregated)"
show aggregate smollm2_b1_crash --no-strict
show results list
show results show smollm2_b1_crash
show results repeats
show results compare --by config.batch_size --base 1
show results export --to table.csv
show results export --to table.json
show results export smollm2_b4_c0 --raw --to processes.csv

for file in table.csv processes.csv; do
    printf '\n$ cut -c1-150 %s\n' "$file"
    cut -c1-150 "$file"
done
printf '\n$ head -16 table.json\n'
head -16 table.json

if show results report --by config.batch_size --base 1 --to "$report"; then
    printf '\nOpen the report in a browser: %s\n' "$report"
else
    echo "(exit status $?: no report; the demo needs no other package, a report does)"
fi

activate=$(dirname "$(command -v llm-energy-measure)")/activate
printf '\nTo use the command llm-energy-measure in your shell: . %s\n' "$activate"
