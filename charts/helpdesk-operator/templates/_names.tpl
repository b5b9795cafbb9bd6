{{/* The name of everything that belongs to this release. */}}
{{- define "helpdesk.name" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "helpdesk.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "helpdesk.name" .) }}
{{- end }}

{{- define "helpdesk.mover" -}}
{{ include "helpdesk.name" . }}-mover
{{- end }}

{{/* Whom movers run as: an account with no token and no rights. */}}
{{- define "helpdesk.moverServiceAccount" -}}
{{ .Values.movers.serviceAccount.name | default (include "helpdesk.mover" .) }}
{{- end }}

{{/* What the operator is told about the pods of movers, as JSON. */}}
{{- define "helpdesk.moverPod" -}}
{{- $pod := dict "serviceAccountName" (include "helpdesk.moverServiceAccount" .) "imagePullPolicy" .Values.image.pullPolicy }}
{{- $movers := merge (dict "imagePullSecrets" (.Values.movers.imagePullSecrets | default .Values.imagePullSecrets)) .Values.movers }}
{{- range $field := list "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with get $movers $field }}{{ $_ := set $pod $field . }}{{ end }}
{{- end }}
{{- /* A quantity may be typed as a number. */}}
{{- $resources := dict }}
{{- range $side, $quantities := $movers.resources }}
{{- $texts := dict }}
{{- range $name, $quantity := $quantities }}{{ $_ := set $texts $name (toString $quantity) }}{{ end }}
{{- $_ := set $resources $side $texts }}
{{- end }}
{{- with $resources }}{{ $_ := set $pod "resources" . }}{{ end }}
{{- with mergeOverwrite (dict) .Values.commonLabels .Values.movers.podLabels }}{{ $_ := set $pod "labels" . }}{{ end }}
{{- with .Values.movers.podAnnotations }}{{ $_ := set $pod "annotations" . }}{{ end }}
{{- toJson $pod }}
{{- end }}

{{/* The mail intake: its objects, and whom it runs as. */}}
{{- define "helpdesk.mail" -}}
{{ include "helpdesk.name" . }}-mail
{{- end }}

{{- define "helpdesk.mailSelector" -}}
app.kubernetes.io/name: helpdesk-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: mail
{{- end }}

{{- define "helpdesk.mailImage" -}}
{{- with .Values.mail.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end -}}
{{- end }}

{{- define "helpdesk.billingNamespace" -}}
{{ .Values.billing.serviceAccount.namespace | default .Release.Namespace }}
{{- end }}

{{- define "helpdesk.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "helpdesk.selector" -}}
app.kubernetes.io/name: helpdesk-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "helpdesk.labels" -}}
app.kubernetes.io/name: helpdesk-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The labels of an object with labels of its own, which go before those that are everybody's: a dict with root and labels. */}}
{{- define "helpdesk.labelsWith" -}}
{{ toYaml (mergeOverwrite (include "helpdesk.labels" .root | fromYaml) .labels) }}
{{- end }}

{{/* The labels of pods that a selector has to find: a dict with root and selector, the name of the template. */}}
{{- define "helpdesk.podLabels" -}}
{{ toYaml (mergeOverwrite (dict) .root.Values.commonLabels .root.Values.podLabels (include .selector .root | fromYaml)) }}
{{- end }}

{{/* A list of ports as entries of a NetworkPolicy's rule. */}}
{{- define "helpdesk.ports" -}}
{{- range . }}
- {protocol: TCP, port: {{ . }}}
{{- end }}
{{- end }}

{{/* CEL: whether the request is the operator's own. */}}
{{- define "helpdesk.isOperator" -}}
{{- $own := printf "system:serviceaccount:%s:%s" .Release.Namespace (include "helpdesk.serviceAccount" .) -}}
request.userInfo.username in [{{ range $i, $user := prepend .Values.clusterWide.operators $own }}{{ if $i }}, {{ end }}'{{ $user }}'{{ end }}]
{{- end }}

{{/* CEL: whether a person has confirmed that this object goes, by an annotation with the object's own name. */}}
{{- define "helpdesk.confirmed" -}}
oldObject.metadata.?annotations[?'helpdesk-operator.io/confirm-delete'].orValue('') == oldObject.metadata.name
{{- end }}

{{/* The metadata of a guard besides its name: it stays when the release goes. */}}
{{- define "helpdesk.guard" -}}
annotations: {helm.sh/resource-policy: keep}
labels: {{- include "helpdesk.labels" . | nindent 2 }}
{{- end }}

{{/* The binding of the policy of the same name. */}}
{{- define "helpdesk.binding" -}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  {{- include "helpdesk.guard" .root | nindent 2 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- end }}

{{/* CEL: these texts as the inside of a list. */}}
{{- define "helpdesk.quoted" -}}
{{ range $i, $text := . }}{{ if $i }}, {{ end }}'{{ $text }}'{{ end }}
{{- end }}
