//! Rust workers as processes of their own.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::journal::{Journal, Millis, now};

/// A worker in a process of its own (`worker_process.rs`), killed when dropped. A test that fails shows its log.
pub struct WorkerProcess {
    child: Child,
    pub name: String,
    log: PathBuf,
}

impl WorkerProcess {
    /// Starts a worker of the queue `celery`.
    pub fn start(url: &str, name: &str, journal: &Journal) -> Self {
        Self::start_with(url, name, journal, &["celery"], &[])
    }

    /// Starts a worker of these queues, with additional environment variables.
    pub fn start_with(
        url: &str,
        name: &str,
        journal: &Journal,
        queues: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        // Cargo puts examples next to the folder of the tests.
        let tests = std::env::current_exe().unwrap();
        let program = tests
            .ancestors()
            .nth(2)
            .unwrap()
            .join("examples/celeriac_test_worker");
        let log = journal.path().with_extension(format!("{name}.log"));
        let output = File::create(&log).unwrap();
        let child = Command::new(&program)
            .args([url, name])
            .arg(journal.path())
            .args(queues)
            .env("OTEL_TRACES_EXPORTER", "none")
            .env("OTEL_METRICS_EXPORTER", "none")
            .env("OTEL_LOGS_EXPORTER", "none")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{program:?}: {error}; `cargo build -p celeriac --examples` makes it")
            });
        Self {
            child,
            name: name.to_owned(),
            log,
        }
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Ends it at once, as a crash does. Returns when: it did nothing after that.
    pub fn kill(&mut self) -> Millis {
        assert!(
            self.child.try_wait().unwrap().is_none(),
            "{} has ended by itself",
            self.name
        );
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        now()
    }
}

impl Drop for WorkerProcess {
    #[expect(clippy::print_stderr, reason = "a failed test shows what its workers said")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the Rust worker {}:\n{}", self.name, self.log());
        }
        let _ = fs::remove_file(&self.log);
    }
}
