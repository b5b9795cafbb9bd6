# shellcheck shell=bash
# The edge, when asked for: Envoy Gateway, a Gateway at addresses of its own, and clients of it.

# Of every tenant's address in the tests.
BASE_DOMAIN=helpdesk.example
EDGE_NAMESPACE=envoy-gateway-system

# Where this machine's clients of the edge come from.
clients4() { printf '%s\n' "${NODE_IP%.*}".{201,202,203}; }
clients6() { [ -z "$V6_NODE" ] || printf '%s\n' "$V6_NET":200::{201,202,203}; }

# addresses_of GATEWAY: what its load balancer has, IPv4 first.
addresses_of() {
  local number
  case $1 in
    edge) number=80 ;;
    # Of a Gateway that a story makes; it writes them into its Service's status itself.
    spare) number=81 ;;
  esac
  echo "${NODE_IP%.*}.$number"
  [ -z "$V6_NODE" ] || echo "$V6_NET:200::$number"
}

add_edge() {
  export KUBECONFIG=$KUBECONFIG_FILE
  step "starting Envoy Gateway" "$STATE/log/edge" start_edge
  touch "$STATE/edge"
}

start_edge() {
  local image
  umask 077
  for image in envoy envoy-gateway echo request-tracker django-helpdesk mail; do in_node ctr --namespace k8s.io images import "$IMAGES/$image.tar"; done
  "$BIN/helm" upgrade --install eg "$CACHE/gateway-helm" -n "$EDGE_NAMESPACE" --create-namespace --timeout 90s
  kubectl -n "$EDGE_NAMESPACE" rollout status deployment/envoy-gateway --timeout 120s
  kubectl apply --server-side --filename "$CACHE/cert-manager"
  issue_infra_certificate wildcard edge "DNS:*.$BASE_DOMAIN"
  issue_infra_certificate login edge DNS:login.edge.svc
  edge_manifests | apply
  have_addresses edge
  have_addresses spare
  balance_load edge
  kubectl -n edge wait --for=condition=Programmed gateway/edge --timeout 120s
  write_edge_env >>"$STATE/env"
}

edge_manifests() {
  sed "s/\${ENVOY}/${ENVOY_VERSION%.*}/; s/\${BASE}/$BASE_DOMAIN/; s/\${FAMILY}/$([ -n "$V6_NODE" ] && echo DualStack || echo IPv4)/" \
    "$here/infra/gateway.yaml"
  echo ---
  kubectl -n "$EDGE_NAMESPACE" create configmap authorities --from-file "$STATE/infra/ca.crt" --dry-run=client --output yaml
  echo ---
  kubectl -n edge create secret tls wildcard --cert "$STATE/infra/wildcard.crt" --key "$STATE/infra/wildcard.key" --dry-run=client --output yaml
}

# have_addresses GATEWAY: the node itself answers at them.
have_addresses() {
  local address
  for address in $(addresses_of "$1"); do
    case $address in
      *:*) in_node ip addr replace "$address/128" dev node0 nodad ;;
      *) in_node ip addr replace "$address/32" dev node0 ;;
    esac
  done
}

# balance_load GATEWAY: what a cloud's controller would do.
balance_load() {
  local address service ingress=
  for address in $(addresses_of "$1"); do ingress="$ingress${ingress:+, }{\"ip\": \"$address\"}"; done
  until service=$(kubectl -n "$EDGE_NAMESPACE" get services --selector "gateway.envoyproxy.io/owning-gateway-name=$1" --output name) &&
    [ -n "$service" ]; do sleep 0.2; done
  kubectl -n "$EDGE_NAMESPACE" patch "$service" --subresource status --type merge --patch "{\"status\": {\"loadBalancer\": {\"ingress\": [$ingress]}}}"
}

write_edge_env() {
  local address6
  echo "HELPDESK_TEST_EDGE_ADDRESS=$(addresses_of edge | head -n 1)"
  echo "HELPDESK_TEST_EDGE_CLIENTS=$(clients4 | paste -sd ,)"
  # Empty where this machine has no IPv6.
  address6=$(addresses_of edge | tail -n +2)
  echo "HELPDESK_TEST_EDGE_SPARE_ADDRESSES=$(addresses_of spare | paste -sd ,)"
  echo "HELPDESK_TEST_EDGE_ADDRESS6=$address6"
  echo "HELPDESK_TEST_EDGE_CLIENTS6=$(clients6 | paste -sd ,)"
  echo "HELPDESK_TEST_EDGE_CERTIFICATE=$STATE/infra/wildcard.crt"
  echo "HELPDESK_TEST_ECHO_IMAGE=localhost/echo:1"
  echo "HELPDESK_TEST_LOGIN=$CACHE/login"
  echo "HELPDESK_TEST_LOGIN_CERTIFICATE=$STATE/infra/login.crt"
  echo "HELPDESK_TEST_LOGIN_KEY=$STATE/infra/login.key"
  echo "HELPDESK_TEST_COREDNS=$BIN/coredns"
  echo "HELPDESK_TEST_PEBBLE=$BIN/pebble"
}
