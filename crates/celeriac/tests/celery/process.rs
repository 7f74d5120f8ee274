//! Rust workers in their own processes.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::journal::{Journal, Millis, now};

/// A worker in its own process (`worker_process.rs`), killed when dropped. Its log is printed if the test
/// fails.
pub struct WorkerProcess {
    child: Child,
    pub name: String,
    log: PathBuf,
}

impl WorkerProcess {
    /// Starts a worker for the queue `celery`.
    pub fn start(url: &str, name: &str, journal: &Journal) -> Self {
        Self::start_with(url, name, journal, &["celery"], &[])
    }

    /// Starts a worker for these queues, with additional environment variables.
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
                panic!("{program:?}: {error}; build it with `cargo build -p celeriac --examples`")
            });
        Self {
            child,
            name: name.to_owned(),
            log,
        }
    }

    /// Returns the output so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Stops the worker's process, as if the machine had no time for it.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let (signal, pid) = (format!("-{name}"), self.child.id().to_string());
        let status = Command::new("kill").args([signal, pid]).status().unwrap();
        assert!(status.success(), "kill -{name}");
    }

    /// Stops the worker, and returns whether it stopped cleanly.
    pub fn stop(&mut self) -> bool {
        self.signal("TERM");
        self.child.wait().unwrap().success()
    }

    /// Returns the largest amount of memory that the worker has used so far, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Kills the worker. Returns a time after which it did nothing more.
    pub fn kill(&mut self) -> Millis {
        assert!(
            self.child.try_wait().unwrap().is_none(),
            "{} had already exited",
            self.name
        );
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        now()
    }
}

impl Drop for WorkerProcess {
    #[expect(
        clippy::print_stderr,
        reason = "a failed test shows the output of its workers"
    )]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the Rust worker {}:\n{}", self.name, self.log());
        }
        let _ = fs::remove_file(&self.log);
    }
}
