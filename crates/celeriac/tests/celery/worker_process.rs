//! A Rust worker as a process of its own, for tests that kill it. Arguments: the server's URL, the worker's name, and
//! the journal to append to. Its task `work` (a name, seconds) writes `<name> begins|ends <worker> <time>` there, which
//! a kill cannot take back, and takes that long unless another worker had the message before.

#![expect(clippy::expect_used, reason = "a test's program may panic")]

use std::{
    fs::{File, OpenOptions},
    io::Write,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use celeriac::{RedisBroker, RedisConfig, TaskContext, TaskOptions, Worker};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, name, journal] = arguments.try_into().expect("a URL, a name and a file");
    let broker = RedisBroker::new(RedisConfig::new(url)).expect("a URL of Redis");
    let journal = OpenOptions::new().append(true).create(true).open(journal);
    let journal = Arc::new(journal.expect("the journal can be written"));
    let worker = Worker::builder(Arc::new(broker))
        .hostname(format!("celery@{name}"))
        .task(
            "work",
            TaskOptions::default(),
            move |context: TaskContext, (task, seconds): (String, f64)| {
                let (journal, name) = (Arc::clone(&journal), name.clone());
                async move {
                    write(&journal, &format!("{task} begins {name}"));
                    if !context.redelivered {
                        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                    }
                    write(&journal, &format!("{task} ends {name}"));
                    Ok(())
                }
            },
        );
    let never = CancellationToken::new();
    worker
        .build()
        .run(never, Duration::ZERO)
        .await
        .expect("it is killed before");
}

/// One line in one write, so that the lines of several processes do not mix.
fn write(mut journal: &File, event: &str) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is after 1970");
    let line = format!("{event} {}\n", now.as_millis());
    journal
        .write_all(line.as_bytes())
        .expect("the journal can be written");
}
