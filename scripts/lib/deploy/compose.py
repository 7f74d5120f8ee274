"""Checks compose.yaml as rendered by docker compose."""

import json
import re

import yaml

from rules import pinned, require

# Published ports of each service, as listed in docs/deployment.md.
PORTS = {
    "app": [8000],
    "postgres": [5432],
    "redis": [6379],
    "otel-collector": [4318, 13133],
    "prometheus": [9090],
    "flower": [5555],
}
DEPENDENCIES = {
    "migrate": {"postgres": "service_healthy"},
    "app": {
        "migrate": "service_completed_successfully",
        "redis": "service_healthy",
        "otel-collector": "service_started",
    },
    "worker": {
        "migrate": "service_completed_successfully",
        "redis": "service_healthy",
        "otel-collector": "service_started",
    },
    "prometheus": {"otel-collector": "service_started"},
    "flower": {"redis": "service_healthy"},
}


def seconds(text):
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([hms])", text))


def hardened(name, service):
    require(service.get("read_only") is True, f"compose: {name} can write to its root file system")
    require(service.get("cap_drop") == ["ALL"] and not service.get("cap_add"), f"compose: {name} has capabilities")
    require("no-new-privileges:true" in service.get("security_opt", []), f"compose: {name} lacks no-new-privileges")
    require(not service.get("privileged"), f"compose: {name} is privileged")
    require(int(service.get("mem_limit", 0)) > 0, f"compose: {name} has no memory limit")
    require(service.get("restart"), f"compose: {name} has no restart policy")
    require(service.get("logging", {}).get("options", {}).get("max-size"), f"compose: the log of {name} has no size limit")
    require(pinned(service["image"]), f"compose: the image {service['image']} has no version")


def check(project, rendered, with_profiles, password):
    services = json.loads(rendered.read_text())["services"]
    everything = json.loads(with_profiles.read_text())["services"]
    require(set(services) == {"app", "worker", "migrate", "postgres", "redis", "otel-collector"},
         f"compose: `up` starts {sorted(services)}")
    require(set(everything) - set(services) == {"prometheus", "flower"}, "compose: the profiles must add only prometheus and flower")

    for name, service in everything.items():
        hardened(name, service)
        published = [int(port["published"]) for port in service.get("ports", [])]
        require(sorted(published) == PORTS.get(name, []), f"compose: {name} publishes the ports {published}")
        for port in service.get("ports", []):
            require(port.get("host_ip") == "127.0.0.1", f"compose: {name} publishes port {port['published']} beyond loopback")
            require(int(port["published"]) == port["target"], f"compose: {name} publishes port {port['target']} under another number")
        dependencies = {other: how["condition"] for other, how in service.get("depends_on", {}).items()}
        require(dependencies == DEPENDENCIES.get(name, {}), f"compose: {name} depends on {dependencies}")
        for other, condition in dependencies.items():
            checked = condition != "service_healthy" or everything[other].get("healthcheck", {}).get("test")
            require(checked, f"compose: {name} depends on the health of {other}, which has no health check")

    for name in ("app", "worker", "migrate"):
        service = services[name]
        require(service["image"] == f"pressroom:{project.version()}", f"compose: the image of {name} does not have the version in Cargo.toml")
        grace = project.shutdown_grace() + 10
        require(seconds(service["stop_grace_period"]) >= grace, f"compose: the stop_grace_period of {name} is under {grace} s")
        environment = service["environment"]
        require(f":{password}@postgres:" in environment["DATABASE_URL"], f"compose: {name} does not use the password of postgres")
        for secret in ("POSTGRES_PASSWORD", "SCOUT_CLIENT_SECRET"):
            require(environment.get(secret) == "", f"compose: {name} gets {secret}")
        known = set(project.sample_settings())
        require(set(environment) <= known, f"compose: {name} sets {sorted(set(environment) - known)}, which .env.example lacks")
    require("test" not in services["app"].get("healthcheck", {}), "compose: app overrides the image's health check")
    require(services["worker"].get("healthcheck", {}).get("test"), "compose: worker has no health check")
    require(services["migrate"].get("healthcheck", {}).get("disable"), "compose: migrate does not disable the image's health check")

    postgres, redis, collector = (services[name] for name in ("postgres", "redis", "otel-collector"))
    require(postgres["image"].startswith("postgres:18"), "compose: postgres is not 18")
    require([volume["target"] for volume in postgres["volumes"]] == ["/var/lib/postgresql"],
         "compose: the volume of postgres is not at /var/lib/postgresql")
    require(redis["image"].startswith("redis:8"), "compose: redis is not 8")
    require(re.search(r"--appendonly,yes", ",".join(redis["command"])), "compose: redis does not persist its data")
    require([volume["target"] for volume in redis["volumes"]] == ["/data"], "compose: the volume of redis is not at /data")

    text = project.text("config/otel-config.yaml")
    names = ("/config/otel-config.yaml", "/deploy/grafana/otel-prometheus.yaml")
    mounted = [volume for volume in collector["volumes"] if volume["source"].endswith(names)]
    require(len(mounted) == 2 and all(volume.get("read_only") for volume in mounted),
         "compose: the collector's configuration is not mounted")
    require(collector["command"] == [f"--config={volume['target']}" for volume in mounted],
         "compose: the collector reads another configuration")
    read_by_collector = set(re.findall(r"\$\{env:([A-Z_]+)", text))
    require(set(collector["environment"]) == read_by_collector,
            f"compose: the collector does not get exactly the variables {sorted(read_by_collector)}")
    fixed = [value for value in collector["environment"].values() if value is not None]
    require(not fixed, "compose: the collector's variables do not all come from .env")
    config = yaml.safe_load(text)
    listens = [config["extensions"]["health_check"]["endpoint"],
               config["receivers"]["otlp"]["protocols"]["http"]["endpoint"]]
    require(sorted(listens) == ["0.0.0.0:13133", "0.0.0.0:4318"], f"compose: the collector listens on {listens}")
    version = tuple(int(part) for part in collector["image"].rsplit(":", 1)[1].split("."))
    require(version >= (0, 144), "compose: the collector is older than its configuration")

    read = set(re.findall(r"\$\{([A-Z_]+)", project.text("compose.yaml"))) | read_by_collector
    missing = sorted(read - set(project.sample_settings()))
    require(not missing, f".env.example lacks {missing}, which compose.yaml reads")
