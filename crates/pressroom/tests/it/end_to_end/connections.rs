//! Clients that do not read or send, the limit of open files, and the addresses that the API listens on.
#![expect(clippy::disallowed_methods, reason = "tests insert rows directly")]

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};

use super::installation::Installation;
use crate::support::{
    eventually, postgres,
    postgres_server::free_port,
    process::{self, Process},
    raw,
};

const ARTICLES: i64 = 100;
const BODY_CHARS: usize = 1_000_000;

/// Connects with a small receive buffer and requests a large response, without reading it.
async fn request_unread(api: SocketAddr, target: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(api).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Waits until the server has closed the connection, without reading from it.
async fn closed_unread(stream: &TcpStream) {
    eventually("the server to close the connection", async || {
        let reset = stream.take_error().unwrap().is_some();
        (reset || stream.try_write(b"\r\n").is_err()).then_some(())
    })
    .await;
}

/// Requests lists and articles without reading them, and checks the memory of the process until it has closed the
/// connections.
async fn memory_stays_bounded(process: &mut Process, api: SocketAddr) {
    let before = process.memory_mib("VmRSS");
    let list_target = "/api/articles/?per_page=100";
    for (clients, target) in [
        (8, list_target),
        (40, list_target),
        (300, "/api/articles/article-1"),
    ] {
        let mut streams = Vec::new();
        for _ in 0..clients {
            streams.push(request_unread(api, target).await);
        }
        let watch = async {
            loop {
                let now = process.memory_mib("VmRSS");
                assert!(
                    now < before + 100,
                    "{clients} clients of {target}: {before} MiB became {now} MiB"
                );
                // Interval of the measurements.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let check = async {
            // Until their connections are closed, the responses that are not read may use all memory for responses.
            let list = eventually("a list for a client that reads", async || {
                let list = raw::request(api, "GET", list_target, None, None).await;
                (list.status == 200).then(|| list.json())
            })
            .await;
            assert!(list["next_cursor"].is_string());
            assert_eq!(list["total"], ARTICLES);
            // Most clients of the article get a 503, after which their connections stay open for a while.
            for stream in streams.iter().filter(|_| target == list_target) {
                closed_unread(stream).await;
            }
        };
        tokio::select! {
            () = check => {}
            () = watch => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_do_not_exhaust_memory_on_postgres() {
    let installation = Installation::new().await;
    let (mut serve, api) = installation.serve_with(&[("REQUEST_TIMEOUT", "5")]).await;
    raw::register(api, "alice@example.com").await;
    let client = postgres::client(installation.variable("DATABASE_URL")).await;
    let insert = format!(
        "INSERT INTO articles (slug, title, description, body, author_id, favorites_count, created_at, updated_at)
        SELECT 'article-' || i, 'Article', '', repeat('x', {BODY_CHARS}), 1, 0, localtimestamp, localtimestamp
        FROM generate_series(1, {ARTICLES}) AS i"
    );
    client.batch_execute(&insert).await.unwrap();
    memory_stays_bounded(&mut serve, api).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_do_not_exhaust_memory_on_sqlite() {
    let folder = process::Folder::new();
    let variables = [("REQUEST_TIMEOUT", "5")];
    let (mut process, api) = process::start_api(&[], &variables, folder.path()).await;
    raw::register(api, "alice@example.com").await;
    let database = rusqlite::Connection::open(folder.path().join("data/pressroom.db")).unwrap();
    let body = "x".repeat(BODY_CHARS);
    for i in 0..ARTICLES {
        let insert = "INSERT INTO articles
            (slug, title, title_folded, description, body, author_id, favorites_count, created_at, updated_at)
            VALUES (?1, 'Article', 'article', '', ?2, 1, 0, ?3, ?3)";
        let slug = format!("article-{i}");
        database
            .execute(insert, rusqlite::params![slug, body, i])
            .unwrap();
    }
    memory_stays_bounded(&mut process, api).await;
}

/// Starts the API in a shell that sets a limit of open files with `ulimit`.
async fn start_limited(ulimit: &str, folder: &Path) -> (Process, SocketAddr) {
    let port = free_port();
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{ulimit}; exec \"$0\""))
        .arg(env!("CARGO_BIN_EXE_pressroom"))
        .env_clear()
        .env("OTEL_SDK_DISABLED", "true")
        .env("PORT", port.to_string())
        .envs(process::ANY_PORT)
        .current_dir(folder);
    let mut process = process::start_command("api", command, folder);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    process.wait_for_ok(address, "/api/health/live").await;
    (process, address)
}

fn open_files_limits(process: &Process) -> (u64, u64) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .unwrap();
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_soft_limit_of_open_files_is_raised() {
    let folder = process::Folder::new();
    let (process, _) = start_limited("ulimit -Sn 200", folder.path()).await;
    let (soft, hard) = open_files_limits(&process);
    assert!(hard > 200);
    assert_eq!(soft, hard);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_requests_beyond_the_limit_of_open_files_do_not_keep_out_others() {
    let folder = process::Folder::new();
    let (process, api) = start_limited("ulimit -n 300", folder.path()).await;
    // On threads of their own, because a client that waits for them looks like one of them.
    let attackers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    for _ in 0..400 {
        attackers.spawn(async move {
            loop {
                if let Ok(mut stream) = TcpStream::connect(api).await {
                    let mut next: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ";
                    while stream.write_all(next).await.is_ok() {
                        // Often enough to look like a client that makes progress.
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        next = b"a";
                    }
                }
            }
        });
    }
    // Attackers whose connections are replaced connect again, so the attack has to last for a while.
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        let start = Instant::now();
        let response = raw::request(api, "GET", "/api/health/live", None, None).await;
        assert_eq!(response.status, 200);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        // Spreads the requests over the attack.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    attackers.shutdown_background();
    let output = process.output();
    let warnings = output.matches("accept").count() + output.matches("a connection limit").count();
    assert!(warnings <= 1, "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_bodies_do_not_fill_the_log() {
    let folder = process::Folder::new();
    let (process, api) = process::start_api(&[], &[("REQUEST_TIMEOUT", "1")], folder.path()).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(api).await.unwrap();
        let request = b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
            Content-Length: 1000\r\n\r\n{";
        stream.write_all(request).await.unwrap();
        streams.push(stream);
    }
    for mut stream in streams {
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 503");
    }
    let output = process.output();
    assert!(!output.contains("request timed out"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_baggage_does_not_fill_the_log() {
    let folder = process::Folder::new();
    let (process, api) = process::start_api(&[], &[], folder.path()).await;
    for baggage in ["a=%ff", "secret", "=", "secret=%80;p,,x", &"a=b,".repeat(300)] {
        let request = format!(
            "GET /api/nowhere HTTP/1.1\r\nHost: x\r\nBaggage: {baggage}\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(raw::send(api, request.as_bytes()).await.status, 404);
    }
    let output = process.output();
    assert!(!output.contains("BaggagePropagator"), "{output}");
}

async fn listens_on(host: &str, addresses: &[&str]) {
    let folder = process::Folder::new();
    let port = free_port();
    let text = port.to_string();
    let variables = [
        ("HOST", host),
        ("PORT", text.as_str()),
        ("OTEL_SDK_DISABLED", "true"),
    ];
    let mut process = process::start("api", &[], &variables, folder.path());
    for address in addresses {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        process.wait_for_ok(address, "/api/health/live").await;
    }
    let variables = [("HOST", host), ("PORT", text.as_str())];
    eventually("a healthy service", async || {
        let checked = process::run(&["healthcheck"], &variables);
        checked.status.success().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_may_be_every_address_or_a_name() {
    let has_ipv6 = TcpListener::bind("[::1]:0").await.is_ok();
    let both: &[&str] = if has_ipv6 {
        &["127.0.0.1", "::1"]
    } else {
        &["127.0.0.1"]
    };
    for host in ["::", "[::]"] {
        listens_on(host, both).await;
    }
    listens_on("localhost", &["127.0.0.1"]).await;
    listens_on("0.0.0.0", &["127.0.0.1"]).await;
}
