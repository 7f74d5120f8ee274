"""Checks the chart as rendered by helm, against the schemas of Kubernetes and of other projects, and for consistency."""

import json
import re
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import yaml

from rules import SECRET, pinned, require

# Oldest release with the preStop pause, and the newest release with available schemas.
KUBERNETES = ["1.30", "1.37"]
PROXY = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
REDIS_TRIGGER = {"listName", "listLength", "databaseIndex", "enableTLS"}
REDIS_PARAMETERS = {"address", "username", "password"}
# Most objects are equal in several renderings.
VALID = set()


def matches(selector, labels):
    """Whether a selector, in the form of a Service's or of other objects, selects labels."""
    expressions = selector.get("matchExpressions", [])
    equal = selector.get("matchLabels", {}) if expressions or "matchLabels" in selector else selector
    return equal.items() <= labels.items() and all(labels.get(one["key"]) in one["values"] for one in expressions)


def strict(schema):
    """Forbids fields that a schema does not have, as the API server does on request."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    closed = "properties" in schema and schema.get("type") == "object"
    if closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


def definitions(folder):
    """Returns the schemas of CustomResourceDefinitions by version and kind."""
    schemas = {}
    for path in folder.iterdir():
        spec = yaml.safe_load(path.read_text())["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schemas[(f"{spec['group']}/{version['name']}", spec["names"]["kind"])] = schema
    return schemas


def validate(where, resource, custom):
    content = json.dumps(resource, sort_keys=True)
    if content in VALID:
        return
    VALID.add(content)
    schema = custom.get((resource["apiVersion"], resource["kind"]))
    if schema:
        for error in jsonschema.Draft202012Validator(schema).iter_errors(resource):
            require(False, f"{where}: {error.json_path}: {error.message}")
        return
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(str(part) for part in error.path)
            require(False, f"{where}: Kubernetes {version}: {path}: {error.message}")


def container_of(where, spec, known):
    require(pinned(spec["image"]), f"{where}: the image {spec['image']} has no version")
    security = spec.get("securityContext", {})
    require(security.get("readOnlyRootFilesystem") is True, f"{where}: can write to its root file system")
    require(security.get("allowPrivilegeEscalation") is False, f"{where}: can gain privileges")
    require(security.get("capabilities", {}).get("drop") == ["ALL"], f"{where}: has capabilities")
    resources = spec.get("resources", {})
    requests = set(resources.get("requests", {}))
    require({"cpu", "memory"} <= requests, f"{where}: has no request for processor time or memory")
    limits = resources.get("limits", {})
    require("memory" in limits, f"{where}: has no memory limit")
    require("cpu" in limits or "pressroom" not in spec["image"],
            f"{where}: has no CPU limit, which determines its number of threads")
    for variable in spec.get("env", []):
        name = variable["name"]
        require(name in known, f"{where}: sets {name}, which .env.example lacks")
        require("valueFrom" in variable or not SECRET.search(name), f"{where}: {name} does not come from a Secret")
        reference = variable.get("valueFrom", {}).get("secretKeyRef", {})
        required = name not in ("DATABASE_READ_URL", "SCOUT_ENDPOINT", "SMTP_URL", "WEBHOOK_URL")
        require(required or reference.get("optional"), f"{where}: {name} is not optional")
    ports = {port["name"] for port in spec.get("ports", [])}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        port = spec.get(probe, {}).get("httpGet", {}).get("port")
        require(port is None or port in ports, f"{where}: {probe} uses port {port}, which does not exist")


def pods(where, resource, known):
    template = resource["spec"]["template"]
    pod = template["spec"]
    security = pod.get("securityContext", {})
    require(security.get("runAsNonRoot") is True, f"{where}: can run as root")
    require("runAsUser" not in security, f"{where}: has a fixed user, which OpenShift rejects")
    require(security.get("seccompProfile", {}).get("type") == "RuntimeDefault", f"{where}: has no seccomp profile")
    require(pod.get("automountServiceAccountToken") is False, f"{where}: gets a service account token")
    selector = resource["spec"].get("selector", {}).get("matchLabels", {})
    require(matches(selector, template["metadata"]["labels"]), f"{where}: does not select its own pods")
    for spec in pod["containers"] + pod.get("initContainers", []):
        container_of(where, spec, known)


def fits(where, resources, by):
    """Checks that every selector and reference has a target; `by` has the resources by kind and name."""
    templates = [resource["spec"]["template"] for resource in resources if "template" in resource.get("spec", {})]

    def ports(selector):
        """Returns the names of the ports of the selected pods."""
        return {port["name"] for template in templates if matches(selector, template["metadata"]["labels"])
                for container in template["spec"]["containers"] for port in container.get("ports", [])}

    def services(selector):
        return [other for (kind, _), other in by.items()
                if kind == "Service" and matches(selector, other["metadata"]["labels"])]

    for resource in resources:
        kind, name, spec = resource["kind"], resource["metadata"]["name"], resource.get("spec", {})
        selector = {"Service": "selector", "PodDisruptionBudget": "selector", "NetworkPolicy": "podSelector"}.get(kind)
        if selector:
            selected = any(matches(spec[selector], template["metadata"]["labels"]) for template in templates)
            require(selected, f"{where}: {kind} {name} selects no pod")
        if kind == "Service":
            for port in spec["ports"]:
                require(port["targetPort"] in ports(spec["selector"]),
                        f"{where}: Service {name} targets port {port['targetPort']}, which does not exist")
            require(spec.get("ipFamilyPolicy") == "PreferDualStack", f"{where}: Service {name} has one address family")
        if kind == "NetworkPolicy":
            rules = [(spec["podSelector"], rule) for rule in spec.get("ingress", [])] + [
                (peer["podSelector"], rule) for rule in spec.get("egress", []) for peer in rule.get("to", [])]
            for selector, rule in rules:
                named = {port["port"] for port in rule.get("ports", []) if isinstance(port["port"], str)}
                require(named <= ports(selector), f"{where}: NetworkPolicy {name} names the ports {sorted(named)}")
        if kind in ("HorizontalPodAutoscaler", "ScaledObject"):
            target = spec["scaleTargetRef"]["name"]
            deployment = by.get(("Deployment", target))
            require(deployment, f"{where}: {kind} {name} scales {target}, which does not exist")
            require(deployment and "replicas" not in deployment["spec"], f"{where}: {target} sets replicas itself")
        if kind == "ScaledObject":
            for trigger in spec["triggers"]:
                known = trigger["type"] == "redis" and set(trigger["metadata"]) <= REDIS_TRIGGER
                require(known, f"{where}: the trigger is not on a Redis list")
                target = trigger["authenticationRef"]["name"]
                require(("TriggerAuthentication", target) in by, f"{where}: there is no TriggerAuthentication {target}")
        if kind == "ServiceMonitor":
            endpoint = spec["endpoints"][0]
            scraped = [port["name"] for service in services(spec["selector"]) for port in service["spec"]["ports"]]
            require(endpoint["port"] in scraped, f"{where}: ServiceMonitor {name} scrapes no port of a Service")
            require(endpoint.get("honorLabels") is True, f"{where}: the series lose their job and instance")
            require({"action": "labeldrop", "regex": "pod"} in endpoint.get("metricRelabelings", []),
                    f"{where}: the collector's pod is part of a series' identity")
        if kind in ("Ingress", "HTTPRoute"):
            if kind == "Ingress":
                backends = [(path["backend"]["service"]["name"], path["backend"]["service"]["port"].get("name"))
                            for rule in spec["rules"] for path in rule["http"]["paths"]]
            else:
                backends = [(one["name"], one["port"]) for rule in spec["rules"] for one in rule["backendRefs"]]
            for service, port in backends:
                found = by.get(("Service", service), {}).get("spec", {}).get("ports", [])
                require(any(port in (one["name"], one["port"]) for one in found),
                        f"{where}: {kind} {name} has no backend")
        require(kind != "Secret" or where == "dev", f"{where}: the chart contains the Secret {name}")
        require(resource["metadata"].get("namespace") == "pressroom", f"{where}: {name} is in another namespace")
    for template in templates:
        labels = template["metadata"]["labels"]
        policies = [one["spec"] for (kind, _), one in by.items()
                    if kind == "NetworkPolicy" and matches(one["spec"]["podSelector"], labels)]
        denied = any(set(spec["policyTypes"]) == {"Ingress", "Egress"} and len(spec) == 2 for spec in policies)
        require(denied, f"{where}: default-deny does not deny all traffic of {labels['app.kubernetes.io/component']}")
        for spec in template["spec"]["containers"]:
            for source in spec.get("envFrom", []):
                require(("ConfigMap", source["configMapRef"]["name"]) in by, f"{where}: {source} does not exist")
        for volume in template["spec"].get("volumes", []):
            map = volume.get("configMap", {}).get("name")
            found = ("ConfigMap", map) in by if map else where == "dev"
            require(found, f"{where}: volume {volume['name']} has no ConfigMap")


def egress(by, name):
    """Returns the ports that a policy opens, with their protocols."""
    rules = by[("NetworkPolicy", f"pressroom-{name}")]["spec"]["egress"]
    return {(port["port"], port["protocol"]) for rule in rules for port in rule["ports"]}


def proxies(where, settings, by):
    """Checks that the collector is reached directly and has the same proxies, and that policies open their ports."""
    if not set(settings) & PROXY:
        return
    collector = urlsplit(settings["OTEL_EXPORTER_OTLP_ENDPOINT"]).hostname
    require(collector in settings.get("NO_PROXY", "").split(","), f"{where}: NO_PROXY lacks {collector}")
    container = by[("Deployment", "pressroom-collector")]["spec"]["template"]["spec"]["containers"][0]
    own = {one["name"]: one.get("value") for one in container["env"]}
    for name in set(settings) & PROXY:
        require(own.get(name) == settings[name], f"{where}: the collector lacks {name}")
        port = name == "NO_PROXY" or urlsplit(settings[name]).port
        for policy in ("worker", "collector"):
            require(port is True or (port, "TCP") in egress(by, policy),
                    f"{where}: the policy of {policy} closes the port of {name}")


def migration(where, by, names):
    """Checks the Job of the migration. `names` has the content of each name or checksum in all renderings."""
    job = next((one for (kind, _), one in by.items() if kind == "Job"), None)
    if where == "dev":
        pod = by[("Deployment", "pressroom-api")]["spec"]["template"]["spec"]
        require(not job and pod["initContainers"][0]["args"] == ["migrate"], f"{where}: a hook runs before PostgreSQL does")
        return
    if not require(job, f"{where}: nothing migrates the schema"):
        return
    annotations = job["metadata"].get("annotations", {})
    hooks = set(annotations.get("helm.sh/hook", "").split(","))
    first = hooks == {"pre-install", "pre-upgrade", "pre-rollback"}
    require(first, f"{where}: the migration does not run before the others")
    policy = set(annotations.get("helm.sh/hook-delete-policy", "").split(","))
    require(policy == {"before-hook-creation", "hook-succeeded"}, f"{where}: an old Job of the migration stays")
    content = json.dumps(job["spec"], sort_keys=True)
    same = names.setdefault(job["metadata"]["name"], content) == content
    require(same, f"{where}: Jobs with different, immutable content have the name {job['metadata']['name']}")


def check(project, where, path, custom, names):
    resources = [resource for resource in yaml.safe_load_all(path.read_text()) if resource]
    by = {(resource["kind"], resource["metadata"]["name"]): resource for resource in resources}
    require(len(by) == len(resources), f"{where}: two objects have the same name")
    known = set(project.sample_settings()) | PROXY
    for resource in resources:
        about = f"{where}: {resource['kind']} {resource['metadata']['name']}"
        validate(about, resource, custom)
        if "template" in resource.get("spec", {}):
            development = resource["metadata"]["labels"]["app.kubernetes.io/component"] in ("postgres", "redis")
            pods(about, resource, known | {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"} if development else known)
    fits(where, resources, by)

    settings = by[("ConfigMap", "pressroom-config")]["data"]
    require(set(settings) <= known, f"{where}: .env.example lacks {sorted(set(settings) - known)}")
    require(not any(SECRET.search(name) for name in settings), f"{where}: a secret is in the ConfigMap")
    require(settings["HOST"] == "::", f"{where}: the API listens on one address family")
    proxies(where, settings, by)
    migration(where, by, names)

    files = {"config.yaml": "config/otel-config.yaml", "prometheus.yaml": "deploy/grafana/otel-prometheus.yaml"}
    collector = by[("ConfigMap", "pressroom-collector")]["data"]
    arguments = by[("Deployment", "pressroom-collector")]["spec"]["template"]["spec"]["containers"][0]["args"]
    for name, source in files.items():
        require(collector.get(name) == project.text(source), f"{where}: the collector's {name} is not {source}")
    read = [f"--config=/etc/otelcol-contrib/{name}" for name in [*files, *sorted(set(collector) - set(files))]]
    require(arguments == read, f"{where}: the collector reads {arguments}")
    affinity = by[("Service", "pressroom-collector")]["spec"].get("sessionAffinity")
    require(affinity == "ClientIP", f"{where}: the series of one process reach several collectors")

    rules = by.get(("PrometheusRule", "pressroom-alerts"))
    require(not rules or rules["spec"] == yaml.safe_load(project.text("deploy/alerts/pressroom.yaml")),
            f"{where}: the rules are not deploy/alerts/pressroom.yaml")
    dashboard = by.get(("ConfigMap", "pressroom-dashboard"))
    require(not dashboard or dashboard["data"] == {"pressroom.json": project.text("deploy/grafana/pressroom.json")},
            f"{where}: the dashboard is not deploy/grafana/pressroom.json")

    grace = int(settings["SHUTDOWN_GRACE"])
    api, worker = by[("Deployment", "pressroom-api")], by[("Deployment", "pressroom-worker")]
    pod = api["spec"]["template"]["spec"]
    spec = pod["containers"][0]
    pause = spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    require(pause >= 5 or where == "dev", f"{where}: the preStop sleep is too short for load balancers")
    needed = pause + int(settings["SHUTDOWN_DELAY"]) + grace + 10
    given = pod["terminationGracePeriodSeconds"]
    require(given >= needed, f"{where}: the API's terminationGracePeriodSeconds is under {needed}")
    needed = grace + 10
    given = worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    require(given >= needed, f"{where}: the worker's terminationGracePeriodSeconds is under {needed}")

    routes = re.findall(r'path = "(/api/health[^"]*)"', project.text("crates/pressroom/src/api/health.rs"))
    probed = {probe: spec.get(probe, {}).get("httpGet", {}).get("path") for probe in
              ("startupProbe", "livenessProbe", "readinessProbe")}
    require(probed == {"startupProbe": "/api/health/live", "livenessProbe": "/api/health/live",
                       "readinessProbe": "/api/health/ready"} and set(probed.values()) <= set(routes),
            f"{where}: probes request {probed}, the API has {routes}")
    for one in (api, worker):
        image = one["spec"]["template"]["spec"]["containers"][0]["image"]
        require(image.endswith(f":{project.version()}"), f"{where}: {image} does not have the version in Cargo.toml")
        checksum = one["spec"]["template"]["metadata"]["annotations"].get("checksum/config")
        same = checksum and names.setdefault(checksum, settings) == settings
        require(same, f"{where}: a change of the ConfigMap replaces no pod")

    for port in (53, 5353):
        require({(port, "UDP"), (port, "TCP")} <= egress(by, "dns"), f"{where}: DNS on port {port} is denied")
    kinds = {kind for kind, _ in by}
    scaling = {"HorizontalPodAutoscaler", "PodDisruptionBudget", "ScaledObject"}
    if where in ("dev", "single-node"):
        require(not scaling & kinds, f"{where}: has autoscaling or a disruption budget")
        return
    if where == "default":
        require(scaling & kinds == scaling - {"ScaledObject"}, f"{where}: needs KEDA, or lacks autoscaling")
        require(all(one["apiVersion"].count(".") < 1 or "k8s.io" in one["apiVersion"] for one in resources),
                f"{where}: needs an operator")
        return
    require(scaling <= kinds, f"{where}: lacks autoscaling or a disruption budget")
    once = ("ServiceMonitor" in kinds) != ("otlp_http/prometheus" in collector.get("extra.yaml", ""))
    require(once and rules and dashboard, f"{where}: nothing, or too much, feeds the alerts and the dashboard")
    queue = project.sample_settings()["CELERY_QUEUES"].split(",")[0]
    triggers = by[("ScaledObject", "pressroom-worker")]["spec"]["triggers"]
    lists = [trigger["metadata"]["listName"] for trigger in triggers]
    require(queue in lists, f"{where}: workers are scaled by {lists}, but tasks are sent to {queue}")
    parameters = {target["parameter"] for target in
                  by[("TriggerAuthentication", "pressroom-worker")]["spec"]["secretTargetRef"]}
    require("address" in parameters <= REDIS_PARAMETERS, f"{where}: KEDA gets the parameters {sorted(parameters)}")


def check_all(project, rendered, crds):
    """Checks all renderings, `chart-<name>.yaml`."""
    chart = yaml.safe_load(project.text("deploy/helm/pressroom/Chart.yaml"))
    versions = {chart["version"], chart["appVersion"]}
    require(versions == {project.version()}, "Chart.yaml: the version differs from Cargo.toml")
    custom, names = definitions(crds), {}
    for path in sorted(rendered.glob("chart-*.yaml")):
        check(project, path.stem.removeprefix("chart-"), path, custom, names)
