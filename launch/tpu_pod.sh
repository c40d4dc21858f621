#!/usr/bin/env bash
# Trains on a TPU pod of Google Cloud: creates it, installs, starts on all of its hosts, watches, deletes.
#
#   launch/tpu_pod.sh [--dry-run] COMMAND [-- --config=FILE --workdir=FOLDER [--config.key=value …]]
#
# COMMAND   what it does
# create    asks for the pod (of spot capacity unless SPOT=0) and waits until it is there
# install   copies this checkout to every host, installs it there and mounts the bucket at /mnt/vgen
# start     starts the run on every host, in the background; needs what follows --
# logs      follows the first host's log
# watch     create, install and start, then starts again whenever the pod was taken away, until the run has ended well
# stop      asks the run to save its state and end (SIGTERM)
# delete    gives the pod back: nothing is paid for after that
#
# Settings are environment variables; a workdir is best on the bucket (/mnt/vgen/…), where every host sees it:
#   NAME=vgen ZONE=us-west4-a TYPE=v5litepod-64 VERSION=v2-alpha-tpuv5-lite BUCKET=my-bucket [PROJECT=…] [SPOT=0]
set -euo pipefail

NAME="${NAME:-vgen}"
ZONE="${ZONE:-us-west4-a}"
TYPE="${TYPE:-v5litepod-64}"
VERSION="${VERSION:-v2-alpha-tpuv5-lite}"
SPOT="${SPOT:-1}"
POLL="${POLL:-60}"
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

usage() {
  echo "usage: launch/tpu_pod.sh [--dry-run] create|install|start|logs|watch|stop|delete [-- --config=FILE …]" >&2
  exit 2
}

dry_run=""
if [[ "${1:-}" == "--dry-run" ]]; then
  dry_run=1
  shift
fi
what="${1:-}"
[[ -n "$what" ]] && shift
if [[ "${1:-}" == "--" ]]; then
  shift
elif (($#)); then
  usage
fi
arguments=("$@")

where=(--zone="$ZONE")
if [[ -n "${PROJECT:-}" ]]; then
  where+=(--project="$PROJECT")
fi

do_() {
  if [[ -n "$dry_run" ]]; then
    printf '+'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

everywhere() {
  do_ gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" --worker=all --command="$1"
}

create() {
  local capacity=()
  if [[ "$SPOT" != 0 ]]; then
    capacity=(--spot)
  fi
  do_ gcloud compute tpus tpu-vm create "$NAME" "${where[@]}" --accelerator-type="$TYPE" --version="$VERSION" \
    "${capacity[@]}"
}

install() {
  : "${BUCKET:?set BUCKET to a Cloud Storage bucket that the hosts may write to}"
  everywhere "mkdir -p vgen"
  do_ gcloud compute tpus tpu-vm scp --recurse --worker=all "${where[@]}" \
    "$ROOT/setup.py" "$ROOT/pyproject.toml" "$ROOT/README.md" "$ROOT/vgen_jax" "$ROOT/configs" "$NAME:vgen/"
  everywhere "python3 -m venv ~/venv && ~/venv/bin/pip install --quiet -e './vgen[tpu]'"
  everywhere "command -v gcsfuse || (curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee \
/usr/share/keyrings/gcsfuse.asc >/dev/null && echo 'deb [signed-by=/usr/share/keyrings/gcsfuse.asc] \
https://packages.cloud.google.com/apt gcsfuse-\$(lsb_release -c -s) main' | sudo tee \
/etc/apt/sources.list.d/gcsfuse.list && sudo apt-get update && sudo apt-get install -y gcsfuse)"
  everywhere "mountpoint -q /mnt/vgen || (sudo mkdir -p /mnt/vgen && sudo chown \$USER /mnt/vgen && \
gcsfuse --implicit-dirs '$BUCKET' /mnt/vgen)"
}

start() {
  ((${#arguments[@]})) || usage
  local quoted
  quoted="$(printf ' %q' "${arguments[@]}")"
  # Hosts that outlived another one may still be in the old run. (The brackets keep pkill from finding itself.)
  everywhere "pkill -KILL -f '[v]gen_jax.main' || true"
  everywhere "cd vgen && rm -f ~/vgen.status && (nohup sh -c '~/venv/bin/python -m vgen_jax.main$quoted \
--config.mesh.distributed=true; echo \$? > ~/vgen.status' > ~/vgen.log 2>&1 < /dev/null &)"
}

logs() {
  do_ gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" --worker=0 --command="tail -n 100 -f ~/vgen.log"
}

stop() {
  everywhere "pkill -TERM -f '[v]gen_jax.main' || true"
}

delete() {
  do_ gcloud compute tpus tpu-vm delete "$NAME" "${where[@]}" --quiet
}

# The exit status of the run on the first host; empty while it goes.
status() {
  gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" --worker=0 --command="cat ~/vgen.status 2>/dev/null || true"
}

state() {
  gcloud compute tpus tpu-vm describe "$NAME" "${where[@]}" --format="value(state)" 2>/dev/null || true
}

watch() {
  ((${#arguments[@]})) || usage
  if [[ -n "$dry_run" ]]; then
    create
    install
    start
    echo "+ every $POLL s: exit status 0 ends; 2 (the configuration is wrong) and 1 (a fault) are given back; after 143"
    echo "+   (preempted) or 75 (a host was lost) start again; a pod that is gone: delete, create, install and start"
    return
  fi
  local found
  while true; do
    case "$(state)" in
      READY)
        found="$(status)" || found=""
        case "$found" in
          "") ;;
          0) return 0 ;;
          1 | 2) return "$found" ;;
          *) start ;;
        esac
        ;;
      CREATING | STARTING | RESTARTING | REPAIRING) ;;
      "")
        create && install && start || true
        ;;
      *) # PREEMPTED, TERMINATED, STOPPED
        delete || true
        ;;
    esac
    sleep "$POLL"
  done
}

case "$what" in
  create | install | start | logs | watch | stop | delete) "$what" ;;
  *) usage ;;
esac
