{{/* Prefix of all names. */}}
{{- define "pressroom.fullname" -}}
{{- $name := .Chart.Name -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 44 | trimSuffix "-" -}}
{{- end }}

{{/* Metadata of an object: dict "root" $ "component" "api", and "name" unless it is the component's. */}}
{{- define "pressroom.metadata" -}}
name: {{ include "pressroom.fullname" .root }}-{{ .name | default .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "pressroom.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: pressroom
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "pressroom.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "pressroom.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "pressroom.secretName" -}}
{{- ternary (printf "%s-development" (include "pressroom.fullname" .)) .Values.secretName .Values.development.enabled }}
{{- end }}

{{/* Proxy variables; the collector is reached directly by each of its names. */}}
{{- define "pressroom.proxy" -}}
{{- if or .Values.proxy.http .Values.proxy.https -}}
{{- with .Values.proxy.http }}
HTTP_PROXY: {{ . | quote }}
{{- end }}
{{- with .Values.proxy.https }}
HTTPS_PROXY: {{ . | quote }}
{{- end }}
NO_PROXY: {{ prepend .Values.proxy.noProxy (printf "%s-collector" (include "pressroom.fullname" .)) | join "," | quote }}
{{- end }}
{{- end }}

{{/* The settings of the API and the workers. */}}
{{- define "pressroom.config" -}}
{{- $config := dict "PORT" "8000" -}}
{{- if .Values.collector.enabled }}
{{- $_ := set $config "OTEL_EXPORTER_OTLP_ENDPOINT" (printf "http://%s-collector:4318" (include "pressroom.fullname" .)) }}
{{- $_ := set $config "OTEL_EXPORTER_OTLP_PROTOCOL" "http/protobuf" }}
{{- end }}
{{- $config = merge (include "pressroom.proxy" . | fromYaml) $config }}
{{- range $name, $value := .Values.config }}
{{- /* A number would become 1.048576e+06. */}}
{{- $_ := set $config $name (kindIs "string" $value | ternary $value (toJson $value)) }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* Port of a URL: dict "url" "http://proxy:3128". */}}
{{- define "pressroom.port" -}}
{{- $url := urlParse .url -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "https" | ternary "443" "80") -}}
{{- end }}

{{/* Ports of a NetworkPolicy: dict "root" $ "ports" (list) "protocols" (list "TCP") "proxies" true. */}}
{{- define "pressroom.ports" -}}
{{- $ports := list }}
{{- range .ports }}
{{- $ports = append $ports (int .) }}
{{- end }}
{{- if .proxies }}
{{- range compact (list .root.Values.proxy.http .root.Values.proxy.https) }}
{{- $ports = append $ports (include "pressroom.port" (dict "url" .) | int) }}
{{- end }}
{{- end }}
{{- range $port := uniq $ports }}
{{- range $.protocols | default (list "TCP") }}
- {port: {{ $port }}, protocol: {{ . }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Fields of every pod's spec. */}}
{{- define "pressroom.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- $security := dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault") }}
securityContext:
  {{- mergeOverwrite $security .Values.podSecurityContext | toYaml | nindent 2 }}
{{- with .Values.pod }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Spreads the pods of a component: dict "root" $ "component" "api". */}}
{{- define "pressroom.spread" -}}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "pressroom.selector" $ | nindent 8 }}
{{- end }}
{{- end }}

{{- define "pressroom.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Variables from the Secret: dict "root" $ "required" (list) "optional" (list). */}}
{{- define "pressroom.secrets" -}}
{{- $secret := include "pressroom.secretName" .root }}
{{- range .required }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: {name: {{ $secret }}, key: {{ . }}}
{{- end }}
{{- range .optional }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: {name: {{ $secret }}, key: {{ . }}, optional: true}
{{- end }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Attributes of the resource of all telemetry: dict "container" "api". */}}
{{- define "pressroom.attributes" -}}
- name: K8S_NAMESPACE_NAME
  valueFrom:
    fieldRef: {fieldPath: metadata.namespace}
- name: K8S_NODE_NAME
  valueFrom:
    fieldRef: {fieldPath: spec.nodeName}
- name: K8S_POD_NAME
  valueFrom:
    fieldRef: {fieldPath: metadata.name}
- name: K8S_POD_UID
  valueFrom:
    fieldRef: {fieldPath: metadata.uid}
- name: K8S_CONTAINER_NAME
  value: {{ .container }}
{{- end }}

{{/* The container that migrates the schema. It reads no ConfigMap, because the hook runs before the chart's is created. */}}
{{- define "pressroom.migrate" -}}
name: migrate
image: {{ include "pressroom.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [migrate]
env:
  {{- include "pressroom.secrets" (dict "root" . "required" (list "DATABASE_URL")) | nindent 2 }}
resources:
  {{- toYaml .Values.migrate.resources | nindent 2 }}
{{ include "pressroom.containerSecurity" . }}
{{- with .Values.extraVolumeMounts }}
volumeMounts:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "pressroom.volumes" -}}
{{- with .Values.extraVolumes }}
volumes:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
