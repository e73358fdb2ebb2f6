{{- define "agent.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}
{{- define "agent.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
{{- define "agent.defaultNamespace" -}}
{{ .Values.jobs.namespace | default .Release.Namespace }}
{{- end -}}
{{- define "agent.namespaces" -}}
{{- $all := list (include "agent.defaultNamespace" .) -}}
{{- range $project, $namespace := .Values.jobs.projects }}{{- $all = append $all $namespace -}}{{- end -}}
{{ $all | uniq | sortAlpha | join " " }}
{{- end -}}
