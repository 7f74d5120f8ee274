"""Checks compose.yaml as rendered by docker compose."""

import json
import re

import yaml

from facts import fact, pinned

# Published ports in docs/deployment.md: service and address.
PORTS = {
    "app": [8000],
    "postgres": [5432],
    "redis": [6379],
    "otel-collector": [4318, 13133],
    "flower": [5555],
}
WAITS = {
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
    "flower": {"redis": "service_healthy"},
}


def seconds(text):
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([hms])", text))


def hardened(name, service):
    fact(service.get("read_only") is True, f"compose: {name} may write into its image")
    fact(service.get("cap_drop") == ["ALL"] and not service.get("cap_add"), f"compose: {name} keeps capabilities")
    fact("no-new-privileges:true" in service.get("security_opt", []), f"compose: {name} may gain privileges")
    fact(not service.get("privileged"), f"compose: {name} is privileged")
    fact(int(service.get("mem_limit", 0)) > 0, f"compose: {name} has no memory limit")
    fact(service.get("restart"), f"compose: {name} has no restart policy")
    fact(service.get("logging", {}).get("options", {}).get("max-size"), f"compose: the log of {name} grows forever")
    fact(pinned(service["image"]), f"compose: {service['image']} names no version")


def check(project, rendered, with_profiles, password):
    services = json.loads(rendered.read_text())["services"]
    everything = json.loads(with_profiles.read_text())["services"]
    fact(set(services) == {"app", "worker", "migrate", "postgres", "redis", "otel-collector"},
         f"compose: `up` starts {sorted(services)}")
    fact(set(everything) - set(services) == {"flower"}, "compose: the profile adds something else than flower")

    for name, service in everything.items():
        hardened(name, service)
        published = [int(port["published"]) for port in service.get("ports", [])]
        fact(sorted(published) == PORTS.get(name, []), f"compose: {name} publishes {published}")
        for port in service.get("ports", []):
            fact(port.get("host_ip") == "127.0.0.1", f"compose: {name} publishes {port['published']} to the network")
            fact(int(port["published"]) == port["target"], f"compose: {name} has {port['target']} elsewhere")
        waits = {other: how["condition"] for other, how in service.get("depends_on", {}).items()}
        fact(waits == WAITS.get(name, {}), f"compose: {name} waits for {waits}")
        for other, condition in waits.items():
            asked = condition != "service_healthy" or everything[other].get("healthcheck", {}).get("test")
            fact(asked, f"compose: {name} waits for the health of {other}, which has no health check")

    for name in ("app", "worker", "migrate"):
        service = services[name]
        fact(service["image"] == f"pressroom:{project.version()}", f"compose: {name} is not of Cargo.toml's version")
        grace = project.shutdown_grace() + 10
        fact(seconds(service["stop_grace_period"]) >= grace, f"compose: {name} is killed before {grace} s")
        environment = service["environment"]
        fact(f":{password}@postgres:" in environment["DATABASE_URL"], f"compose: {name} has another password")
        for secret in ("POSTGRES_PASSWORD", "SCOUT_CLIENT_SECRET"):
            fact(environment.get(secret) == "", f"compose: {name} is given {secret}")
        known = set(project.sample_settings())
        fact(set(environment) <= known, f"compose: {name} sets {sorted(set(environment) - known)}, which nothing reads")
    fact("test" not in services["app"].get("healthcheck", {}), "compose: app hides the image's health check")
    fact(services["worker"].get("healthcheck", {}).get("test"), "compose: worker has no health check of its own")
    fact(services["migrate"].get("healthcheck", {}).get("disable"), "compose: migrate has no API to be asked")

    postgres, redis, collector = (services[name] for name in ("postgres", "redis", "otel-collector"))
    fact(postgres["image"].startswith("postgres:18"), "compose: postgres is not 18")
    fact([volume["target"] for volume in postgres["volumes"]] == ["/var/lib/postgresql"],
         "compose: the volume of postgres is not at /var/lib/postgresql")
    fact(redis["image"].startswith("redis:8"), "compose: redis is not 8")
    fact(re.search(r"--appendonly,yes", ",".join(redis["command"])), "compose: redis does not keep what it is given")
    fact([volume["target"] for volume in redis["volumes"]] == ["/data"], "compose: the volume of redis is not at /data")

    text = project.text("config/otel-config.yaml")
    mounted = [volume for volume in collector["volumes"] if volume["source"].endswith("/config/otel-config.yaml")]
    fact(len(mounted) == 1 and mounted[0].get("read_only"), "compose: the collector's configuration is not mounted")
    fact(collector["command"] == [f"--config={mounted[0]['target']}" if mounted else ""],
         "compose: the collector reads another configuration")
    asked = set(re.findall(r"\$\{env:([A-Z_]+)", text))
    fact(set(collector["environment"]) == asked, f"compose: the collector is not given {sorted(asked)}")
    given = [value for value in collector["environment"].values() if value is not None]
    fact(not given, "compose: the collector is given values where .env has none")
    config = yaml.safe_load(text)
    listens = [config["extensions"]["health_check"]["endpoint"],
               config["receivers"]["otlp"]["protocols"]["http"]["endpoint"]]
    fact(sorted(listens) == ["0.0.0.0:13133", "0.0.0.0:4318"], f"compose: the collector listens on {listens}")
    version = tuple(int(part) for part in collector["image"].rsplit(":", 1)[1].split("."))
    fact(version >= (0, 144), "compose: the collector is older than its configuration")

    read = set(re.findall(r"\$\{([A-Z_]+)", project.text("compose.yaml"))) | asked
    missing = sorted(read - set(project.sample_settings()))
    fact(not missing, f".env.example: {missing} are not in it, and compose.yaml reads them")
