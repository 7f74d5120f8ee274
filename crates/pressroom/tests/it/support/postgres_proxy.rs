//! A TCP proxy in front of PostgreSQL that can stall without closing connections, like a network that
//! drops packets, delay all data, or send new connections to another server, like a host name after a fail-over.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

pub struct Proxy {
    port: u16,
    forwarding: watch::Sender<bool>,
    server: watch::Sender<(String, u16)>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy in front of the server of `url`.
    pub async fn in_front_of(url: &str) -> Self {
        Self::delaying(url, Duration::ZERO).await
    }

    /// Starts a proxy in front of the server of `url`, with a delay in each direction.
    pub async fn delaying(url: &str, delay: Duration) -> Self {
        let (server, servers) = watch::channel(address(url));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (forwarding, forward) = watch::channel(true);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, forward) = (servers.borrow().clone(), forward.clone());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else {
                        return;
                    };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::join!(
                        copy(from_client, to_server, forward.clone(), delay),
                        copy(from_server, to_client, forward, delay)
                    );
                });
            }
        });
        Self {
            port,
            forwarding,
            server,
            accepting,
        }
    }

    /// Returns `url` with the address of this proxy.
    pub fn url(&self, url: &str) -> String {
        let mut url = url::Url::parse(url).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.port)).unwrap();
        url.into()
    }

    /// Sends new connections to the server of `url`; existing ones stay open.
    pub fn redirect(&self, url: &str) {
        self.server.send_replace(address(url));
    }

    /// Stops forwarding; connections are still accepted and stay open.
    pub fn stall(&self) {
        self.forwarding.send_replace(false);
    }

    /// Resumes forwarding.
    pub fn resume(&self) {
        self.forwarding.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn address(url: &str) -> (String, u16) {
    let url = url::Url::parse(url).unwrap();
    (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432))
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut forward: watch::Receiver<bool>,
    delay: Duration,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        sleep_until(Instant::now() + delay).await;
        if forward.wait_for(|forward| *forward).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
