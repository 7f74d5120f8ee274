//! Real Celery: Python workers in their own processes, and a Python client that runs given snippets. Both use
//! the application in `tests/python/app.py`, with every version of Celery that `TEST_CELERY_PYTHON` names.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::support::{PATIENCE, eventually};

/// Runs each function as a test with every version of Celery: `celery_5_6::name` and `celery_5_7::name`.
#[macro_export]
macro_rules! with_every_celery {
    ($($behaviour:ident)*) => {
        $crate::with_every_celery!(@version celery_5_6 "5.6"; $($behaviour)*);
        $crate::with_every_celery!(@version celery_5_7 "5.7"; $($behaviour)*);
    };
    (@version $module:ident $version:literal; $($behaviour:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    super::$behaviour($crate::celery::Python::with_celery($version)).await;
                }
            )*
        }
    };
}

/// A Python interpreter with Celery installed.
#[derive(Debug, Clone)]
pub struct Python {
    interpreter: String,
    /// Exact version of Celery.
    pub celery: String,
}

impl Python {
    /// Returns the interpreter that has this version of Celery installed, such as `5.6`.
    pub fn with_celery(version: &str) -> Self {
        static INTERPRETERS: OnceLock<Vec<Python>> = OnceLock::new();
        let known = INTERPRETERS.get_or_init(Self::all);
        let found = known
            .iter()
            .find(|python| python.celery.starts_with(&format!("{version}.")));
        found
            .unwrap_or_else(|| {
                panic!("no interpreter of {known:?} (from TEST_CELERY_PYTHON) has Celery {version}")
            })
            .clone()
    }

    #[expect(clippy::disallowed_methods, reason = "the environment names the interpreters")]
    fn all() -> Vec<Self> {
        let interpreters = std::env::var("TEST_CELERY_PYTHON").expect(
            "TEST_CELERY_PYTHON must list Python interpreters with Celery, separated by colons; \
             scripts/test sets it",
        );
        let query = |interpreter: &str| {
            let output = std::process::Command::new(interpreter)
                .args(["-c", "import importlib.metadata as m; print(m.version('celery'))"])
                .output()
                .unwrap_or_else(|error| panic!("{interpreter} (from TEST_CELERY_PYTHON): {error}"));
            Self {
                interpreter: interpreter.to_owned(),
                celery: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            }
        };
        interpreters.split(':').map(query).collect()
    }

    /// Returns a command that runs this interpreter with `arguments`, such as
    /// `["-m", "celery", "-A", "app", "inspect", "ping"]`. `url` is the broker of the application.
    pub fn command(&self, url: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.interpreter);
        command
            .args(arguments)
            .env("TEST_CELERY_BROKER", url)
            .env(
                "PYTHONPATH",
                Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python"),
            )
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs the interpreter with `arguments` and returns its standard output.
    pub async fn output(&self, url: &str, arguments: &[&str]) -> String {
        let output = timeout(PATIENCE, self.command(url, arguments).output())
            .await
            .unwrap_or_else(|_| panic!("Celery {}: {arguments:?} did not exit in time", self.celery))
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "Celery {}: {arguments:?} failed: {}{}",
            self.celery,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Starts a worker with one thread. `args` are passed to `celery worker`, where they can override
    /// `--pool` and `--concurrency`; `env` are variables that `app.py` reads.
    pub async fn worker(&self, url: &str, args: &[&str], env: &[(&str, &str)]) -> PythonWorker {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("celery-{}-{number}.log", std::process::id()));
        let output = File::create(&log).unwrap();
        let name = format!("python{number}@test");
        let mut command = self.command(url, &["-m", "celery", "-A", "app", "worker", "--pool", "solo"]);
        let child = command
            .args(["--loglevel", "INFO", "--hostname", &name])
            .args(args)
            .envs(env.iter().copied())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let mut worker = PythonWorker {
            child,
            name,
            celery: self.celery.clone(),
            log,
        };
        eventually("the Python worker is ready", async || {
            let status = worker.child.try_wait().unwrap();
            assert!(status.is_none(), "the Python worker has exited: {status:?}");
            worker.log().contains(" ready.").then_some(())
        })
        .await;
        worker
    }

    /// Starts a client that runs Python snippets.
    pub fn client(&self, url: &str) -> PythonClient {
        self.client_with(url, &[])
    }

    /// Starts a client that runs Python snippets, with variables that `app.py` reads.
    pub fn client_with(&self, url: &str, env: &[(&str, &str)]) -> PythonClient {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/console.py");
        let mut child = self
            .command(url, &[script.to_str().unwrap()])
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        PythonClient {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()).lines(),
            celery: self.celery.clone(),
            _child: child,
        }
    }
}

/// A `celery worker` process, killed when dropped. Its log is printed if the test fails.
pub struct PythonWorker {
    child: Child,
    /// Node name.
    pub name: String,
    celery: String,
    log: PathBuf,
}

impl PythonWorker {
    /// Returns the output so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Returns the process id. Panics if the worker has exited.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the worker is running")
    }

    /// Kills the worker, as a crash would.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts a warm shutdown, as Celery does on SIGTERM, and waits for the worker to exit.
    pub async fn stop(mut self) {
        self.signal("TERM").await;
        timeout(PATIENCE, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("the worker of Celery {} did not stop in time", self.celery))
            .unwrap();
    }

    /// Sends the signal `name`, such as `STOP`.
    pub async fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        let status = kill.args(["-s", name, &self.pid().to_string()]).status();
        assert!(status.await.unwrap().success());
    }
}

impl Drop for PythonWorker {
    #[expect(clippy::print_stderr, reason = "a failed test shows Python's output")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- log of {} (Celery {}):\n{}",
                self.name,
                self.celery,
                self.log()
            );
        }
        let _ = self.child.start_kill();
        let _ = fs::remove_file(&self.log);
    }
}

/// A Python process that has imported the application and runs snippets one after another.
pub struct PythonClient {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    celery: String,
    _child: Child,
}

impl PythonClient {
    /// Runs a snippet with the names of `app.py` and the variables of earlier snippets in scope. Returns the
    /// value of its last expression; panics if it raises.
    pub async fn run(&mut self, code: &str) -> Value {
        let line = format!("{}\n", json!({"code": code}));
        self.input.write_all(line.as_bytes()).await.unwrap();
        let line = timeout(PATIENCE * 2, self.output.next_line())
            .await
            .unwrap_or_else(|_| panic!("Celery {}: timed out running: {code}", self.celery))
            .unwrap()
            .unwrap_or_else(|| panic!("Celery {}: the client exited while running: {code}", self.celery));
        let mut response: Value = serde_json::from_str(&line).unwrap();
        if let Some(error) = response["error"].as_str() {
            panic!("Celery {}: {code}\n{error}", self.celery);
        }
        response["value"].take()
    }
}
