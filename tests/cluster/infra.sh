# shellcheck shell=bash
# What the operator works with: DNS, two PostgreSQL servers, two S3 servers, and the Secrets for them.

# The third is for tests of the driver alone: no operator may have made a ledger there.
DATABASES=(pg-eu-1 pg-eu-2 pg-eu-3)
STORES=(s3-eu-1 s3-eu-2)
# Of other major versions, when asked for.
VERSIONS=(pg-16 pg-18)
OPERATOR_NAMESPACE=helpdesk-operator
OURS=helpdesk-operator.io/made-for=tests

POSTGRES_IMAGE=${HELPDESK_IMAGE_POSTGRES:-localhost/postgres:$POSTGRES_MAJOR}
VERSITYGW_IMAGE=${HELPDESK_IMAGE_VERSITYGW:-localhost/versitygw:$VERSITYGW_VERSION}

kubectl() { "$BIN/kubectl" "$@"; }

# The last bytes of the addresses of servers that stories start themselves, tests/stories/postgres.rs.
STORY_SERVERS=({101..180})

# Own clusters have fixed service addresses, so that a test can know them in advance.
address_of() {
  case $1 in
    pg-eu-1) echo "$SERVICE_PREFIX.21" ;;
    pg-eu-2) echo "$SERVICE_PREFIX.22" ;;
    pg-eu-3) echo "$SERVICE_PREFIX.23" ;;
    pg-16) echo "$SERVICE_PREFIX.24" ;;
    pg-18) echo "$SERVICE_PREFIX.25" ;;
    s3-eu-1) echo "$SERVICE_PREFIX.31" ;;
    s3-eu-2) echo "$SERVICE_PREFIX.32" ;;
  esac
}

start_infra() {
  local server
  umask 077
  mkdir -p "$STATE/infra"
  sed "s/\${DNS}/$SERVICE_PREFIX.10/; s/\${COREDNS}/$COREDNS_VERSION/" "$here/infra/coredns.yaml" | apply
  issue_infra_ca
  for server in "${DATABASES[@]}"; do issue_infra_certificate "$server" databases; done
  for server in "${STORES[@]}"; do issue_infra_certificate "$server" storage; done
  make_passwords
  make_data_directories
  prepare_story_servers
  infra_manifests | apply
  write_env
  wait_for_infra
  kubectl -n kube-system rollout status deployment/coredns --timeout 120s
  fill_stores
}

# ---- servers of other major versions ----

add_versions() {
  export KUBECONFIG=$KUBECONFIG_FILE
  step "starting PostgreSQL ${VERSIONS[*]#pg-}" "$STATE/log/versions" start_versions
  touch "$STATE/versions"
}

start_versions() {
  # What is done for all servers is done for these alone.
  local DATABASES=("${VERSIONS[@]}") STORES=() server
  umask 077
  in_node ctr --namespace k8s.io images import "$IMAGES/postgres-versions.tar"
  for server in "${DATABASES[@]}"; do issue_infra_certificate "$server" databases; done
  make_passwords
  make_data_directories
  infra_manifests | apply
  {
    echo "HELPDESK_TEST_POSTGRESQL=$CACHE/postgresql"
    echo "HELPDESK_TEST_SCHEMAS=$CACHE/schemas"
    write_server_env
  } >>"$STATE/env"
  wait_for_infra
}

apply() { kubectl apply --server-side --force-conflicts -f - >/dev/null; }

# ---- secrets: made anew for every cluster, kept in files that only root reads, never on a command line ----

secret_of() { cat "$STATE/infra/$1"; }

make_passwords() {
  local server account
  for server in "${DATABASES[@]}"; do
    for account in superuser admin; do openssl rand -hex 24 >"$STATE/infra/$server.$account"; done
  done
  for server in "${STORES[@]}"; do
    for account in root put erase escrow; do openssl rand -hex 20 >"$STATE/infra/$server.$account"; done
  done
}

issue_infra_ca() {
  (
    cd "$STATE/infra"
    openssl ecparam -name prime256v1 -genkey -noout -out ca.key
    openssl req -x509 -new -key ca.key -out ca.crt -subj "/CN=helpdesk-operator infrastructure" -days 365
  )
  install -m 644 "$STATE/infra/ca.crt" "$STATE/ca.crt"
}

# issue_infra_certificate SERVER NAMESPACE [NAMES]
issue_infra_certificate() {
  local names=${3:-DNS:$1.$2.svc,DNS:$1.$2.svc.cluster.local,DNS:$1.$2,DNS:localhost,IP:127.0.0.1}
  [ "$NAME" = current ] || [ -n "${3:-}" ] || names=$names,IP:$(address_of "$1")
  (
    cd "$STATE/infra"
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
    openssl req -new -key "$1.key" -subj "/CN=$1" |
      openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -out "$1.crt" -days 365 \
        -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "$names")
  )
}

