{{/* What the schema cannot refuse with words that help. */}}
{{- define "helpdesk.refusals" -}}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version"
      "app.kubernetes.io/managed-by" "helm.sh/chart" }}
{{- range $label, $_ := .Values.commonLabels }}
{{- if has $label $own }}
{{- fail (printf "commonLabels: %s is the chart's own, by which selectors and people find its objects; choose another name" $label) }}
{{- end }}
{{- /* The first mark namespaces of tenants; the second would add the operator's rights to everybody's roles. */}}
{{- if regexMatch "^(helpdesk-operator|rbac\\.authorization\\.k8s)\\.io/" $label }}
{{- fail (printf "commonLabels: %s has a meaning that is not meant for every object; choose another name" $label) }}
{{- end }}
{{- end }}
{{- $arguments := dict "namespace" "the release's namespace" "image" "image" "mover-pod" "movers" "shard" "shard"
      "concurrency" "concurrency" "owner-namespace" "owners.namespaces" "copies-kept" "copiesKept" "prove-again" "web.proveAgain"
      "resolver" "web.resolvers" "billing-lease" "billing.lease" "mail" "mail.enabled" "mail-hostname" "mail.hostname"
      "runbook-base-url" "prometheusRule.runbookBaseUrl" }}
{{- range .Values.extraArgs }}
{{- $name := . | trimPrefix "--" | splitList "=" | first }}
{{- if hasKey $arguments $name }}
{{- fail (printf "extraArgs: --%s comes from %s; set that instead" $name (get $arguments $name)) }}
{{- end }}
{{- end }}
{{- $variables := dict "POD_NAMESPACE" "the release's namespace" "POD_NAME" "the pod" "HELPDESK_OPERATOR_MOVER_POD" "movers" "RUST_LOG" "log" }}
{{- range .Values.extraEnv }}
{{- if hasKey $variables .name }}
{{- fail (printf "extraEnv: %s comes from %s; set that instead" .name (get $variables .name)) }}
{{- end }}
{{- end }}
{{- $budget := .Values.podDisruptionBudget }}
{{- if and (toString $budget.minAvailable | ne "") (toString $budget.maxUnavailable | ne "") }}
{{- fail "podDisruptionBudget: the API server takes minAvailable or maxUnavailable, not both" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled }}
{{- fail "serviceMonitor and podMonitor would both scrape the same pods, and every sum would count twice: enable one of them" }}
{{- end }}
{{- end }}
