//! Measures the time from the start of a server's process until it is ready. Uses only the standard library:
//! `rustc --edition 2024 -O bench/ready.rs`.
//!
//! `ready <port> <times> <program> <argument>...` starts the program the given number of times, polls
//! `GET /api/health/ready` every half millisecond and prints the milliseconds until the first 200, one line
//! per start. It fails if the program exits or is not ready within 10 s.

use std::{
    env,
    io::{self, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_micros(500);

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(port), Some(times), Some(program)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err(io::Error::other(
            "usage: ready <port> <times> <program> <argument>...",
        ));
    };
    let port = port.parse().map_err(io::Error::other)?;
    let times: u32 = times.parse().map_err(io::Error::other)?;
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null());
    for _ in 0..times {
        let started = Instant::now();
        let mut server = command.spawn()?;
        let ready = wait(&mut server, port, started);
        // The shutdown is not part of the measurement.
        server.kill()?;
        server.wait()?;
        println!("{:.1}", ready?.as_secs_f64() * 1e3);
    }
    Ok(())
}

fn wait(server: &mut Child, port: u16, started: Instant) -> io::Result<Duration> {
    while started.elapsed() < TIMEOUT {
        if is_ready(port).unwrap_or(false) {
            return Ok(started.elapsed());
        }
        if let Some(status) = server.try_wait()? {
            return Err(io::Error::other(format!("the server exited: {status}")));
        }
        thread::sleep(POLL_INTERVAL);
    }
    Err(io::Error::other("the server was not ready in time"))
}

fn is_ready(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /api/health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(&head == b"HTTP/1.1 200")
}
