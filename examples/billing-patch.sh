#!/usr/bin/env bash
# What billing writes when a subscription changes: billing-patch.sh ACCOUNT STATE SEQUENCE [SINCE [DELINQUENT-SINCE]]
#
#   billing-patch.sh acme Active 41
#   billing-patch.sh acme PastDue 42
#   billing-patch.sh acme Unpaid 43 2026-11-20T10:00:00Z 2026-11-16T10:00:00Z
#
# SEQUENCE is higher with every change, so an event that arrives late or twice changes nothing. delinquentSince is the
# first failure of this run of failures; it is cleared when there is none, or the next run would inherit it.
# KUBECTL='kubectl --as=system:serviceaccount:helpdesk-operator:billing' does it with billing's rights.
set -euo pipefail

account=${1:?account} state=${2:?state} sequence=${3:?sequence}
since=${4:-$(date -u +%Y-%m-%dT%H:%M:%SZ)}
case $state in
  PastDue | Unpaid) delinquent="\"${5:-$since}\"" ;;
  *) delinquent=null ;;
esac

read -ra kubectl <<<"${KUBECTL:-kubectl}"
exec "${kubectl[@]}" patch helpdeskaccount "$account" --subresource=status --type=merge --patch "
{\"status\": {\"billing\": {\"state\": \"$state\", \"since\": \"$since\", \"delinquentSince\": $delinquent, \"sequence\": $sequence}}}"
