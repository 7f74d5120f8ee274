//! Signals that operators' tools send: none of them ends a process before it has finished its work.

use super::installation::{Installation, People, create};
use crate::support::raw;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_that_reload_other_programs_are_ignored_and_logged_once() {
    let installation = Installation::new().await;
    let (mut serve, api) = installation.serve().await;
    let people = People::new(api, &installation).await;
    let mut worker = installation.worker();
    worker.wait_for_output("worker started").await;
    let ignored = [
        "HUP", "USR1", "USR2", "TTIN", "TTOU", "ALRM", "VTALRM", "PROF", "IO", "XFSZ",
    ]
    .map(|signal| (signal, format!("SIG{signal} received and ignored")));
    for (signal, logged) in &ignored {
        for process in [&serve, &worker] {
            process.send(signal);
            process.wait_for_output(logged).await;
            process.send(signal);
        }
    }
    create(api, &people.alice, "Second", None).await;
    installation.mails(1).await;
    assert_eq!(
        raw::request(api, "GET", "/api/health/live", None, None)
            .await
            .status,
        200
    );
    assert!(worker.terminate().await.success(), "{}", worker.output());
    assert!(serve.terminate().await.success(), "{}", serve.output());
    for (_, logged) in &ignored {
        for output in [serve.output(), worker.output()] {
            assert_eq!(output.matches(logged).count(), 1, "{output}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_that_stop_a_process_let_it_finish() {
    let installation = Installation::new().await;
    for signal in ["QUIT", "XCPU", "INT"] {
        let (mut serve, _) = installation.serve().await;
        let mut worker = installation.worker();
        worker.wait_for_output("worker started").await;
        for process in [&mut serve, &mut worker] {
            process.send(signal);
            let status = process.wait_for_exit().await;
            assert!(status.success(), "SIG{signal}: {status}: {}", process.output());
            let logged = format!("SIG{signal} received, stopping");
            assert!(process.output().contains(&logged), "{}", process.output());
        }
    }
}
