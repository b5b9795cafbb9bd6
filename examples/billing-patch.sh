#!/usr/bin/env bash
# What billing writes when a subscription changes: billing-patch.sh ACCOUNT STATE SEQUENCE [SINCE [TIME]]
#
#   billing-patch.sh acme Active 41
#   billing-patch.sh acme PastDue 42
#   billing-patch.sh acme PastDue 43                                            # the charge was tried again, and failed
#   billing-patch.sh acme Unpaid 44 2026-11-20T10:00:00Z 2026-11-16T10:00:00Z
#   billing-patch.sh acme Canceled 45 2026-11-22T10:00:00Z 2026-12-01T00:00:00Z
#
# SEQUENCE is higher with every change, so an event that arrives late or twice changes nothing. SINCE is when the state
# began, best as the event itself says it. TIME is for PastDue and Unpaid the first failure of this run of failures, for
# Canceled the end of the period that is paid for; other states have none. Without one SINCE is it, and the first word of
# a run counts: a retry moves nothing. Every field is written, null where there is none, because a merge patch leaves
# standing what it does not name.
# SUBSCRIPTION=sub_123 names the subscription, so that the late end of one that was replaced changes nothing.
# KUBECTL='kubectl --as=system:serviceaccount:helpdesk-operator:billing' does it with billing's rights.
set -euo pipefail

account=${1:?account} state=${2:?state} sequence=${3:?sequence}
since=${4:-$(date -u +%Y-%m-%dT%H:%M:%SZ)}
time=${5:+"\"$5\""}
delinquent=null end=null
case $state in
  PastDue | Unpaid) delinquent=${time:-null} ;;
  Canceled) end=${time:-null} ;;
esac
subscription=${SUBSCRIPTION:+"\"$SUBSCRIPTION\""}

read -ra kubectl <<<"${KUBECTL:-kubectl}"
exec "${kubectl[@]}" patch helpdeskaccount "$account" --subresource=status --type=merge --patch "
{\"status\": {\"billing\": {\"state\": \"$state\", \"since\": \"$since\", \"delinquentSince\": $delinquent, \"periodEnd\": $end,
  \"subscription\": ${subscription:-null}, \"sequence\": $sequence}}}"
