{{/* Names. 52 characters leave room for our endings and for the hash of a StatefulSet's revision. */}}
{{- define "colibri.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "colibri.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "colibri.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "colibri.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What selects pods: (dict "root" . "part" "edge"). It never changes over versions. */}}
{{- define "colibri.selector" -}}
app.kubernetes.io/name: {{ include "colibri.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "colibri.labels" -}}
{{ include "colibri.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "colibri.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* Annotations of pods: (dict "root" . "config" TEXT "more" MAP). A changed configuration makes new pods. */}}
{{- define "colibri.podAnnotations" -}}
colibri/config-sha256: {{ .config | sha256sum }}
{{- if .root.Values.scrapeAnnotations }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .root.Values.adminPort | quote }}
prometheus.io/path: /metrics
{{- end }}
{{- with .more }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
What all pods share: (dict "root" . "asksTheApiServer" BOOL). No token of the API server but for edges that ask it for their
peers. No service links: a Service called "colibri-edge"
would put COLIBRI_EDGE_SERVICE_HOST into the environment, which reads as an unknown configuration key.
*/}}
{{- define "colibri.pod" -}}
automountServiceAccountToken: {{ .asksTheApiServer | default false }}
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* PodSecurity "restricted": (dict "ports" LIST). Listening below 1024 needs no privilege but this safe sysctl. */}}
{{- define "colibri.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- $low := false }}
{{- range .ports }}{{ if lt (int .) 1024 }}{{ $low = true }}{{ end }}{{ end }}
{{- if $low }}
sysctls:
  - name: net.ipv4.ip_unprivileged_port_start
    value: "0"
{{- end }}
{{- end }}

{{- define "colibri.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "colibri.logging" -}}
- name: COLIBRI_LOG_FORMAT
  value: {{ .Values.log.format | quote }}
- name: COLIBRI_LOG
  value: {{ .Values.log.filter | quote }}
{{- end }}

{{/*
Readiness says "cannot serve", never "is ending": kube-proxy drops the UDP flows of an endpoint that stops being ready, and
with them every HTTP/3 connection on it. A pod that ends stays ready; the end of the pod itself is what takes it out of
rotation for new clients.
*/}}
{{- define "colibri.probes" -}}
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  failureThreshold: 3
{{- end }}

{{/* The origin's volume, by the name of its claim. */}}
{{- define "colibri.claim" -}}
{{- .Values.origin.persistence.existingClaim | default (printf "state-%s-origin-0" (include "colibri.fullname" .)) }}
{{- end }}

{{/* What opens the private keys in the origin's volume, as an item of env; nothing without a Secret for it. */}}
{{- define "colibri.passphrase" -}}
{{- with .Values.origin.keys.passphraseSecret }}
{{- if .name }}
- name: COLIBRI_KEY_PASSPHRASE
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .key }}
{{- end }}
{{- end }}
{{- end }}
