#!/usr/bin/env bash
# Memory modes from the command line, on the CPU: the same film in every mode and budget, budgets that
# hold, refusals that name what would do, a report of what was used.
set -euo pipefail
. "$(dirname "$0")/lib.sh" "$1" "$2"
export XDG_CACHE_HOME=$tmp/cache

one() { "$program" run "${where[@]}" "${quick[@]}" --image "$face" --audio "$voice" "$@"; }
plan() { "$program" plan "${where[@]}" "${quick[@]}" --image "$face" --audio "$voice" "$@"; }
number() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" "$2" | head -1; }

# Every old flag works without the new ones, and the default is lightweight.
expect 0 one --output "$tmp/default.mp4"
says "lightweight"
for mode in lightweight auto beefy; do
    expect 0 one --output "$tmp/$mode.mp4" --memory_mode $mode --memory-report "$tmp/$mode.json"
    says "$mode on cpu: "
    cmp "$tmp/$mode.mp4" "$tmp/default.mp4" || fail "$mode makes another film"
    has "$tmp/$mode.svg"
    rss=$(number host_rss_peak_bytes "$tmp/$mode.json") may=$(number host_bytes "$tmp/$mode.json")
    [ "$rss" -le "$may" ] || fail "$mode: $rss bytes in memory, $may were forecast"
    [ "$(number scratch_bytes "$tmp/$mode.json")" -gt 0 ] || fail "$mode: no scratch in the report"
done
[ "$(number host_bytes "$tmp/lightweight.json")" -lt "$(number host_bytes "$tmp/beefy.json")" ] ||
    fail "lightweight asks for no less than beefy"

# The smallest budgets that a plan names do, and hold; less is refused before anything is made.
expect 0 plan --json --memory_mode auto
cp "$tmp/out" "$tmp/plan.json"
ram=$(number smallest_ram_budget_bytes "$tmp/plan.json")
block=$(number smallest_vram_budget_bytes "$tmp/plan.json")
ram=$((ram / 1048576 + 8))
expect 0 one --output "$tmp/small.mp4" --memory_mode auto --ram_budget ${ram}M \
    --memory_report "$tmp/small.json"
cmp "$tmp/small.mp4" "$tmp/default.mp4" || fail "a budget makes another film"
[ "$(number host_rss_peak_bytes "$tmp/small.json")" -le $((ram * 1048576)) ] ||
    fail "--ram_budget ${ram}M does not hold: $(number host_rss_peak_bytes "$tmp/small.json")"
expect 0 one --output "$tmp/block.mp4" --vram_budget "$((block / 1048576 + 1))MiB"
cmp "$tmp/block.mp4" "$tmp/default.mp4" || fail "a block's size makes another film"
expect 1 one --output "$tmp/none.mp4" --ram_budget 16M
says "--ram_budget"
says "would do"
lacks "$tmp/none.mp4"
expect 1 one --output "$tmp/none.mp4" --vram_budget 1M
says "--vram_budget"
expect 0 plan --memory_mode beefy
grep -q "smallest budgets" "$tmp/out" || fail "plan does not name the smallest budgets"

# Sizes as people write them, and what is none.
for size in 1T 1.5GiB 2000m 4294967296; do expect 0 plan --vram_budget $size; done
for size in 6X -1G 0 "G" 10K 2PB; do
    expect 2 plan --ram_budget "$size"
    says "--ram_budget"
done
PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True expect 0 plan
says "PYTORCH_CUDA_ALLOC_CONF has no effect"

# A list of jobs: the models stay where they are from job to job, and the films are the same.
list "$tmp/jobs.json" "$(job "$face" "$voice" one)" "$(job "$face" "$voice" two)"
for mode in lightweight beefy; do
    expect 0 batch --json_path "$tmp/jobs.json" --save_path "$tmp/$mode" --memory_mode $mode \
        --memory_report "$tmp/batch.json"
    for name in one two; do
        cmp "$tmp/$mode/${name}_output.mp4" "$tmp/default.mp4" || fail "$mode: $name is another film"
    done
    [ "$(grep -c '"policy"' "$tmp/batch.json")" = 2 ] || fail "the report does not have both jobs"
done
passed
