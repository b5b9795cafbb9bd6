#!/usr/bin/env bash
# The node: PID 1 of the cluster's namespaces. Killing it ends the cluster.
set -euo pipefail
shopt -s inherit_errexit

DIR=$STATE/node
KUBERNETES=$BIN/kubernetes
KUBECTL=$BIN/kubectl

main() {
  hide_the_machine
  mkdir -p "$DIR"
  cd "$DIR"
  connect
  start containerd start_containerd
  issue_certificates
  start etcd "$KUBERNETES" etcd --data-dir etcd --unsafe-no-fsync --listen-peer-urls http://127.0.0.1:2380 \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
  start apiserver start_apiserver
  import_images
  until "$KUBECTL" --kubeconfig admin.kubeconfig get --raw /readyz >/dev/null 2>&1; do sleep 0.3; done
  start controller-manager "$KUBERNETES" kube-controller-manager --kubeconfig controller-manager.kubeconfig \
    --root-ca-file ca.crt --service-account-private-key-file sa.key --use-service-account-credentials --leader-elect=false
  start scheduler "$KUBERNETES" kube-scheduler --kubeconfig scheduler.kubeconfig --leader-elect=false
  start kubelet start_kubelet
  start kube-proxy "$KUBERNETES" kube-proxy --kubeconfig admin.kubeconfig --hostname-override node1 \
    --proxy-mode iptables --cluster-cidr "$PODS${V6_PODS:+,$V6_PODS}" --conntrack-max-per-core 0
  until "$KUBECTL" --kubeconfig admin.kubeconfig wait node/node1 --for condition=Ready --timeout 60s >/dev/null 2>&1; do
    sleep 0.3
  done
  touch ready
  watch_over
}

declare -A COMPONENTS

# start NAME COMMAND...
start() {
  local name=$1
  shift
  "$@" >"$STATE/log/$name" 2>&1 &
  COMPONENTS[$!]=$name
}

# Also collects orphans, of which every pod leaves one behind with its shim.
watch_over() {
  local pid
  while wait -n -p pid || true; do
    if [ -n "${pid:-}" ] && [ -n "${COMPONENTS[$pid]:-}" ]; then
      echo "${COMPONENTS[$pid]} ended" >&2
      echo "${COMPONENTS[$pid]}" >died
      sleep 1
    fi
  done
}

# What other nodes on this machine also use must be this node's own.
hide_the_machine() {
  local mount
  mount --make-rprivate /
  while read -r mount; do
    umount "$mount"
    case $mount in
      */systemd) mount -t cgroup -o none,name=systemd cgroup "$mount" ;;
      *) mount -t cgroup -o "$(basename "$mount")" cgroup "$mount" ;;
    esac
  done < <(awk '$3 == "cgroup" && $2 ~ "^/sys/fs/cgroup/" { print $2 }' /proc/self/mounts)
  mount -t tmpfs tmpfs /run
  # The first keeps the addresses of pods, the second has a socket of the kubelet's wherever its root is.
  mkdir -p /run/containerd /var/lib/cni /var/lib/kubelet
  mount -t tmpfs tmpfs /var/lib/cni
  mount -t tmpfs tmpfs /var/lib/kubelet
  # The kubelet links every container's log from here.
  mkdir -p "$STATE/log/pods"
  mount --bind "$STATE/log/pods" /var/log
}

connect() {
  until ip link show node0 >/dev/null 2>&1; do sleep 0.05; done
  ip link set lo up
  ip addr add "$NODE_IP/24" dev node0
  ip link set node0 up
  ip route add default via "$HOST_IP"
  echo 1 >/proc/sys/net/ipv4/ip_forward
  [ -n "$V6_NODE" ] || return 0
  ip addr add "$V6_NODE/64" dev node0 nodad
  ip route add default via "$V6_HOST"
  echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
}

# ---- who is who ----

