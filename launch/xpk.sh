#!/usr/bin/env bash
# Trains on TPUs of a GKE cluster through xpk (pip install xpk), which starts the same command on every host of a slice
# and starts it again when the slice was taken away.
#
#   launch/xpk.sh [--dry-run] COMMAND [-- --config=FILE --workdir=FOLDER [--config.key=value …]]
#
# COMMAND   what it does
# cluster   makes a cluster with one slice of spot capacity
# image     builds this checkout into an image and pushes it
# start     starts the run; needs what follows --
# logs      follows the first host's log
# list      what runs on the cluster
# stop      ends the run
# delete    gives the cluster back: nothing is paid for after that
#
#   NAME=vgen CLUSTER=vgen PROJECT=my-project ZONE=us-west4-a TYPE=v5litepod-64 IMAGE=REGION-docker.pkg.dev/… [RESTARTS=20]
#
# A workdir must be on storage that every host sees: a bucket mounted at /mnt/vgen (xpk storage attach …), say.
set -euo pipefail

NAME="${NAME:-vgen}"
CLUSTER="${CLUSTER:-vgen}"
ZONE="${ZONE:-us-west4-a}"
TYPE="${TYPE:-v5litepod-64}"
RESTARTS="${RESTARTS:-20}"
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

usage() {
  echo "usage: launch/xpk.sh [--dry-run] cluster|image|start|logs|list|stop|delete [-- --config=FILE …]" >&2
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
: "${PROJECT:?set PROJECT to the Google Cloud project}"
where=(--cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE")

do_() {
  if [[ -n "$dry_run" ]]; then
    printf '+'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

case "$what" in
  cluster) do_ xpk cluster create "${where[@]}" --tpu-type="$TYPE" --num-slices=1 --spot ;;
  image)
    : "${IMAGE:?set IMAGE to the image to push}"
    do_ docker build --tag "$IMAGE" --file "$ROOT/launch/Dockerfile" "$ROOT"
    do_ docker push "$IMAGE"
    ;;
  start)
    ((${#arguments[@]})) || usage
    : "${IMAGE:?set IMAGE to the image that was pushed}"
    do_ xpk workload create "${where[@]}" --workload="$NAME" --tpu-type="$TYPE" --num-slices=1 \
      --docker-image="$IMAGE" --max-restarts="$RESTARTS" \
      --command="python -m vgen_jax.main$(printf ' %q' "${arguments[@]}") --config.mesh.distributed=true"
    ;;
  logs) do_ kubectl logs --follow --selector="jobset.sigs.k8s.io/jobset-name=$NAME,batch.kubernetes.io/job-completion-index=0" ;;
  list) do_ xpk workload list "${where[@]}" ;;
  stop) do_ xpk workload delete "${where[@]}" --workload="$NAME" ;;
  delete) do_ xpk cluster delete "${where[@]}" ;;
  *) usage ;;
esac
