"""Checks an overlay as rendered by kustomize, against Kubernetes' schemas and for consistency."""

import re

import kubernetes_validate
import yaml

from rules import SECRET, pinned, require

# Oldest release with the preStop pause, and the newest release with available schemas.
KUBERNETES = ["1.30", "1.37"]
# Permitted fields of KEDA's resources, whose schemas are in no registry.
KEDA = {
    "ScaledObject": {
        "scaleTargetRef": {"name"},
        "fallback": {"failureThreshold", "replicas", "behavior"},
        "triggers": {"type", "metadata", "authenticationRef"},
        "minReplicaCount": int,
        "maxReplicaCount": int,
        "pollingInterval": int,
        "cooldownPeriod": int,
    },
    "TriggerAuthentication": {"secretTargetRef": {"parameter", "name", "key"}},
}
REDIS_TRIGGER = {"listName", "listLength", "databaseIndex", "enableTLS"}
REDIS_PARAMETERS = {"address", "username", "password"}


def matches(selector, labels):
    return (selector or {}).items() <= labels.items()


def schemas(where, resource):
    if resource["apiVersion"].startswith("keda.sh/"):
        return keda(where, resource)
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(str(part) for part in error.path)
            require(False, f"{where}: Kubernetes {version}: {path}: {error.message}")


def keda(where, resource):
    known = KEDA.get(resource["kind"])
    if not require(known and resource["apiVersion"] == "keda.sh/v1alpha1", f"{where}: an unknown kind of KEDA resource"):
        return
    for field, value in resource["spec"].items():
        expected = known.get(field)
        if not require(expected, f"{where}: spec.{field} is unknown"):
            continue
        if expected is int:
            require(isinstance(value, int), f"{where}: spec.{field} is not a number")
            continue
        for part in value if isinstance(value, list) else [value]:
            require(set(part) <= expected, f"{where}: spec.{field} has {sorted(set(part) - expected)}")
    for trigger in resource["spec"].get("triggers", []):
        known = trigger["type"] == "redis" and set(trigger["metadata"]) <= REDIS_TRIGGER
        require(known, f"{where}: the trigger is not on a Redis list")
        # The API server accepts only strings here.
        require(all(isinstance(value, str) for value in trigger["metadata"].values()), f"{where}: a value in metadata is not a string")


def container_of(where, spec, known):
    require(pinned(spec["image"]), f"{where}: the image {spec['image']} has no version")
    security = spec.get("securityContext", {})
    require(security.get("readOnlyRootFilesystem") is True, f"{where}: can write to its root file system")
    require(security.get("allowPrivilegeEscalation") is False, f"{where}: can gain privileges")
    require(security.get("capabilities", {}).get("drop") == ["ALL"], f"{where}: has capabilities")
    resources = spec.get("resources", {})
    require({"cpu", "memory"} <= set(resources.get("requests", {})), f"{where}: has no request for processor time or memory")
    limits = resources.get("limits", {})
    require("memory" in limits, f"{where}: has no memory limit")
    require("cpu" in limits or "pressroom" not in spec["image"], f"{where}: has no CPU limit, which determines its number of threads")
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
    require(security.get("runAsNonRoot") and security.get("runAsUser", 0) > 0, f"{where}: can run as root")
    require(security.get("seccompProfile", {}).get("type") == "RuntimeDefault", f"{where}: has no seccomp profile")
    require(pod.get("automountServiceAccountToken") is False, f"{where}: gets a service account token")
    selector = resource["spec"].get("selector", {}).get("matchLabels", {})
    require(matches(selector, template["metadata"]["labels"]), f"{where}: does not select its own pods")
    for spec in pod["containers"]:
        container_of(where, spec, known)


def fits(where, resources, by):
    """Checks that every selector and reference has a target; `by` has the resources by kind and name."""
    templates = [resource["spec"]["template"] for resource in resources if "template" in resource.get("spec", {})]
    labels = [template["metadata"]["labels"] for template in templates]
    for resource in resources:
        kind, name, spec = resource["kind"], resource["metadata"]["name"], resource.get("spec", {})
        selector = {
            "Service": lambda: spec["selector"],
            "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda: spec["podSelector"].get("matchLabels", {}),
        }.get(kind)
        if selector:
            require(any(matches(selector(), found) for found in labels), f"{where}: {kind} {name} selects no pod")
        if kind == "Service":
            ports = {port["name"] for template in templates if matches(spec["selector"], template["metadata"]["labels"])
                     for container in template["spec"]["containers"] for port in container.get("ports", [])}
            for port in spec["ports"]:
                require(port["targetPort"] in ports, f"{where}: Service {name} targets port {port['targetPort']}, which does not exist")
        if kind in ("HorizontalPodAutoscaler", "ScaledObject"):
            target = spec["scaleTargetRef"]["name"]
            deployment = by.get(("Deployment", target))
            require(deployment, f"{where}: {kind} {name} scales {target}, which does not exist")
            require(deployment and "replicas" not in deployment["spec"], f"{where}: {target} sets replicas itself")
        require(kind != "Secret", f"{where}: the manifests contain the Secret {name}")
        in_namespace = kind == "Namespace" or resource["metadata"].get("namespace") == "pressroom"
        require(in_namespace, f"{where}: {name} is in another namespace")
    for template in templates:
        for spec in template["spec"]["containers"]:
            for source in spec.get("envFrom", []):
                require(("ConfigMap", source["configMapRef"]["name"]) in by, f"{where}: {source} does not exist")
        for volume in template["spec"].get("volumes", []):
            require(("ConfigMap", volume["configMap"]["name"]) in by, f"{where}: volume {volume['name']} has no ConfigMap")


