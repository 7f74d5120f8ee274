//! A `redis-server` for one test, on a free loopback port and in a temporary folder, which can be stopped
//! and started; it is stopped on drop.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use super::postgres_server::free_port;

const START_TIMEOUT: Duration = Duration::from_secs(20);

pub struct RedisServer {
    port: u16,
    folder: PathBuf,
    child: Mutex<Option<Child>>,
}

impl RedisServer {
    /// Starts a server.
    ///
    /// # Panics
    /// Panics if Redis is not installed.
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

    /// Kills the server; its append-only file stays.
    pub fn stop(&self) {
        let mut child = self.child.lock().unwrap().take().expect("the server is running");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts the server, after [`RedisServer::stop`] on the same port, and waits until it responds.
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
            .expect("redis-server is installed; otherwise set TEST_REDIS_BIN to its path");
        *self.child.lock().unwrap() = Some(child);
        let start = Instant::now();
        while self
            .command(&["PING"])
            .is_none_or(|reply| !reply.starts_with("+PONG"))
        {
            assert!(
                start.elapsed() < START_TIMEOUT,
                "redis-server did not respond in time"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a command and returns as much of the raw reply (RESP2) as a single read receives.
    pub fn command(&self, words: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(request.as_bytes()).ok()?;
        let mut reply = vec![0; 1 << 16];
        let length = stream.read(&mut reply).ok()?;
        Some(String::from_utf8_lossy(&reply[..length]).into_owned())
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
