{{/* The metadata of what the Prometheus operator reads: a dict with root and monitor, its values. */}}
{{- define "helpdesk.monitorMetadata" -}}
name: {{ include "helpdesk.name" .root }}
namespace: {{ .monitor.namespace | default .root.Release.Namespace }}
labels: {{- include "helpdesk.labelsWith" (dict "root" .root "labels" .monitor.labels) | nindent 2 }}
{{- with .monitor.annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* How metrics are scraped; what is empty is left to Prometheus. */}}
{{- define "helpdesk.endpoint" -}}
port: metrics
path: /metrics
{{- range $field := list "interval" "scrapeTimeout" "relabelings" "metricRelabelings" }}
{{- with get $ $field }}
{{ toYaml (dict $field .) }}
{{- end }}
{{- end }}
{{- end }}