def check(project, overlay, path):
    resources = [resource for resource in yaml.safe_load_all(path.read_text()) if resource]
    by = {(resource["kind"], resource["metadata"]["name"]): resource for resource in resources}
    known = set(project.sample_settings())
    for resource in resources:
        where = f"{overlay}: {resource['kind']} {resource['metadata']['name']}"
        schemas(where, resource)
        if "template" in resource.get("spec", {}):
            pods(where, resource, known)
    fits(overlay, resources, by)

    settings = next(map for (kind, name), map in by.items() if kind == "ConfigMap" and name.startswith("pressroom"))
    require(set(settings["data"]) <= known, f"{overlay}: .env.example lacks {sorted(set(settings['data']) - known)}")
    require(not any(SECRET.search(name) for name in settings["data"]), f"{overlay}: a secret is in the ConfigMap")
    collector = next(map for (kind, name), map in by.items() if kind == "ConfigMap" and name.startswith("otel"))
    require(collector["data"] == {"config.yaml": project.text("config/otel-config.yaml")},
         f"{overlay}: the collector's configuration is not config/otel-config.yaml")

    grace = int(settings["data"]["SHUTDOWN_GRACE"])
    api, worker = by[("Deployment", "pressroom-api")], by[("Deployment", "pressroom-worker")]
    pod = api["spec"]["template"]["spec"]
    spec = pod["containers"][0]
    pause = spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    require(pause >= 5, f"{overlay}: the preStop sleep is too short for load balancers")
    needed = pause + int(settings["data"]["SHUTDOWN_DELAY"]) + grace + 10
    require(pod["terminationGracePeriodSeconds"] >= needed, f"{overlay}: the API's terminationGracePeriodSeconds is under {needed}")
    needed = grace + 10
    given = worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    require(given >= needed, f"{overlay}: the worker's terminationGracePeriodSeconds is under {needed}")

    routes = re.findall(r'path = "(/api/health[^"]*)"', project.text("crates/pressroom/src/api/health.rs"))
    probed = {probe: spec.get(probe, {}).get("httpGet", {}).get("path") for probe in
             ("startupProbe", "livenessProbe", "readinessProbe")}
    require(probed == {"startupProbe": "/api/health/live", "livenessProbe": "/api/health/live",
                   "readinessProbe": "/api/health/ready"} and set(probed.values()) <= set(routes),
         f"{overlay}: probes request {probed}, the API has {routes}")
    for name in ("pressroom-api", "pressroom-worker"):
        image = by[("Deployment", name)]["spec"]["template"]["spec"]["containers"][0]["image"]
        require(image.endswith(f":{project.version()}"), f"{overlay}: {image} does not have the version in Cargo.toml")

    deny = by.get(("NetworkPolicy", "default-deny"), {}).get("spec")
    require(deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, f"{overlay}: default-deny does not deny all traffic")
    kinds = {kind for kind, _ in by}
    if overlay != "single-node":
        require({"HorizontalPodAutoscaler", "PodDisruptionBudget", "ScaledObject"} <= kinds, f"{overlay}: lacks autoscaling or a disruption budget")
        queue = project.sample_settings()["CELERY_QUEUES"].split(",")[0]
        triggers = by[("ScaledObject", "pressroom-worker")]["spec"]["triggers"]
        lists = [trigger["metadata"]["listName"] for trigger in triggers]
        require(queue in lists, f"{overlay}: workers are scaled by {lists}, but tasks are sent to {queue}")
        parameters = {target["parameter"] for target in
                      by[("TriggerAuthentication", "pressroom-redis")]["spec"]["secretTargetRef"]}
        require("address" in parameters <= REDIS_PARAMETERS, f"{overlay}: KEDA gets the parameters {sorted(parameters)}")
    else:
        require(not {"HorizontalPodAutoscaler", "PodDisruptionBudget", "ScaledObject"} & kinds, f"{overlay}: has autoscaling or a disruption budget")
