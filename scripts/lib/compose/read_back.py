"""Reads each acknowledged article, and exits with 1 if one is missing: `read_back.py <url of the API> <file with slugs>`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import clients

client = clients.Client(sys.argv[1])
slugs = pathlib.Path(sys.argv[2]).read_text().split()
missing = []
for slug in slugs:
    try:
        client.request("GET", f"/api/articles/{slug}")
    except clients.UnexpectedStatus as error:
        missing.append(f"{slug}: {error.status}")
print(f"articles: {len(slugs) - len(missing)} of {len(slugs)} acknowledged ones can be read")
for line in missing[:20]:
    print(f"  {line}")
sys.exit(1 if missing or not slugs else 0)
