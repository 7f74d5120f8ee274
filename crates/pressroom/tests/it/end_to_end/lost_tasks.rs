//! Tasks survive the loss of Redis's data and of the process that publishes them.
#![expect(clippy::disallowed_methods, reason = "tests query the tables directly")]

use std::net::SocketAddr;

use super::installation::{Installation, People, create};
use crate::support::{eventually, postgres, process::Process};

async fn count(installation: &Installation, sql: &str) -> i64 {
    let client = postgres::client(installation.variable("DATABASE_URL")).await;
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Waits until `expected` tasks are recorded as published and the outbox is empty.
async fn published(installation: &Installation, expected: i64) {
    eventually(&format!("{expected} published tasks"), async || {
        let waiting = count(installation, "SELECT count(*) FROM outbox").await;
        let published = count(installation, "SELECT count(*) FROM published_tasks").await;
        (waiting == 0 && published == expected).then_some(())
    })
    .await;
}

/// Returns the number of messages in the queue.
fn queued(installation: &Installation) -> usize {
    let reply = installation.redis.command(&["LLEN", "celery"]);
    let length = reply.and_then(|reply| reply.trim_start_matches(':').trim().parse().ok());
    length.unwrap_or_default()
}

async fn waits_in_queue(installation: &Installation, expected: usize) {
    eventually(&format!("{expected} messages in the queue"), async || {
        (queued(installation) == expected).then_some(())
    })
    .await;
}

/// Starts the API and creates three articles, each with a reader to notify. Their tasks are in the queue.
async fn three_queued(installation: &Installation) -> (Process, SocketAddr, People) {
    let (serve, api) = installation.serve().await;
    let people = People::new(api, installation).await;
    forget(installation).await;
    for title in ["One", "Two", "Three"] {
        create(api, &people.alice, title, None).await;
    }
    published(installation, 3).await;
    assert_eq!(queued(installation), 3);
    (serve, api, people)
}

/// Deletes the record of the tasks whose messages `People::new` has removed from the queue.
async fn forget(installation: &Installation) {
    published(installation, 1).await;
    let client = postgres::client(installation.variable("DATABASE_URL")).await;
    client.batch_execute("DELETE FROM published_tasks").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_tasks_are_sent_again_after_a_flush() {
    let installation = Installation::new().await;
    let (serve, api, people) = three_queued(&installation).await;
    installation.redis.command(&["FLUSHALL"]).unwrap();
    waits_in_queue(&installation, 3).await;
    serve
        .wait_for_output("Redis has lost tasks; sending them again")
        .await;
    create(api, &people.alice, "Afterwards", None).await;
    let mut worker = installation.worker();
    installation.mails(4).await;
    published(&installation, 0).await;

    // Finished tasks are not sent again.
    installation.redis.command(&["FLUSHALL"]).unwrap();
    create(api, &people.alice, "After the second flush", None).await;
    installation.mails(5).await;
    published(&installation, 0).await;
    installation.mails(5).await;
    assert!(worker.terminate().await.success(), "{}", worker.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_tasks_are_sent_again_after_redis_restarts_without_its_data() {
    let installation = Installation::new().await;
    let (_serve, _, _) = three_queued(&installation).await;
    installation.redis.lose_data();
    waits_in_queue(&installation, 3).await;
    let _worker = installation.worker();
    installation.mails(3).await;
    published(&installation, 0).await;
    installation.mails(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_resends_the_lost_tasks_of_a_killed_one() {
    let installation = Installation::new().await;
    let (mut serve, _, _) = three_queued(&installation).await;
    serve.kill();
    installation.redis.lose_data();
    let _second = installation.serve().await;
    waits_in_queue(&installation, 3).await;
    let _worker = installation.worker();
    installation.mails(3).await;
}

/// After a failover to a replica that lagged behind, Redis has older data: fewer messages and a shorter log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_newest_tasks_are_sent_again_after_the_newest_writes_are_lost() {
    let installation = Installation::new().await;
    let (_serve, api, people) = three_queued(&installation).await;
    let log = log_key_and_length(&installation).await;
    create(api, &people.alice, "Lost", None).await;
    published(&installation, 4).await;
    let lost = installation.redis.command(&["LPOP", "celery"]).unwrap();
    let (key, length) = log;
    installation.redis.command(&["SET", &key, &length]).unwrap();

    waits_in_queue(&installation, 4).await;
    let newest = installation.redis.command(&["LINDEX", "celery", "0"]).unwrap();
    let id = |message: &str| {
        let (_, after) = message.split_once(r#""id": ""#).unwrap();
        after[..36].to_owned()
    };
    assert_eq!(id(&newest), id(&lost), "sent again under the same id");
    let _worker = installation.worker();
    installation.mails(4).await;
    published(&installation, 0).await;
    installation.mails(4).await;
}

/// Returns the key and the length of the publication log.
async fn log_key_and_length(installation: &Installation) -> (String, String) {
    let client = postgres::client(installation.variable("DATABASE_URL")).await;
    let sql = "SELECT log_id::text, max(batch)::text FROM published_tasks GROUP BY log_id";
    let log = client.query_one(sql, &[]).await.unwrap();
    (format!("celeriac.log.{}", log.get::<_, String>(0)), log.get(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_published_again_if_the_process_dies_before_recording_it() {
    let installation = Installation::new().await;
    let (mut serve, api) = installation.serve().await;
    let people = People::new(api, &installation).await;
    forget(&installation).await;
    let client = postgres::client(installation.variable("DATABASE_URL")).await;
    client
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'the record fails'; END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON published_tasks EXECUTE FUNCTION refuse()",
        )
        .await
        .unwrap();
    create(api, &people.alice, "Twice", None).await;
    waits_in_queue(&installation, 1).await;
    serve.kill();
    client
        .batch_execute("DROP TRIGGER refuse ON published_tasks")
        .await
        .unwrap();

    let _second = installation.serve().await;
    waits_in_queue(&installation, 2).await;
    let _worker = installation.worker();
    published(&installation, 0).await;
    waits_in_queue(&installation, 0).await;
    installation.mails(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_without_a_result_is_forgotten_after_its_lifetime() {
    let installation = Installation::new().await;
    let (_serve, api) = installation.serve_with(&[("PUBLISHED_TASK_LIFETIME", "1")]).await;
    People::new(api, &installation).await;
    published(&installation, 0).await;
    assert_eq!(queued(&installation), 0);
}

/// This bounds how often a task is sent if Redis keeps losing its data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_was_lost_ten_times_is_not_sent_again() {
    let installation = Installation::new().await;
    let (serve, _, _) = three_queued(&installation).await;
    let client = postgres::client(installation.variable("DATABASE_URL")).await;
    client
        .batch_execute("UPDATE published_tasks SET sends = 10")
        .await
        .unwrap();
    installation.redis.command(&["FLUSHALL"]).unwrap();
    published(&installation, 0).await;
    assert_eq!(queued(&installation), 0);
    serve
        .wait_for_output("Redis has lost tasks too often; they are not sent again")
        .await;
}

/// With a pause of a second after each batch of 256 tasks, the backlog would take 78 s, and the test would time out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_published_without_pauses() {
    const BACKLOG: usize = 20_000;
    let installation = Installation::new().await;
    let client = postgres::client(installation.variable("DATABASE_URL")).await;
    let insert = format!(
        "INSERT INTO outbox (task_id, name, args, trace, created_at, claimable_at)
        SELECT gen_random_uuid(), 'app.jobs.tasks.send_article_notification', '[1, \"created\"]', '[]',
            now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC'
        FROM generate_series(1, {BACKLOG})"
    );
    client.batch_execute(&insert).await.unwrap();
    let (_serve, _) = installation.serve().await;
    published(&installation, BACKLOG as i64).await;
    assert_eq!(queued(&installation), BACKLOG);
}
