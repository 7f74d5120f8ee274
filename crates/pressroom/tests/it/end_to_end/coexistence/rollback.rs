//! Rollback: Pressroom is stopped, and Flask continues with the data that both have written.

use super::{
    PASSWORD, SideBySide, create, expect,
    flask::{Celery, run_by_celery},
    login, shown, slug,
};
use crate::support::{eventually, raw};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_pressroom_is_stopped_flask_continues_with_everything_it_created() {
    let mut sides = SideBySide::start().await;
    let alice = raw::register(sides.new, "alice@example.com").await;
    let bob = raw::register(sides.new, "bob@example.com").await;
    let article = create(sides.new, &alice, "Made meanwhile").await;
    let path = format!("/api/articles/{}", slug(&article));
    let favored = expect(
        200,
        sides.new,
        ("POST", &format!("{path}/favorite")),
        Some(&bob),
        None,
    )
    .await;
    // The task waits in Redis because no worker runs yet.
    sides.installation.waiting_message().await;
    let status = sides.serve.terminate().await;
    assert!(status.success(), "{}", sides.serve.output());

    // A Celery worker of Flask runs the task that Pressroom has sent.
    let celery = Celery::start(&sides.installation).await;
    let ran = eventually("the task left behind", async || {
        run_by_celery(&sides.installation).pop()
    })
    .await;
    assert_eq!(ran["title"], "Made meanwhile");
    login(200, sides.old, "bob@example.com", PASSWORD).await;
    let read = expect(200, sides.old, ("GET", &path), Some(&bob), None).await;
    assert_eq!(shown(&read), shown(&favored));
    expect(
        200,
        sides.old,
        ("DELETE", &format!("{path}/favorite")),
        Some(&bob),
        None,
    )
    .await;
    let change = serde_json::json!({"body": "edited after the rollback"});
    expect(200, sides.old, ("PUT", &path), Some(&alice), Some(change)).await;
    expect(204, sides.old, ("DELETE", &path), Some(&alice), None).await;
    create(sides.old, &alice, "Made afterwards").await;
    eventually("the next task", async || {
        (run_by_celery(&sides.installation).len() == 2).then_some(())
    })
    .await;
    celery.stop().await;
    sides.flask.stop().await;
}
