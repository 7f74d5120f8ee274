-- Tasks that Redis has accepted and that are not known to have finished. When Redis loses its data, the rows
-- of lost tasks return to the outbox. A table by itself: rows of the outbox wait to be published.
CREATE TABLE published_tasks (
    -- Of the row in the outbox.
    id BIGINT PRIMARY KEY,
    task_id UUID NOT NULL,
    name TEXT NOT NULL,
    args JSONB NOT NULL,
    trace JSONB NOT NULL,
    created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    sends INTEGER NOT NULL,
    -- The batch in which it was last published: while Redis has counted that many in the log, it has the task.
    log_id UUID NOT NULL,
    batch BIGINT NOT NULL,
    published_at TIMESTAMP WITHOUT TIME ZONE NOT NULL
);

-- Number of times that the task was published.
ALTER TABLE outbox ADD COLUMN sends INTEGER NOT NULL DEFAULT 0;

-- Room on each page for the new versions of its rows, which a claim makes.
ALTER TABLE outbox SET (fillfactor = 50);
