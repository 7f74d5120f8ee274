"""Checks an overlay as rendered by kustomize, against Kubernetes' schemas and for consistency."""

import re

import kubernetes_validate
import yaml

from facts import SECRET, fact, pinned

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
            fact(False, f"{where}: Kubernetes {version}: {path}: {error.message}")


def keda(where, resource):
    known = KEDA.get(resource["kind"])
    if not fact(known and resource["apiVersion"] == "keda.sh/v1alpha1", f"{where}: not a kind of KEDA's that is known"):
        return
    for field, value in resource["spec"].items():
        expected = known.get(field)
        if not fact(expected, f"{where}: spec.{field} is not known"):
            continue
        if expected is int:
            fact(isinstance(value, int), f"{where}: spec.{field} is no number")
            continue
        for part in value if isinstance(value, list) else [value]:
            fact(set(part) <= expected, f"{where}: spec.{field} has {sorted(set(part) - expected)}")
    for trigger in resource["spec"].get("triggers", []):
        known = trigger["type"] == "redis" and set(trigger["metadata"]) <= REDIS_TRIGGER
        fact(known, f"{where}: no trigger on a Redis list")
        # The API server accepts only strings here.
        fact(all(isinstance(value, str) for value in trigger["metadata"].values()), f"{where}: metadata is not all text")


def container_of(where, spec, known):
    fact(pinned(spec["image"]), f"{where}: {spec['image']} names no version")
    security = spec.get("securityContext", {})
    fact(security.get("readOnlyRootFilesystem") is True, f"{where}: may write into its image")
    fact(security.get("allowPrivilegeEscalation") is False, f"{where}: may gain privileges")
    fact(security.get("capabilities", {}).get("drop") == ["ALL"], f"{where}: keeps capabilities")
    resources = spec.get("resources", {})
    fact({"cpu", "memory"} <= set(resources.get("requests", {})), f"{where}: requests no processor or memory")
    limits = resources.get("limits", {})
    fact("memory" in limits, f"{where}: has no limit of memory")
    fact("cpu" in limits or "pressroom" not in spec["image"], f"{where}: sizes itself by the node's processors")
    for variable in spec.get("env", []):
        name = variable["name"]
        fact(name in known, f"{where}: sets {name}, which is not in .env.example")
        fact("valueFrom" in variable or not SECRET.search(name), f"{where}: {name} is not taken from a Secret")
        reference = variable.get("valueFrom", {}).get("secretKeyRef", {})
        required = name not in ("DATABASE_READ_URL", "SCOUT_ENDPOINT", "SMTP_URL", "WEBHOOK_URL")
        fact(required or reference.get("optional"), f"{where}: {name} is not optional")
    ports = {port["name"] for port in spec.get("ports", [])}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        port = spec.get(probe, {}).get("httpGet", {}).get("port")
        fact(port is None or port in ports, f"{where}: {probe} asks port {port}, which is not there")


def pods(where, resource, known):
    template = resource["spec"]["template"]
    pod = template["spec"]
    security = pod.get("securityContext", {})
    fact(security.get("runAsNonRoot") and security.get("runAsUser", 0) > 0, f"{where}: may run as root")
    fact(security.get("seccompProfile", {}).get("type") == "RuntimeDefault", f"{where}: has no seccomp profile")
    fact(pod.get("automountServiceAccountToken") is False, f"{where}: is given a token for Kubernetes")
    selector = resource["spec"].get("selector", {}).get("matchLabels", {})
    fact(matches(selector, template["metadata"]["labels"]), f"{where}: does not select its own pods")
    for spec in pod["containers"]:
        container_of(where, spec, known)