# Folders and a certificate, so that a test can start a server without root's rights.
prepare_story_servers() {
  local number names=DNS:localhost,IP:127.0.0.1
  for number in "${STORY_SERVERS[@]}"; do
    names=$names,IP:$SERVICE_PREFIX.$number
    install -d -m 700 -o 999 -g 999 "$STATE/data/story-$number"
  done
  issue_infra_certificate stories databases "$names"
}

# secret NAMESPACE NAME KEY=VALUE|KEY@FILE...
secret() {
  local pair
  printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {namespace: %s, name: %s}\ndata:\n' "$1" "$2"
  shift 2
  for pair in "$@"; do
    case $pair in
      *@*) printf '  %s: %s\n' "${pair%%@*}" "$(base64 -w0 "${pair#*@}")" ;;
      *) printf '  %s: %s\n' "${pair%%=*}" "$(printf '%s' "${pair#*=}" | base64 -w0)" ;;
    esac
  done
}

# The access keys of S3 accounts. The root's is the bucket owner's account number too.
root_of() { case $1 in s3-eu-1) echo 100000000001 ;; s3-eu-2) echo 100000000002 ;; esac }

accounts_of() {
  local account comma=
  printf '{"accessAccounts": {'
  for account in put erase escrow; do
    printf '%s"%s": {"access": "%s", "secret": "%s", "role": "user"}' "$comma" "$account" "$account" "$(secret_of "$1.$account")"
    comma=', '
  done
  printf '}}'
}

infra_secrets() {
  local server files=$STATE/infra
  for server in "${DATABASES[@]}"; do
    secret databases "$server" "tls.crt@$files/$server.crt" "tls.key@$files/$server.key" \
      "superuser-password=$(secret_of "$server.superuser")" "admin-password=$(secret_of "$server.admin")"
    secret $OPERATOR_NAMESPACE "$server-admin" username=helpdesk_admin "password=$(secret_of "$server.admin")" \
      "host=$server.databases.svc"
  done
  for server in "${STORES[@]}"; do
    secret storage "$server" "tls.crt@$files/$server.crt" "tls.key@$files/$server.key" \
      "root-access-key=$(root_of "$server")" "root-secret-key=$(secret_of "$server.root")" "users.json=$(accounts_of "$server")"
    secret $OPERATOR_NAMESPACE "$server" accessKeyID=put "secretAccessKey=$(secret_of "$server.put")"
    secret $OPERATOR_NAMESPACE "$server-erase" accessKeyID=erase "secretAccessKey=$(secret_of "$server.erase")"
    secret $OPERATOR_NAMESPACE "$server-escrow" accessKeyID=escrow "secretAccessKey=$(secret_of "$server.escrow")"
  done
  [ ! -f "$files/stories.crt" ] || secret databases stories "tls.crt@$files/stories.crt" "tls.key@$files/stories.key"
  secret $OPERATOR_NAMESPACE s3-escrow accessKeyID=escrow "secretAccessKey=$(secret_of s3-eu-1.escrow)"
  secret $OPERATOR_NAMESPACE pg-ca "ca.crt@$files/ca.crt"
  secret $OPERATOR_NAMESPACE s3-ca "ca.crt@$files/ca.crt"
}

# ---- pods ----

# On a path of this machine a pod that was deleted finds its data again.
make_data_directories() {
  local server
  [ "$NAME" != current ] || return 0
  mkdir -p "$STATE/data"
  chmod 711 "$STATE/data"
  for server in "${DATABASES[@]}"; do install -d -m 700 -o 999 -g 999 "$STATE/data/$server"; done
  for server in "${STORES[@]}"; do install -d -m 700 -o 65532 -g 65532 "$STATE/data/$server"; done
}

infra_manifests() {
  local server
  cat "$here/infra/namespaces.yaml"
  infra_secrets
  for server in "${DATABASES[@]}"; do
    echo ---
    manifest "$here/infra/postgresql.yaml" "$server" "$(image_of "$server")"
  done
  for server in "${STORES[@]}"; do
    echo ---
    manifest "$here/infra/versitygw.yaml" "$server" "$VERSITYGW_IMAGE"
  done
}

image_of() {
  case $1 in
    pg-16 | pg-18) echo localhost/postgres-versions:1 ;;
    *) echo "$POSTGRES_IMAGE" ;;
  esac
}

# In a cluster that is somebody's own nothing is known of paths and addresses: data lives as
# long as its pod, and the service takes what address it gets.
manifest() {
  local fit major=${2#pg-}
  case $2 in
    pg-16 | pg-18) fit="s#\${PATH}#/opt/postgresql/$major/native/bin:/usr/lib/postgresql/$POSTGRES_MAJOR/bin:/usr/bin:/bin#;" ;;
    *) fit='/name: PATH/d;' ;;
  esac
  if [ "$NAME" = current ]; then
    fit="$fit"'/clusterIP:/d; s#imagePullPolicy: Never#imagePullPolicy: IfNotPresent#'
  else
    fit="$fit s#{name: data, emptyDir: {}}#{name: data, hostPath: {path: $STATE/data/$2, type: Directory}}#; s#\${ADDRESS}#$(address_of "$2")#"
  fi
  sed -e "s#\${NAME}#$2#g" -e "s#\${IMAGE}#$3#g" -e "$fit" "$1"
}

