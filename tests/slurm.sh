#!/usr/bin/env bash
# A sweep through a real Slurm of one node: the report of its parts is that of a single run, byte for
# byte, whatever happens to a part on the way.
# usage: tests/slurm.sh KVGAUGE SHARED   (SHARED/slurm/start.sh starts Slurm; needs root and slurm-wlm)
set -euo pipefail
kvgauge=$(realpath "$1")
shared=$(realpath "$2")
cd "$(dirname "$0")/.."
work=$(mktemp -d)
# Daemons that end still write: the folder goes when they are gone.
end() {
    local pids
    pids=$(cat "$work"/slurm/{d,ctld}.pid 2>/dev/null || true)
    bash "$shared/slurm/stop.sh" "$work/slurm"
    for pid in $pids; do
        for ((i = 0; i < 100; i++)); do kill -0 "$pid" 2>/dev/null && sleep 0.1 || break; done
    done
    rm -rf "$work" || echo "note: $work could not be removed"
}
trap end EXIT
bash "$shared/slurm/start.sh" "$work/slurm"
export SLURM_CONF="$work/slurm/slurm.conf"
node=$(hostname -s)

sweep=(sweep configs/quickstart.toml --windows 8)
"$kvgauge" "${sweep[@]}" --output "$work/whole" >/dev/null

# Submits the sweep in three parts into a folder, and sets `parts` and `report`, the jobs' ids.
submit() {
    local said
    said=$("$kvgauge" "${sweep[@]}" --output "$work/$1" --submit slurm --shards 3 -- --time=10)
    parts=$(sed -n 's/^job \([0-9]*\): 3 parts$/\1/p' <<<"$said")
    report=$(sed -n 's/^job \([0-9]*\): the report, .*$/\1/p' <<<"$said")
    grep -qx "report: $work/$1/report.html" <<<"$said"
    [ -n "$parts" ] && [ -n "$report" ]
}

# Until a job is in none of Slurm's lists.
ended() {
    for _ in $(seq 600); do
        [ -z "$(squeue --noheader --jobs "$1" 2>/dev/null)" ] && return 0
        # A requeued task waits half a minute for what is not here: a node that ends its former self.
        scontrol update JobId="${parts}_1" StartTime=now 2>/dev/null || true
        sleep 0.5
    done
    squeue >&2
    echo "job $1 did not end" >&2
    return 1
}

# Until a task of the array runs and has written its first window.
running() {
    for _ in $(seq 600); do
        [ -s "$work/$1/windows-1-of-3.jsonl" ] && return 0
        sleep 0.1
    done
    echo "no part of $1 began" >&2
    return 1
}

# Slurm began the first task anew.
restarted() {
    scontrol show job "${parts}_1" | grep -q 'Restarts=[1-9]'
}

same() {
    ended "$report"
    local file
    for file in report.html report.md results.json results.csv; do
        cmp "$work/whole/$file" "$work/$1/$file" || { tail -n 5 "$work/$1"/slurm-*.log >&2; exit 1; }
    done
    echo "ok: $1"
}

submit submitted
same submitted

submit requeued
running requeued
scontrol requeue "${parts}_1"
same requeued
restarted

submit cancelled
running cancelled
scancel "${parts}_1"
ended "$report"
# A part that did not end is missing, and said to be; submitted again it goes on.
grep -q '"missing": \[$' "$work/cancelled/results.json"
submit cancelled
same cancelled

submit node-down
running node-down
scontrol update NodeName="$node" State=DOWN Reason=test
sleep 1
# Unless it came back by itself (ReturnToService).
scontrol update NodeName="$node" State=RESUME 2>/dev/null || true
same node-down
restarted

# Two tasks on one part.
mkdir -p "$work/twice"
"$kvgauge" "${sweep[@]}" --output "$work/twice" --submit slurm --shards 3 --dry-run >"$work/jobs"
awk '/^#!/ { script += 1 } script == 1' "$work/jobs" >"$work/parts"
first=$(sbatch --parsable "$work/parts")
second=$(sbatch --parsable "$work/parts")
ended "$first"
ended "$second"
report=$(sbatch --parsable --output=/dev/null --wrap "'$kvgauge' report '$work/twice' --output '$work/twice'")
same twice
