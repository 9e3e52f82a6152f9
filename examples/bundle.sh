#!/usr/bin/env bash
# Make the example bundle from a copy of examples/results: two repeats of one configuration. Without an argument, replace
# examples/smollm2_b1.zip, and write its digest into the page that shows how to check it. `make bundle-example` runs it.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r examples/results "$work/results"

llm-energy-measure -q -o "$work/results" aggregate --all --no-strict
paper_line=$(llm-energy-measure -o "$work/results" bundle create --where "config = smollm2_b1" \
    --to "$work/bundle.zip" --licence MIT --citation CITATION.cff)

mv "$work/bundle.zip" "${1:-examples/smollm2_b1.zip}"
if [ $# -eq 0 ]; then
    page=docs/how-to/check-a-papers-results.md
    sed -E "s/sha256:[0-9a-f]{64}/sha256:${paper_line##*sha256:}/" "$page" > "$work/page.md"
    cat "$work/page.md" > "$page"
fi
echo "$paper_line"
