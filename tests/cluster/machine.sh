# shellcheck shell=bash
# Starting and stopping a cluster on this machine, and leaving nothing behind.

# ---- what must be so before anything is touched ----

require_root() {
  [ "$(id -u)" = 0 ] || die "needs root: it makes namespaces, an interface and cgroups (or use your own cluster: CLUSTER=current)"
}

require_tools() {
  local tool
  [ "$(uname -sm)" = "Linux x86_64" ] || die "runs on Linux x86_64 only (use your own cluster: CLUSTER=current)"
  command -v apt-get >/dev/null || die "needs a Debian machine: apt-get is missing (use your own cluster: CLUSTER=current)"
  for tool in go python3; do
    command -v "$tool" >/dev/null || die "needs $tool in PATH"
  done
}

# require_space DIRECTORY GIB
require_space() {
  local free
  mkdir -p "$1"
  free=$(df --output=avail -BG "$1" | tail -n 1 | tr -dc 0-9)
  [ "$free" -ge "$2" ] || die "needs $2 GiB free below $1, but there are $free (HELPDESK_CACHE moves what is built)"
}

# The Go caches take most of it, and only the first time.
space_to_build() { if [ -x "$BIN/kubernetes" ]; then echo 4; else echo 12; fi; }

require_cgroups() {
  cgroup_mounts | grep -q '/memory$' || die "needs cgroup v1 controllers below /sys/fs/cgroup, which this machine does not mount
  (containerd 1.6 and this kubelet setup were only ever run on them; use your own cluster: CLUSTER=current)"
  local mount
  for mount in $(cgroup_mounts); do
    [ -w "$mount" ] || die "may not write to $mount: run outside of a container, or use your own cluster: CLUSTER=current"
  done
}

require_addresses() {
  local net taken
  if ip link show "$LINK" >/dev/null 2>&1; then die "the interface $LINK exists and is not ours: rename or remove it"; fi
  for net in "$NODE_NET" "$SERVICES" "$PODS"; do
    taken=$(ip -4 route show table all root "$net" | head -n 1)
    [ -z "$taken" ] || die "cluster $NAME needs the addresses $net, but this machine already has the route: $taken"
  done
  [ -n "$V6_NODE" ] || return 0
  taken=$(ip -6 route show table all root "$V6_NET::/48" | head -n 1)
  [ -z "$taken" ] || die "cluster $NAME needs the addresses $V6_NET::/48, but this machine already has the route: $taken"
}

# The directory is in a place where everybody may write, and root trusts what is in it.
require_own_states() {
  mkdir -p "$STATES"
  [ -O "$STATES" ] && [ ! -L "$STATES" ] || die "$STATES does not belong to root: remove it"
  chmod 711 "$STATES"
}

lock_cluster() {
  require_own_states
  exec 9>"$STATES/$NAME.lock"
  if ! flock -n 9; then
    say "waiting for another command on cluster $NAME to finish"
    flock 9
  fi
}

# ---- cgroups: a cluster's are its own, and whatever runs in them is the cluster's ----

cgroup_mounts() { awk '$3 == "cgroup" && $2 ~ "^/sys/fs/cgroup/" { print $2 }' /proc/self/mounts; }

make_cgroups() {
  local mount group file
  for mount in $(cgroup_mounts); do
    for group in "$mount/helpdesk-operator" "$mount/helpdesk-operator/$NAME"; do
      mkdir -p "$group"
      # A cpuset without these takes no process.
      for file in cpuset.cpus cpuset.mems; do
        if [ -f "$group/$file" ]; then cat "$(dirname "$group")/$file" >"$group/$file"; fi
      done
    done
  done
}

enter_cgroups() {
  local mount
  for mount in $(cgroup_mounts); do echo "$BASHPID" >"$mount/helpdesk-operator/$NAME/cgroup.procs"; done
}

cgroup_pids() {
  local mount
  for mount in $(cgroup_mounts); do
    [ -d "$mount/helpdesk-operator/$NAME" ] || continue
    find "$mount/helpdesk-operator/$NAME" -name cgroup.procs -exec cat {} + 2>/dev/null || true
  done | sort -un
}

