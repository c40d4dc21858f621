#!/usr/bin/env bash
# Rehearses a run of several hosts on this machine: the command line that a pod or a cluster starts on every host, once
# per process. The processes find each other as Slurm's do, so that nothing in the command says which one it is.
#
#   launch/local.sh [--dry-run] PROCESSES [DEVICES] -- --config=FILE --workdir=FOLDER [--config.key=value …]
#
# DEVICES: simulated CPU devices per process, 1 unless given. Every line of output begins with its process's number.
# As soon as one process fails the others are given HEARTBEAT seconds to end by themselves; the exit status is the first
# one that was not zero.
set -euo pipefail

HEARTBEAT=45
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="${PYTHON:-python}"

usage() {
  echo "usage: launch/local.sh [--dry-run] PROCESSES [DEVICES] -- --config=FILE --workdir=FOLDER …" >&2
  exit 2
}

dry_run=""
if [[ "${1:-}" == "--dry-run" ]]; then
  dry_run=1
  shift
fi
[[ "${1:-}" =~ ^[1-9][0-9]*$ ]] || usage
processes="$1"
shift
devices=1
if [[ "${1:-}" =~ ^[1-9][0-9]*$ ]]; then
  devices="$1"
  shift
fi
[[ "${1:-}" == "--" && $# -gt 1 ]] || usage
shift

command=("$PYTHON" -m vgen_jax.main "$@" --config.mesh.distributed=true)
job=$((RANDOM * 32768 + RANDOM)) # JAX chooses the port by it

environment() {
  echo "JAX_PLATFORMS=cpu" "XLA_FLAGS=--xla_force_host_platform_device_count=$devices" \
    "SLURM_JOB_ID=$job" "SLURM_STEP_NODELIST=localhost" "SLURM_STEP_NUM_NODES=1" \
    "SLURM_NTASKS=$processes" "SLURM_PROCID=$1" "SLURM_LOCALID=$1"
}

if [[ -n "$dry_run" ]]; then
  for ((i = 0; i < processes; i++)); do
    echo "+ env $(environment "$i") ${command[*]}"
  done
  exit 0
fi

cd "$ROOT"
pids=()
trap '((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null || true' EXIT
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT
for ((i = 0; i < processes; i++)); do
  read -ra settings < <(environment "$i")
  if [[ -n "${XLA_FLAGS:-}" ]]; then # yours stay; of the devices the last number counts
    settings+=("XLA_FLAGS=$XLA_FLAGS --xla_force_host_platform_device_count=$devices")
  fi
  env "${settings[@]}" "${command[@]}" > >(sed -u "s/^/$i: /") 2> >(sed -u "s/^/$i: /" >&2) &
  pids+=($!)
done

status=0
deadline=0
while ((${#pids[@]})); do
  alive=()
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      alive+=("$pid")
      continue
    fi
    one=0
    wait "$pid" || one=$?
    if ((one != 0 && status == 0)); then
      status=$one
      deadline=$((SECONDS + HEARTBEAT))
    fi
  done
  pids=("${alive[@]}")
  if ((deadline && SECONDS > deadline && ${#pids[@]})); then
    kill -KILL "${pids[@]}" 2>/dev/null || true
  fi
  sleep 0.2
done
exit "$status"