wait_for_infra() {
  local server
  for server in "${DATABASES[@]}"; do wait_for_rollout databases "$server"; done
  for server in "${STORES[@]}"; do wait_for_rollout storage "$server"; done
}

wait_for_rollout() {
  if ! kubectl -n "$1" rollout status "statefulset/$2" --timeout 120s; then
    kubectl -n "$1" describe pods
    kubectl -n "$1" logs "$2-0" --tail 20
    return 1
  fi
}

fill_stores() {
  local server port forward
  for server in "${STORES[@]}"; do
    if [ "$NAME" = current ]; then
      # Port 0 is any free one; which it became is in the first line that kubectl prints.
      # The program and not the function, which would be a shell around it that dies alone.
      "$BIN/kubectl" -n storage port-forward "service/$server" :443 >"$STATE/infra/forward" 9>&- &
      forward=$!
      until port=$(grep -oPm 1 '127\.0\.0\.1:\K[0-9]+' "$STATE/infra/forward"); do
        kill -0 "$forward"
        sleep 0.1
      done
      fill_store "$server" "https://localhost:$port"
      kill "$forward"
    else
      fill_store "$server" "https://$(address_of "$server")"
    fi
  done
}

fill_store() {
  AWS_ACCESS_KEY_ID=$(root_of "$1") AWS_SECRET_ACCESS_KEY=$(secret_of "$1.root") AWS_CA_BUNDLE=$STATE/ca.crt \
    "$CACHE/venv/bin/python" "$here/buckets.py" "$2"
}

# ---- what tests get to know ----

write_env() {
  {
    echo "HELPDESK_TEST_CLUSTER=$NAME"
    echo "HELPDESK_TEST_KUBECONFIG=$KUBECONFIG_FILE"
    echo "HELPDESK_TEST_BIN=$BIN"
    echo "HELPDESK_TEST_PYTHON=$CACHE/venv/bin/python"
    echo "HELPDESK_TEST_CA=$STATE/ca.crt"
    echo "HELPDESK_TEST_STORY_NETWORK=$SERVICE_PREFIX"
    write_server_env
  } >"$STATE/env"
}

write_server_env() {
  local server prefix
  for server in "${DATABASES[@]}"; do
    prefix=HELPDESK_TEST_$(variable "$server")
    echo "${prefix}_HOST=$(address_of "$server")"
    echo "${prefix}_PASSWORD=$(secret_of "$server.superuser")"
    echo "${prefix}_URL='postgres://postgres:$(secret_of "$server.superuser")@$(address_of "$server"):5432/postgres?sslmode=verify-full&sslrootcert=$STATE/ca.crt'"
  done
  for server in "${STORES[@]}"; do
    prefix=HELPDESK_TEST_$(variable "$server")
    echo "${prefix}_ENDPOINT=https://$(address_of "$server")"
    echo "${prefix}_ACCESS_KEY_ID=$(root_of "$server")"
    echo "${prefix}_SECRET_ACCESS_KEY=$(secret_of "$server.root")"
  done
}

variable() { tr a-z- A-Z_ <<<"$1"; }

# ---- somebody's own cluster ----

current_up() {
  require_own_states
  lock_cluster
  build_tools
  KUBECONFIG_FILE=${KUBECONFIG:-$HOME/.kube/config}
  say "using the cluster of context $(kubectl config current-context)"
  if [ -f "$STATE/up" ] && [ -n "$(kubectl get namespace --selector "$OURS" --output name)" ]; then
    say "PostgreSQL and S3 are there"
    return
  fi
  local namespace
  for namespace in databases storage; do
    [ -z "$(kubectl get namespace "$namespace" --ignore-not-found --output name)" ] ||
      die "your cluster has a namespace $namespace already, and this would fill and later delete it"
  done
  trap 'end_step; exit 130' INT TERM HUP
  mkdir -p "$STATE/log"
  chmod 711 "$STATE"
  step "starting PostgreSQL and S3" "$STATE/log/infra" start_current
  touch "$STATE/up"
}

start_current() {
  local server
  umask 077
  mkdir -p "$STATE/infra"
  issue_infra_ca
  for server in "${DATABASES[@]}"; do issue_infra_certificate "$server" databases; done
  for server in "${STORES[@]}"; do issue_infra_certificate "$server" storage; done
  make_passwords
  infra_manifests | apply
  wait_for_infra
  fill_stores
}

# The operator and its namespace stay: taking those away is for whoever installed them.
current_down() {
  require_own_states
  lock_cluster
  kubectl delete namespace --selector "$OURS" --ignore-not-found
  rm -rf "$STATE"
}