issue_certificates() {
  key sa
  key ca
  openssl req -x509 -new -key ca.key -out ca.crt -subj /CN=helpdesk-operator-cluster -days 365 2>/dev/null
  certificate apiserver /CN=kube-apiserver \
    "IP:127.0.0.1,IP:$NODE_IP,IP:$SERVICE_PREFIX.1,DNS:localhost,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  kubeconfig admin /O=system:masters/CN=admin
  kubeconfig kubelet /O=system:nodes/CN=system:node:node1
  kubeconfig controller-manager /CN=system:kube-controller-manager
  kubeconfig scheduler /CN=system:kube-scheduler
}

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key" 2>/dev/null; }

# certificate NAME SUBJECT NAMES
certificate() {
  key "$1"
  openssl req -new -key "$1.key" -subj "$2" 2>/dev/null |
    openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -out "$1.crt" -days 365 \
      -extfile <(echo "subjectAltName=$3") 2>/dev/null
}

# kubeconfig NAME SUBJECT
kubeconfig() {
  certificate "$1" "$2" DNS:client
  (
    umask 077
    cat >"$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
current-context: helpdesk
contexts: [{name: helpdesk, context: {cluster: helpdesk, user: $1}}]
clusters: [{name: helpdesk, cluster: {server: "https://$NODE_IP:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
YAML
  )
}

# ---- components ----

# Listens everywhere: pods come through the node's address, and 127.0.0.1 would refuse them.
start_apiserver() {
  exec "$KUBERNETES" kube-apiserver --etcd-servers http://127.0.0.1:2379 --bind-address 0.0.0.0 --secure-port 6443 \
    --advertise-address "$NODE_IP" --tls-cert-file apiserver.crt --tls-private-key-file apiserver.key \
    --client-ca-file ca.crt --authorization-mode Node,RBAC --allow-privileged \
    --kubelet-client-certificate admin.crt --kubelet-client-key admin.key --kubelet-preferred-address-types InternalIP \
    --service-cluster-ip-range "$SERVICES${V6_SERVICES:+,$V6_SERVICES}" --service-node-port-range 80-32767 \
    --service-account-issuer https://kubernetes.default.svc --service-account-key-file sa.key \
    --service-account-signing-key-file sa.key
}

start_containerd() {
  local ranges="[{\"subnet\": \"$PODS\"}]" routes='{"dst": "0.0.0.0/0"}'
  if [ -n "$V6_PODS" ]; then
    ranges="$ranges, [{\"subnet\": \"$V6_PODS\"}]"
    routes="$routes, {\"dst\": \"::/0\"}"
  fi
  mkdir -p cni
  cat >cni/10-pods.conflist <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [$ranges], "routes": [$routes]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  # restrict_oom_score_adj: where oom_score_adj may not be lowered, runc dies without it.
  cat >containerd.toml <<TOML
version = 2
root = "$DIR/containerd"
state = "/run/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$DIR/cni"
[plugins."io.containerd.internal.v1.opt"]
  path = "$DIR/containerd-opt"
TOML
  exec containerd --config containerd.toml
}

import_images() {
  local image
  until [ -S /run/containerd/containerd.sock ]; do sleep 0.1; done
  for image in pause coredns postgres versitygw; do
    ctr --namespace k8s.io images import "$IMAGES/$image.tar"
  done
}

start_kubelet() {
  cat >kubelet.yaml <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {x509: {clientCAFile: $DIR/ca.crt}, webhook: {enabled: true}, anonymous: {enabled: false}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDNS: [$SERVICE_PREFIX.10]
clusterDomain: cluster.local
resolvConf: ""
maxPods: 240
volumePluginDir: $DIR/volume-plugins
# The disk is the machine's and fuller than a node's would be: evict nothing, collect no image.
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
YAML
  exec "$KUBERNETES" kubelet --config kubelet.yaml --kubeconfig kubelet.kubeconfig --root-dir "$STATE/kubelet" \
    --cert-dir "$DIR/kubelet-pki" --hostname-override node1 --node-ip "$NODE_IP${V6_NODE:+,$V6_NODE}"
}

main
