//! The notification task, sent and run by either side.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    SideBySide, create, expect,
    flask::{Celery, run_by_celery},
    slug,
};
use crate::{
    end_to_end::installation::{Installation, create as create_traced},
    support::{
        eventually,
        otlp::{hex, integer, text},
        raw,
    },
};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Returns the runs of the task by Pressroom's workers: article, task id and trace id.
fn run_by_pressroom(installation: &Installation) -> Vec<(i64, String, String)> {
    let spans = installation.otlp.spans().into_iter();
    spans
        .filter(|(_, span)| span.name == "job.send_notification")
        .map(|(_, span)| {
            let article = integer(&span.attributes, "article.id").unwrap();
            let task = text(&span.attributes, "job.id").unwrap();
            (article, task, hex(&span.trace_id))
        })
        .collect()
}

/// Registers Alice and Bob, who favourites one of her articles and is therefore notified of her later articles.
/// Empties the queue and returns Alice's token.
async fn register_people(sides: &SideBySide) -> String {
    let alice = raw::register(sides.old, "alice@example.com").await;
    let bob = raw::register(sides.new, "bob@example.com").await;
    let first = create(sides.old, &alice, "First").await;
    let target = format!("/api/articles/{}/favorite", slug(&first));
    expect(200, sides.old, ("POST", &target), Some(&bob), None).await;
    sides.installation.waiting_message().await;
    sides.installation.redis.command(&["DEL", "celery"]).unwrap();
    alice
}

/// Waits for the result of a task.
async fn result_of(sides: &SideBySide, task: &str) -> Value {
    eventually("the result", async || {
        let key = format!("celery-task-meta-{task}");
        let response = sides.installation.redis.command(&["GET", &key])?;
        let result: Value = serde_json::from_str(&response[response.find('{')?..]).ok()?;
        (result["status"] == "SUCCESS").then_some(result)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pressroom_runs_a_task_from_flask_in_the_same_trace() {
    let sides = SideBySide::start().await;
    let alice = register_people(&sides).await;
    let _worker = sides.installation.worker();
    create_traced(sides.old, &alice, "From Flask", Some(TRACEPARENT)).await;

    sides.installation.mails(1).await;
    let mail = &sides.installation.mail.received()[0];
    assert_eq!(mail.recipient, "bob@example.com");
    assert!(mail.text.contains("From Flask"));
    let (article, task, trace) = eventually("the span of the run", async || {
        run_by_pressroom(&sides.installation).pop()
    })
    .await;
    assert_eq!((article, trace.as_str()), (2, TRACE_ID));
    let result = result_of(&sides, &task).await;
    assert_eq!(result["result"], json!({"status": "success", "article_id": 2}));
    assert_eq!(run_by_celery(&sides.installation), [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn celery_runs_a_task_from_pressroom_in_the_same_trace() {
    let sides = SideBySide::start().await;
    let alice = register_people(&sides).await;
    let celery = Celery::start(&sides.installation).await;
    create_traced(sides.new, &alice, "From Pressroom", Some(TRACEPARENT)).await;

    let ran = eventually("the run", async || run_by_celery(&sides.installation).pop()).await;
    assert_eq!(ran["article"], 2);
    assert_eq!(ran["event"], "created");
    assert_eq!(
        ran["title"], "From Pressroom",
        "the article was committed before its task was sent"
    );
    assert_eq!(ran["trace"], TRACE_ID);
    let result = result_of(&sides, ran["task"].as_str().unwrap()).await;
    assert_eq!(result["result"], json!({"status": "success", "article_id": 2}));

    let health = expect(200, sides.new, ("GET", "/api/health"), None, None).await;
    assert_eq!(
        health["components"]["celery"], "healthy",
        "the health check counts Celery workers"
    );
    celery.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_runs_once_while_workers_of_both_sides_start_and_stop() {
    const TASKS_PER_ROUND: usize = 30;
    let sides = SideBySide::start().await;
    let alice = register_people(&sides).await;
    let mut expected = BTreeSet::new();
    let mut send = async |round: usize| {
        for number in 0..TASKS_PER_ROUND {
            let side = if number % 2 == 0 { sides.old } else { sides.new };
            create(side, &alice, &format!("Round {round}, number {number}")).await;
            expected.insert(expected.len() as i64 + 2);
        }
    };

    // Round 0: only Celery. Round 1: both; Pressroom runs one task at a time, which leaves tasks for Celery.
    // Then Celery stops with reserved tasks. Round 2: only Pressroom. Round 3: only Celery.
    let celery = Celery::start(&sides.installation).await;
    send(0).await;
    let mut worker = sides.installation.worker_with(&[("CELERY_CONCURRENCY", "1")]);
    send(1).await;
    eventually("both sides to run tasks", async || {
        let both = !run_by_celery(&sides.installation).is_empty()
            && !run_by_pressroom(&sides.installation).is_empty();
        both.then_some(())
    })
    .await;
    celery.stop().await;
    send(2).await;
    let celery = Celery::start(&sides.installation).await;
    assert!(worker.terminate().await.success(), "{}", worker.output());
    send(3).await;

    let ran = eventually("every task to run", async || {
        let by_celery = run_by_celery(&sides.installation);
        let by_celery = by_celery.iter().map(|run| run["article"].as_i64().unwrap());
        let by_pressroom = run_by_pressroom(&sides.installation);
        let mut ran: Vec<_> = by_celery
            .chain(by_pressroom.into_iter().map(|(article, ..)| article))
            .collect();
        ran.sort_unstable();
        (ran.len() >= 4 * TASKS_PER_ROUND).then_some(ran)
    })
    .await;
    assert_eq!(
        ran,
        expected.into_iter().collect::<Vec<_>>(),
        "each task runs once"
    );
    celery.stop().await;
}

#[expect(clippy::disallowed_methods, reason = "the test queries a table directly")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_run_by_celery_are_sent_again_only_if_they_are_lost() {
    let sides = SideBySide::start().await;
    let alice = register_people(&sides).await;
    let client = sides.database().await;
    let published = async || -> i64 {
        let row = client.query_one("SELECT count(*) FROM published_tasks", &[]);
        row.await.unwrap().get(0)
    };
    create(sides.new, &alice, "Lost").await;
    eventually("the task to be published", async || {
        (published().await == 1).then_some(())
    })
    .await;
    sides.installation.redis.command(&["FLUSHALL"]).unwrap();

    let celery = Celery::start(&sides.installation).await;
    let ran = eventually("the run", async || run_by_celery(&sides.installation).pop()).await;
    assert_eq!(ran["title"], "Lost");
    eventually("the task to be forgotten", async || {
        (published().await == 0).then_some(())
    })
    .await;

    // Their results are lost, too, but no longer needed.
    sides.installation.redis.command(&["FLUSHALL"]).unwrap();
    create(sides.new, &alice, "After the second flush").await;
    eventually("the task to be run and forgotten", async || {
        let ran = !run_by_celery(&sides.installation).is_empty();
        (ran && published().await == 0).then_some(())
    })
    .await;
    let ran = run_by_celery(&sides.installation);
    assert_eq!(ran.len(), 1, "{ran:?}");
    assert_eq!(ran[0]["title"], "After the second flush");
    celery.stop().await;
}
