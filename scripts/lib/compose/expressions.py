"""Evaluates the dashboard's and the alerts' expressions on a running Prometheus, and exits with 1 unless all are right.

    expressions.py <url of Prometheus>

The system is healthy and has had every kind of traffic but failures: each expression of the dashboard must return a sample,
also those that count failures, and no alert may be pending or firing.
"""

import json
import sys
import urllib.parse
import urllib.request


def api(path, **parameters):
    query = urllib.parse.urlencode(parameters)
    try:
        with urllib.request.urlopen(f"{sys.argv[1]}/api/v1/{path}?{query}", timeout=10) as response:
            return json.load(response)["data"]
    except urllib.error.HTTPError as error:
        sys.exit(f"{path} {parameters}: {json.load(error)['error']}")


def expressions(panels):
    for panel in panels:
        yield from expressions(panel.get("panels", []))
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "1m").replace("$job", ".+").replace("$route", ".*")
            yield panel["title"], expression


problems = []
count = 0
for title, expression in expressions(json.load(open("deploy/grafana/pressroom.json"))["panels"]):
    count += 1
    if not api("query", query=expression)["result"]:
        problems.append(f"dashboard, {title}: no data: {expression}")

rules = [rule for group in api("rules")["groups"] for rule in group["rules"]]
for rule in rules:
    if rule["health"] != "ok":
        problems.append(f"alert {rule['name']}: {rule['health']}: {rule.get('lastError', 'not evaluated')}")
    elif rule.get("state", "inactive") != "inactive":
        problems.append(f"alert {rule['name']} is {rule['state']}: {rule['alerts'][0]['annotations']}")
if not rules:
    problems.append("Prometheus has loaded no alerts")
for problem in problems:
    print(problem)
print(f"prometheus: {count} expressions of the dashboard and {len(rules)} alerts evaluated, {len(problems)} problems")
sys.exit(1 if problems else 0)
