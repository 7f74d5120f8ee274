//! A private `redis-server` on a free port of the loopback, in a folder of its own, which can be
//! stopped and started, and is stopped when dropped.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use super::postgres_server::free_port;

const PATIENCE: Duration = Duration::from_secs(20);

pub struct RedisServer {
    port: u16,
    folder: PathBuf,
    child: Mutex<Option<Child>>,
}

impl RedisServer {
    /// Panics where no Redis is installed: a test that cannot run has failed.
    pub fn start() -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("pressroom-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let server = Self {
            port,
            folder,
            child: Mutex::new(None),
        };
        server.resume();
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Ends the server at once. What was written to its append-only file stays.
    pub fn stop(&self) {
        let mut child = self.child.lock().unwrap().take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts the server, after [`RedisServer::stop`] on the same port, and waits until it answers.
    #[expect(
        clippy::disallowed_methods,
        reason = "the environment tells tests where the binary is"
    )]
    pub fn resume(&self) {
        let binary = std::env::var("TEST_REDIS_BIN").unwrap_or_else(|_| "redis-server".to_owned());
        let child = Command::new(binary)
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .current_dir(&self.folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server must be installed, or TEST_REDIS_BIN name it");
        *self.child.lock().unwrap() = Some(child);
        let start = Instant::now();
        while self
            .command(&["PING"])
            .is_none_or(|answer| !answer.starts_with("+PONG"))
        {
            assert!(start.elapsed() < PATIENCE, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The raw answer to a command (RESP2), as far as it comes in one piece.
    pub fn command(&self, words: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = vec![0; 1 << 16];
        let length = stream.read(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..length]).into_owned())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Ok(Some(mut child)) = self.child.get_mut().map(Option::take) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
