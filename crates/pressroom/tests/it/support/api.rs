//! The API with its HTTP server, run in the test process on a given store.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use pressroom::{
    accounts::{Accounts, PasswordScheme, Passwords, RateLimiter, Rates, SecretKey, Tokens},
    api::{self, AllowedOrigins, App, BodyMemory, Limits, TrustedProxies},
    articles::Articles,
    clock::Clock,
    health::{Health, TaskQueue},
    ids::RandomIds,
    server::{ServerLimits, server},
    store::Store,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Key that signed the recorded tokens.
pub const SECRET_KEY: &str = "dev-secret-key-change-in-production";

/// A fixed clock, set shortly after the recording of the reference implementation.
#[derive(Debug, Clone, Copy)]
pub struct RecordedTime;

impl Clock for RecordedTime {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_795_329_860).unwrap()
    }
}

/// A running server, stopped on drop.
pub struct Api {
    pub address: SocketAddr,
    shutdown: CancellationToken,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Starts the API on a free port, with an in-process queue that has no worker.
pub async fn start(store: Arc<dyn Store>) -> Api {
    start_with(store, TaskQueue::InProcess, Arc::new(RecordedTime)).await
}

pub async fn start_with(store: Arc<dyn Store>, queue: TaskQueue, clock: Arc<dyn Clock>) -> Api {
    start_with_setup(store, queue, clock, |_| ()).await
}

/// Parts of the set-up that a test may change. By default there are no rate limits, trusted proxies or
/// allowed origins.
pub struct Setup {
    pub limiter: RateLimiter,
    pub proxies: TrustedProxies,
    pub origins: AllowedOrigins,
    pub limits: ServerLimits,
}

pub async fn start_with_setup(
    store: Arc<dyn Store>,
    queue: TaskQueue,
    clock: Arc<dyn Clock>,
    change: impl FnOnce(&mut Setup),
) -> Api {
    let mut setup = Setup {
        limiter: RateLimiter::new(Rates::UNLIMITED, SecretKey::new(SECRET_KEY)),
        proxies: TrustedProxies::default(),
        origins: AllowedOrigins::default(),
        limits: ServerLimits {
            connections: None,
            connections_per_address: None,
            header_read_timeout: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
        },
    };
    change(&mut setup);
    let ids = Arc::new(RandomIds);
    let passwords = Passwords::new(PasswordScheme::Argon2id, 2, ids.clone());
    let day = Duration::from_hours(24);
    let tokens = Tokens::new(SecretKey::new(SECRET_KEY), day, clock.clone(), ids.clone());
    let app = App {
        accounts: Accounts::new(store.clone(), passwords, tokens, setup.limiter, clock.clone()),
        articles: Articles::new(store.clone(), clock, ids, Arc::default()),
        health: Health::new("pressroom-test".to_owned(), store, queue),
        limits: Limits {
            body: 1 << 20,
            request: Duration::from_secs(30),
        },
        proxies: setup.proxies,
        origins: setup.origins,
        memory: BodyMemory::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let server = server(&setup.limits, 1000, app.proxies.clone(), app.memory.clone())
        .drain_on(shutdown.clone())
        .grace_period(Duration::from_secs(5));
    tokio::spawn(server.serve(listener, api::service(app), shutdown.clone().cancelled_owned()));
    Api { address, shutdown }
}
