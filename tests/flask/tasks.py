"""The Celery application with its one task: `celery -A tasks worker`.

Each run adds a line to the Redis list `flask.ran`, which the tests read.
"""

import json
import os

import redis
from celery import Celery
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from models import Article, sessions

REDIS_URL = os.environ["REDIS_URL"]

celery = Celery("app", broker=REDIS_URL, backend=REDIS_URL)
celery.conf.update(
    broker_connection_retry_on_startup=True,
    task_serializer="json",
    accept_content=["json"],
    timezone="UTC",
    task_track_started=True,
    task_time_limit=300,
    task_soft_time_limit=240,
)

# Spans are not exported; they only provide the trace context for messages.
trace.set_tracer_provider(TracerProvider())
CeleryInstrumentor().instrument()

store = redis.Redis.from_url(REDIS_URL)


@celery.task(name="app.jobs.tasks.send_article_notification", bind=True, max_retries=3)
def send_article_notification(self, article_id, event_type):
    with sessions() as session:
        article = session.get(Article, article_id)
        title = article and article.title
    context = trace.get_current_span().get_span_context()
    ran = {
        "task": self.request.id,
        "article": article_id,
        "event": event_type,
        "title": title,
        "trace": format(context.trace_id, "032x"),
    }
    store.rpush("flask.ran", json.dumps(ran))
    return {"status": "success", "article_id": article_id}
