"""A Flask service that gets five requests; opentelemetry-instrument records and sends them."""

from flask import Flask

app = Flask(__name__)


@app.get("/cart")
def cart():
    return "ok"


for _ in range(5):
    assert app.test_client().get("/cart").status_code == 200
