//! The names of our own telemetry, for use where it is made. Written by `scripts/telemetry-registry` from
//! `crates/otel-service/registry`; change them there.

/// Attributes.
pub mod attribute {
    /// The worker's name. Its type is string.
    pub const CELERY_HOSTNAME: &str = "celery.hostname";

    /// How often the task was tried before. Its type is int.
    pub const CELERY_RETRIES: &str = "celery.retries";

    /// The state that the task ended in. Its type is string.
    pub const CELERY_STATE: &str = "celery.state";

    /// The task's name. Its type is string.
    pub const CELERY_TASK_NAME: &str = "celery.task_name";

    /// The request's method; `_OTHER` for one that the conventions do not know. Its type is string.
    pub const METHOD: &str = "method";

    /// Name of the task in the metrics that dashboards of the Flask system read; `unregistered` for one
    /// that the worker does not know. Its type is string.
    pub const NAME: &str = "name";

    /// Set on the one point that takes what exceeds an instrument's limit of attribute sets (specification
    /// of the metrics SDK, cardinality limits). Its type is boolean.
    pub const OTEL_METRIC_OVERFLOW: &str = "otel.metric.overflow";

    /// The span in force, as the record's own `span_id`. Its type is string.
    pub const OTEL_SPAN_ID: &str = "otelSpanID";

    /// The trace in force, as the record's own `trace_id`; the name that Python's instrumentation gives it.
    /// Its type is string.
    pub const OTEL_TRACE_ID: &str = "otelTraceID";

    /// Why, in a word or a sentence of ours. Its type is string.
    pub const REASON: &str = "reason";

    /// The route's template; `unmatched` for a path that no route matches. Its type is string.
    pub const ROUTE: &str = "route";

    /// How something ended; a number for requests and a word for everything else. Each metric says what.
    /// Its type is any.
    pub const STATUS: &str = "status";

    /// The number of a worker thread of the runtime; the first is 0. Its type is int.
    pub const TOKIO_WORKER_INDEX: &str = "tokio.worker.index";
}

/// Events.
pub mod event {
    /// A statement is sent again within its span: its connection was lost before the answer, the schema
    /// changed, or another transaction got in the way. The attributes say how the last attempt ended.
    pub const DB_STATEMENT_RETRY: &str = "db.statement.retry";
}

/// Metrics.
pub mod metric {
    /// Messages that went to the dead-letter list. A counter in `{message}`.
    pub const CELERIAC_MESSAGES_BURIED: &str = "celeriac.messages.buried";

    /// Messages in the dead-letter list. A gauge in `{message}`.
    pub const CELERY_DEAD_LETTERS: &str = "celery.dead_letters";

    /// How long the oldest waiting message waits. A gauge in seconds.
    pub const CELERY_QUEUE_OLDEST_AGE: &str = "celery.queue.oldest_age";

    /// Messages taken from the queue and not yet acknowledged. A gauge in `{message}`.
    pub const CELERY_QUEUE_UNACKNOWLEDGED: &str = "celery.queue.unacknowledged";

    /// Messages that wait in the queue. A gauge in `{message}`.
    pub const CELERY_QUEUE_WAITING: &str = "celery.queue.waiting";

    /// Duration of tasks by name. A histogram in seconds.
    pub const CELERY_TASK_DURATION_SECONDS: &str = "celery_task_duration_seconds";

    /// Tasks that ended, by name and status. A counter in `{task}`.
    pub const CELERY_TASKS_TOTAL: &str = "celery_tasks_total";

    /// Duration of requests, health endpoints included. A histogram in seconds.
    pub const HTTP_REQUEST_DURATION_SECONDS: &str = "http_request_duration_seconds";

    /// Requests that ended, health endpoints included. A counter in `{request}`.
    pub const HTTP_REQUESTS_TOTAL: &str = "http_requests_total";

    /// Tasks that have been spawned and have not ended. A updowncounter in `{task}`.
    pub const TOKIO_RUNTIME_ALIVE_TASKS: &str = "tokio.runtime.alive_tasks";

    /// Tasks ready to run that no worker has taken yet. A updowncounter in `{task}`.
    pub const TOKIO_RUNTIME_GLOBAL_QUEUE_DEPTH: &str = "tokio.runtime.global_queue.depth";

    /// Time that the worker has been running tasks, and not waiting for any. A counter in seconds.
    pub const TOKIO_RUNTIME_WORKER_BUSY_TIME: &str = "tokio.runtime.worker.busy_time";

    /// How often the worker went to sleep because no task was ready. A counter in `{park}`.
    pub const TOKIO_RUNTIME_WORKER_PARKS: &str = "tokio.runtime.worker.parks";

    /// Threads that run asynchronous tasks. A updowncounter in `{worker}`.
    pub const TOKIO_RUNTIME_WORKERS: &str = "tokio.runtime.workers";
}

/// Spans, where they have one name.
pub mod span {
    /// A task is run. Its kind is consumer.
    pub const CELERY_RUN: &str = "celery.run";

    /// A task is given to the broker. Its kind is producer.
    pub const CELERY_SEND_TASK: &str = "celery.send_task";
}