def fits(where, resources, by):
    """Checks that every selector and reference has a target."""
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
            fact(any(matches(selector(), found) for found in labels), f"{where}: {kind} {name} selects no pod")
        if kind == "Service":
            ports = {port["name"] for template in templates if matches(spec["selector"], template["metadata"]["labels"])
                     for container in template["spec"]["containers"] for port in container.get("ports", [])}
            for port in spec["ports"]:
                fact(port["targetPort"] in ports, f"{where}: Service {name} leads to port {port['targetPort']}")
        if kind in ("HorizontalPodAutoscaler", "ScaledObject"):
            target = spec["scaleTargetRef"]["name"]
            deployment = by.get(("Deployment", target))
            fact(deployment, f"{where}: {kind} {name} scales {target}, which is not there")
            fact(deployment and "replicas" not in deployment["spec"], f"{where}: {target} has replicas of its own")
        fact(kind != "Secret", f"{where}: a Secret is written down: {name}")
        inside = kind == "Namespace" or resource["metadata"].get("namespace") == "pressroom"
        fact(inside, f"{where}: {name} is in another namespace")
    for template in templates:
        for spec in template["spec"]["containers"]:
            for source in spec.get("envFrom", []):
                fact(("ConfigMap", source["configMapRef"]["name"]) in by, f"{where}: {source} is not there")
        for volume in template["spec"].get("volumes", []):
            fact(("ConfigMap", volume["configMap"]["name"]) in by, f"{where}: volume {volume['name']} has no ConfigMap")


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
    fact(set(settings["data"]) <= known, f"{overlay}: {sorted(set(settings['data']) - known)} are not in .env.example")
    fact(not any(SECRET.search(name) for name in settings["data"]), f"{overlay}: a secret is in the ConfigMap")
    collector = next(map for (kind, name), map in by.items() if kind == "ConfigMap" and name.startswith("otel"))
    fact(collector["data"] == {"config.yaml": project.text("config/otel-config.yaml")},
         f"{overlay}: the collector's configuration is not config/otel-config.yaml")

    grace = int(settings["data"]["SHUTDOWN_GRACE"])
    api, worker = by[("Deployment", "pressroom-api")], by[("Deployment", "pressroom-worker")]
    pod = api["spec"]["template"]["spec"]
    spec = pod["containers"][0]
    pause = spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    fact(pause >= 5, f"{overlay}: the API closes its listener before load balancers know")
    needed = pause + int(settings["data"]["SHUTDOWN_DELAY"]) + grace + 10
    fact(pod["terminationGracePeriodSeconds"] >= needed, f"{overlay}: the API is killed before {needed} s")
    needed = grace + 10
    given = worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    fact(given >= needed, f"{overlay}: the worker is killed before {needed} s")

    routes = re.findall(r'path = "(/api/health[^"]*)"', project.text("crates/pressroom/src/api/health.rs"))
    asked = {probe: spec.get(probe, {}).get("httpGet", {}).get("path") for probe in
             ("startupProbe", "livenessProbe", "readinessProbe")}
    fact(asked == {"startupProbe": "/api/health/live", "livenessProbe": "/api/health/live",
                   "readinessProbe": "/api/health/ready"} and set(asked.values()) <= set(routes),
         f"{overlay}: probes ask {asked}, the API has {routes}")
    for name in ("pressroom-api", "pressroom-worker"):
        image = by[("Deployment", name)]["spec"]["template"]["spec"]["containers"][0]["image"]
        fact(image.endswith(f":{project.version()}"), f"{overlay}: {image} is not of Cargo.toml's version")

    deny = by.get(("NetworkPolicy", "default-deny"), {}).get("spec")
    fact(deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, f"{overlay}: traffic is not denied first")
    kinds = {kind for kind, _ in by}
    if overlay != "single-node":
        fact({"HorizontalPodAutoscaler", "PodDisruptionBudget", "ScaledObject"} <= kinds, f"{overlay}: does not scale")
        queue = project.sample_settings()["CELERY_QUEUES"].split(",")[0]
        triggers = by[("ScaledObject", "pressroom-worker")]["spec"]["triggers"]
        lists = [trigger["metadata"]["listName"] for trigger in triggers]
        fact(queue in lists, f"{overlay}: workers are scaled on {lists}, tasks are sent to {queue}")
        parameters = {target["parameter"] for target in
                      by[("TriggerAuthentication", "pressroom-redis")]["spec"]["secretTargetRef"]}
        fact("address" in parameters <= REDIS_PARAMETERS, f"{overlay}: KEDA is given {sorted(parameters)}")
    else:
        fact(not {"HorizontalPodAutoscaler", "PodDisruptionBudget", "ScaledObject"} & kinds, f"{overlay}: would scale")