remove_cgroups() {
  local mount
  for mount in $(cgroup_mounts); do
    [ -d "$mount/helpdesk-operator/$NAME" ] || continue
    find "$mount/helpdesk-operator/$NAME" -depth -type d -exec rmdir {} + 2>/dev/null || true
    rmdir "$mount/helpdesk-operator" 2>/dev/null || true # unless another cluster is in it
  done
}

# ---- up ----

up() {
  local extra extras=()
  for extra in "$@"; do
    case $extra in
      --edge | --versions) extras+=("${extra#--}") ;;
      *) usage ;;
    esac
  done
  require_root
  lock_cluster
  settle_ipv6
  if is_up; then
    for extra in "${extras[@]}"; do
      [ ! -f "$STATE/$extra" ] || continue
      build "$extra"
      trap 'end_step; exit 130' INT TERM HUP
      "add_$extra"
    done
    say "cluster $NAME is up: KUBECONFIG=$KUBECONFIG_FILE"
    return
  fi
  require_cgroups
  trap 'end_step; exit 130' INT TERM HUP
  build "${extras[@]}"
  take_down
  require_addresses
  require_space "$STATES" 3

  trap 'failed $?' EXIT
  local began=$SECONDS
  mkdir -p "$STATE/log"
  chmod 711 "$STATE"
  step "starting Kubernetes $KUBERNETES_VERSION as cluster $NAME" "$STATE/log/start" start_node
  install -m 600 "$STATE/node/admin.kubeconfig" "$KUBECONFIG_FILE"
  export KUBECONFIG=$KUBECONFIG_FILE
  step "starting DNS, PostgreSQL and S3" "$STATE/log/infra" start_infra
  for extra in "${extras[@]}"; do "add_$extra"; done
  touch "$STATE/up"
  trap - EXIT
  say "cluster $NAME is up after $((SECONDS - began)) s: KUBECONFIG=$KUBECONFIG_FILE"
}

# A start that failed leaves its logs and nothing else.
failed() {
  trap - EXIT
  end_step
  rm -rf "$STATES/$NAME-failed"
  [ ! -d "$STATE/log" ] || cp -r "$STATE/log" "$STATES/$NAME-failed"
  take_down
  say "cluster $NAME did not start; its logs are in $STATES/$NAME-failed"
  exit "$1"
}

# first_process_below PID: the child that is number 1 of a PID namespace of its own; others come and go.
first_process_below() {
  local pid
  for pid in $(pgrep -P "$1"); do
    if awk '/^NSpid:/ && $NF == 1 && NF > 2 { found = 1 } END { exit !found }' "/proc/$pid/status" 2>/dev/null; then
      echo "$pid"
      return
    fi
  done
  return 1
}

is_up() { [ -f "$STATE/up" ] && node_is_alive; }

# The number alone proves nothing: numbers are used again. The start time tells them apart.
node_is_alive() {
  local pid born
  read -r pid born 2>/dev/null <"$STATE/pid" || return 1
  [ -n "$born" ] && [ "$(birth_of "$pid")" = "$born" ]
}

node_pid() { cut -d ' ' -f 1 "$STATE/pid"; }

# When a process began, in ticks since the machine did; empty when there is none.
birth_of() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

