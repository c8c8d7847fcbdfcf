#!/bin/sh
# Our benches against torch and transformers on this machine, alternating: ours, peer, ours, peer, for each measurement. One table.
#
#   PEER_PYTHON=V/bin/python benches/compare.sh [MEASUREMENT …]     MEASUREMENT as tiny/decode/64, tiny/train/32, base/decode/64, base/train/4
#   THREADS="1 2"   thread counts, one table row each       ROUNDS=2   times that each side is measured       OUT=file   keeps the JSON lines
#
# V holds benches/peer/requirements.txt. With two threads on two cores, neighbours slow torch more than us: look at the load it prints.
set -eu
cd "$(dirname "$0")/.."
: "${PEER_PYTHON:?set PEER_PYTHON to the python of a virtual environment with benches/peer/requirements.txt}"
[ $# -gt 0 ] || set -- tiny/decode/1 tiny/decode/64 tiny/decode/256 tiny/train/32 base/decode/64 base/train/4
lines=${OUT:-$(mktemp)}
: > "$lines"
cargo bench --no-run --benches >&2
for name in "$@"; do
    IFS=/ read -r shape what batch <<END
$name
END
    for threads in ${THREADS:-1 2}; do
        for round in $(seq "${ROUNDS:-2}"); do
            echo "$name, $threads threads, round $round, load $(cut -d' ' -f1 /proc/loadavg 2>/dev/null || echo unknown)" >&2
            cargo bench -q --bench "$what" -- "$name" --threads "$threads" >> "$lines"
            "$PEER_PYTHON" benches/peer/speed.py --shape "$shape" --what "$what" --batch "$batch" --threads "$threads" >> "$lines"
        done
    done
done
"$PEER_PYTHON" - "$lines" <<'END'
import collections, json, statistics, sys

rates, shares = collections.defaultdict(lambda: collections.defaultdict(list)), collections.defaultdict(list)
for line in map(json.loads, open(sys.argv[1])):
    row = line["shape"], line["what"], line["batch"], line["threads"]
    rates[row][line["peer"]].append(line["tokens_per_s"])
    if "share_of_products" in line:
        shares[row].append(line["share_of_products"])
print("| what | threads | distill | transformers | torch loop | ratio to transformers | to torch loop | share of products |")
print("|---|---|---|---|---|---|---|---|")
for row, peers in rates.items():
    ours, hf, loop = (statistics.median(peers.get(p, [float("nan")])) for p in ("distill", "transformers", "torch-loop"))
    name = f"{row[0]} {row[1]} {row[2]} | {row[3]}"
    share = statistics.median(shares[row])
    print(f"| {name} | {ours:,.0f} | {hf:,.0f} | {loop:,.0f} | {ours / hf:.2f} | {ours / loop:.2f} | {100 * share:.0f} % |")
END
