//! A private `redis-server` on a free loopback port, in its own folder, stopped when dropped.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use celeriac::{RedisBroker, RedisConfig};

pub struct Server {
    child: Child,
    pub port: u16,
    /// Folder of its data and of the Unix socket `redis.sock`.
    pub folder: PathBuf,
    password: Option<&'static str>,
    /// Additional arguments for the next start.
    pub arguments: &'static [&'static str],
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(None)
    }

    pub fn start_with(password: Option<&'static str>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let folder = std::env::temp_dir().join(format!("celeriac-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let child = launch(port, &folder, password, &[]);
        Self {
            child,
            port,
            folder,
            password,
            arguments: &[],
        }
    }

    pub fn url(&self) -> String {
        match self.password {
            Some(password) => format!("redis://:{password}@127.0.0.1:{}/0", self.port),
            None => format!("redis://127.0.0.1:{}/0", self.port),
        }
    }

    pub fn config(&self) -> RedisConfig {
        RedisConfig::new(self.url())
    }

    pub fn broker(&self) -> RedisBroker {
        RedisBroker::new(self.config()).unwrap()
    }

    /// Returns a direct connection, to inspect what is stored.
    pub fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Kills the server. Data written to its append-only file remains.
    pub fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn start_again(&mut self) {
        self.child = launch(self.port, &self.folder, self.password, self.arguments);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the environment names the server's binary"
)]
pub fn binary() -> String {
    std::env::var("TEST_REDIS_BIN").unwrap_or_else(|_| "redis-server".to_owned())
}

fn launch(port: u16, folder: &PathBuf, password: Option<&str>, arguments: &[&str]) -> Child {
    let mut command = Command::new(binary());
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        // Every change is written before the response, which is enough for a killed process. Syncing to disk
        // would only matter for a power failure, and would delay tests for minutes on a busy disk.
        .args(["--appendonly", "yes", "--appendfsync", "no"])
        .args(["--unixsocket", "redis.sock"])
        .args(arguments)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(password) = password {
        command.args(["--requirepass", password]);
    }
    let mut child = command
        .spawn()
        .expect("redis-server is not installed; install it, or set TEST_REDIS_BIN to its path");
    let deadline = Instant::now() + Duration::from_secs(20);
    let auth = password
        .map(|password| format!(":{password}@"))
        .unwrap_or_default();
    let client = redis::Client::open(format!("redis://{auth}127.0.0.1:{port}/0")).unwrap();
    while client
        .get_connection()
        .and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection))
        .is_err()
    {
        assert!(child.try_wait().unwrap().is_none(), "redis-server has exited");
        assert!(Instant::now() < deadline, "redis-server did not respond in time");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}