start_node() {
  local outer pid
  make_cgroups
  (
    enter_cgroups
    # A lock that the cluster held would be held for as long as it runs.
    exec 8>&- 9>&-
    exec setsid unshare --net --mount --cgroup --ipc --pid --fork --mount-proc --kill-child --propagation private \
      "$here/node.sh" >"$STATE/log/node" 2>&1 </dev/null
  ) &
  outer=$!
  until pid=$(first_process_below "$outer"); do
    kill -0 "$outer"
    sleep 0.05
  done
  echo "$pid $(birth_of "$pid")" >"$STATE/pid"
  ip link add "$LINK" type veth peer name node0 netns "$pid"
  ip link set "$LINK" alias "helpdesk-operator cluster $NAME"
  ip addr add "$HOST_IP/24" dev "$LINK"
  # More clients, for what depends on where requests come from.
  local client
  for client in $(clients4) "${HOST_IP%.*}.253"; do ip addr add "$client/24" dev "$LINK"; done
  ip link set "$LINK" up
  # What runs on this machine reaches pods and services by their own addresses.
  ip route add "$SERVICES" via "$NODE_IP" dev "$LINK"
  ip route add "$PODS" via "$NODE_IP" dev "$LINK"
  if [ -n "$V6_NODE" ]; then
    ip addr add "$V6_HOST/64" dev "$LINK" nodad
    # Deprecated ones are never chosen, and usable by who binds to them.
    for client in $(clients6); do ip addr add "$client/64" dev "$LINK" nodad preferred_lft 0; done
    ip route add "$V6_SERVICES" via "$V6_NODE" dev "$LINK"
    ip route add "$V6_PODS" via "$V6_NODE" dev "$LINK"
  fi
  local _
  for _ in $(seq 600); do
    if [ -f "$STATE/node/ready" ]; then return; fi
    if [ -f "$STATE/node/died" ]; then
      echo "$(cat "$STATE/node/died") ended:"
      tail -n 15 "$STATE/log/$(cat "$STATE/node/died")"
      return 1
    fi
    if ! node_is_alive; then
      tail -n 15 "$STATE/log/node"
      return 1
    fi
    sleep 0.2
  done
  echo "the node was not ready after 120 s"
  return 1
}

# ---- down ----

down() {
  require_root
  lock_cluster
  if [ -d "$STATE" ]; then
    take_down
    say "cluster $NAME is down"
  else
    take_down # a start that was killed early may have left cgroups
    say "cluster $NAME is not running"
  fi
}

# Safe at any time and in any state, as often as one likes.
take_down() {
  local pid _
  if node_is_alive; then kill -9 "$(node_pid)" || true; fi # PID 1 of its namespace: everything in it ends too
  # Only this script puts processes into these cgroups, so what is left there is ours.
  for _ in $(seq 100); do
    [ -n "$(cgroup_pids)" ] || break
    for pid in $(cgroup_pids); do kill -9 "$pid" 2>/dev/null || true; done
    sleep 0.1
  done
  [ -z "$(cgroup_pids)" ] || die "processes of cluster $NAME do not end: $(cgroup_pids | tr '\n' ' ')"
  if [ "$(cat "/sys/class/net/$LINK/ifalias" 2>/dev/null)" = "helpdesk-operator cluster $NAME" ]; then
    ip link del "$LINK" 2>/dev/null || true # it goes by itself, a little later
  fi
  remove_cgroups
  rm -rf "$STATE"
}

# ---- while it runs ----

require_up() { is_up || die "cluster $NAME is not running: cluster $NAME up"; }

inside() {
  [ $# -gt 0 ] || usage
  require_root
  require_up
  set -a
  # shellcheck source=/dev/null
  . "$STATE/env"
  set +a
  exec nsenter --target "$(node_pid)" --net --mount --cgroup --ipc --pid --wd="$PWD" \
    env KUBECONFIG="$KUBECONFIG_FILE" PATH="$BIN:$PATH" "$@"
}

status() {
  if ! is_up; then
    say "cluster $NAME is not running"
    return 1
  fi
  local pid kib=0
  for pid in $(cgroup_pids); do
    kib=$((kib + $(awk '/^Pss:/ { n = $2 } END { print n + 0 }' "/proc/$pid/smaps_rollup" 2>/dev/null || echo 0)))
  done
  echo "cluster     $NAME, up since $(stat -c %y "$STATE/up" | cut -d . -f 1)"
  echo "kubeconfig  $KUBECONFIG_FILE"
  echo "addresses   node $NODE_IP, services $SERVICES, pods $PODS, on $LINK"
  echo "memory      $((kib / 1024)) MiB, $(cgroup_pids | wc -l) processes"
  echo "disk        $(du -sh "$STATE" 2>/dev/null | cut -f 1) in $STATE"
  "$BIN/kubectl" --kubeconfig "$KUBECONFIG_FILE" get pods -A
}
