{{/* Where the operator's pods go: what the values say, or, of several replicas, apart from each other where there is room. */}}
{{- define "helpdesk.affinity" -}}
{{- if .Values.affinity }}
{{- toYaml .Values.affinity }}
{{- else if gt (int .Values.replicas) 1 }}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
  - weight: 100
    podAffinityTerm:
      topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels: {{- include "helpdesk.selector" . | nindent 10 }}
      # In a rollout the pods that go do not push those that come to another node.
      matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}

{{- define "helpdesk.topologySpreadConstraints" -}}
{{- $selector := dict "matchLabels" (include "helpdesk.selector" . | fromYaml) }}
{{- $constraints := .Values.topologySpreadConstraints }}
{{- if and (not $constraints) (gt (int .Values.replicas) 1) }}
{{- $constraints = list (dict "topologyKey" "topology.kubernetes.io/zone" "maxSkew" 1 "whenUnsatisfiable" "ScheduleAnyway" "matchLabelKeys" (list "pod-template-hash")) }}
{{- end }}
{{- range $constraints }}
- {{ toYaml (hasKey . "labelSelector" | ternary . (set (deepCopy .) "labelSelector" $selector)) | nindent 2 | trim }}
{{- end }}
{{- end }}

