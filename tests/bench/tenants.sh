# shellcheck shell=bash
# Run in the pod of a PostgreSQL server: tenants.sh PREFIX COUNT VERIFIER
# Makes tenants by the statements of src/database/postgres/tenant.rs, four at once, and prints the seconds it took.
set -euo pipefail
export PGHOST=127.0.0.1 PGSSLMODE=require PGUSER=helpdesk_admin PGPASSWORD=$ADMIN_PASSWORD PGDATABASE=postgres

make() {
  local name=$1_$2
  psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --output=/dev/null <<SQL
SELECT oid FROM pg_database WHERE datname = '$name';
BEGIN\; CREATE ROLE ${name}_own NOLOGIN\; COMMENT ON ROLE ${name}_own IS '$name'\; GRANT ${name}_own TO CURRENT_USER WITH INHERIT TRUE, SET TRUE\; CREATE ROLE ${name}_a LOGIN CONNECTION LIMIT 10 IN ROLE ${name}_own PASSWORD '$3'\; COMMENT ON ROLE ${name}_a IS '$name'\; GRANT ${name}_a TO CURRENT_USER WITH INHERIT TRUE, SET TRUE\; COMMIT;
CREATE DATABASE $name TEMPLATE template0 ENCODING 'UTF8' ALLOW_CONNECTIONS false CONNECTION LIMIT 28;
SELECT oid FROM pg_database WHERE datname = '$name';
BEGIN\; COMMENT ON DATABASE $name IS '$name'\; REVOKE ALL ON DATABASE $name FROM PUBLIC\; ALTER DATABASE $name ALLOW_CONNECTIONS true\; COMMIT;
\connect $name
BEGIN\; CREATE SCHEMA IF NOT EXISTS app AUTHORIZATION ${name}_own\; ALTER ROLE ${name}_a IN DATABASE $name SET role = '${name}_own'\; ALTER ROLE ${name}_a IN DATABASE $name SET search_path = app\; GRANT CONNECT, TEMPORARY ON DATABASE $name TO ${name}_own\; COMMIT;
SQL
}
export -f make

began=$EPOCHREALTIME
seq "$2" | xargs --max-procs=4 -I{} bash -c 'set -e; make "$@"' make "$1" {} "$3"
awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f\n", b - a }'
