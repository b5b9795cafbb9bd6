# shellcheck shell=bash
# The operator itself: its image, and its installation by Helm.

# load_operator FILE: does nothing when that very program is loaded already.
load_operator() {
  local program=${1:-} key loaded
  [ -n "$program" ] || usage
  [ -x "$program" ] || die "no program at $program (cargo build makes it)"
  require_root
  lock_cluster
  require_up
  key=$({ sha256sum <"$program" && cat "$repo/Dockerfile"; } | hash)
  loaded=$key
  # For the tests of other versions one more, whose base has a later client.
  [ ! -f "$STATE/versions" ] || loaded=$key-$NEXT_POSTGRES_MAJOR
  if [ "$(cat "$STATE/operator" 2>/dev/null)" = "$loaded" ]; then
    say "the operator's image is up to date in cluster $NAME"
    echo "$key"
    return
  fi
  trap 'end_step; exit 130' INT TERM HUP
  exec 8>"$CACHE/lock"
  flock 8
  make_and_load "$program" "$key" "$DEBIAN_SUITE"
  [ "$loaded" = "$key" ] || make_and_load "$program" "$loaded" "$NEXT_DEBIAN_SUITE"
  exec 8>&-
  echo "$loaded" >"$STATE/operator"
  echo "$key"
}

make_and_load() {
  step "making the operator's image on Debian $3" "$CACHE/log/operator-image" image_operator "$@"
  step "loading the operator's image into cluster $NAME" "$STATE/log/load-operator" import_operator "$2" "$3"
}

# image_operator PROGRAM TAG SUITE: everything after the build stage is the Dockerfile's own.
image_operator() {
  new_context
  # Symbols of a development build are most of its size, and no image needs them.
  strip --strip-debug -o "$context/helpdesk-operator" "$1"
  bud bud --isolation chroot --layers --file "$repo/Dockerfile" --build-arg "BASE=localhost/debian:$3" \
    --build-arg BINARY_FROM=prebuilt --tag "localhost/helpdesk-operator:$2" "$context"
  rm -rf "$context"
  save_image "localhost/helpdesk-operator:$2" "$CACHE/new/operator.tar"
}

import_operator() {
  in_node ctr --namespace k8s.io images import "$CACHE/new/operator.tar"
  [ "$2" != "$DEBIAN_SUITE" ] ||
    in_node ctr --namespace k8s.io images tag --force "localhost/helpdesk-operator:$1" localhost/helpdesk-operator:dev
}

# Runs a program of this machine as if it were the node's.
in_node() { nsenter --target "$(node_pid)" --net --mount --cgroup --ipc --pid "$@"; }

# install_operator HELM-ARGUMENTS...: builds, loads and installs what is in this working copy.
install_operator() {
  local image=(--set image.repository=localhost/helpdesk-operator --set image.pullPolicy=Never) tag
  command -v cargo >/dev/null || die "needs cargo in PATH to build the operator"
  if [ "$NAME" = current ]; then
    [ -n "${HELPDESK_IMAGE_OPERATOR:-}" ] ||
      die "push the operator's image where your cluster can pull it, and name it: HELPDESK_IMAGE_OPERATOR=registry/helpdesk-operator:tag"
    tag=${HELPDESK_IMAGE_OPERATOR##*:}
    image=(--set "image.repository=${HELPDESK_IMAGE_OPERATOR%:*}")
  else
    cargo build --manifest-path "$repo/Cargo.toml" --locked --bin helpdesk-operator
    tag=$(load_operator "${CARGO_TARGET_DIR:-$repo/target}/debug/helpdesk-operator")
    export KUBECONFIG=$KUBECONFIG_FILE
  fi
  # With the edge goes mail: the chart's intake, whose queue lasts as long as its pod.
  [ ! -f "$STATE/edge" ] || image+=(--set mail.enabled=true,mail.hostname=mail.helpdesk.example,mail.service.type=ClusterIP
    --set mail.storage.enabled=false,mail.filter.minLearns=3,mail.filter.publicLists=false,mail.image.repository=localhost/mail,mail.image.pullPolicy=Never)
  # A tag that changes with the program is what makes the Deployment roll.
  step "installing the operator" "$STATE/log/helm" "$BIN/helm" upgrade --install helpdesk-operator \
    "$repo/charts/helpdesk-operator" --namespace $OPERATOR_NAMESPACE --create-namespace --wait --timeout 180s \
    "${image[@]}" --set-string "image.tag=$tag" "$@"
}

# collect DIRECTORY: what one wants to read after a failure.
collect() {
  local to=${1:-}
  [ -n "$to" ] || usage
  require_up
  export KUBECONFIG=$KUBECONFIG_FILE
  mkdir -p "$to"
  cp -rL "$STATE/log/." "$to" 2>/dev/null || true
  kubectl get pods,jobs,events -A -o wide >"$to/objects" 2>&1 || true
  kubectl get helpdeskaccounts,helpdeskplans,databaseservers,backupstores,coldbackups -o yaml >"$to/resources.yaml" 2>&1 || true
  kubectl -n $OPERATOR_NAMESPACE logs --selector app.kubernetes.io/name=helpdesk-operator --tail -1 --prefix >"$to/operator" 2>&1 || true
  say "logs are in $to"
}
