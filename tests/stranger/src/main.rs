//! A shop: takes orders, asks the warehouse (itself) for the stock, and stores the orders in SQLite.
//! `tests/telemetry.rs` limits the number of lines that concern telemetry.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use otel_service::{Counter, HttpClientLayer, HttpLayer, Service, Telemetry, counter};
use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;
use tokio::net::TcpListener;
use tracing::{Level, info, instrument};
use tracing_subscriber::Layer;

static ORDERS: Counter = counter("shop.orders", "{order}", "Orders taken.");
const OUTGOING: HttpClientLayer = HttpClientLayer::new();

#[derive(Clone)]
struct Shop {
    pool: SqlitePool,
    client: reqwest::Client,
    warehouse: String,
}

/// Prints errors to the operator.
struct Alarm;

impl<S: tracing::Subscriber> Layer<S> for Alarm {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if *event.metadata().level() == Level::ERROR {
            eprintln!("ALARM: {}", event.metadata().target());
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let telemetry = Telemetry::builder(Service::new("shop", env!("CARGO_PKG_VERSION")))
        .layer(console_subscriber::spawn())
        .layer(Alarm)
        .sqlx_system("sqlite")
        .init()?;
    // One connection, because each has its own in-memory database.
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect("sqlite::memory:")
        .await?;
    sqlx::query("CREATE TABLE orders (item TEXT NOT NULL CHECK (length(item) < 20))")
        .execute(&pool)
        .await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let shop = Shop {
        pool,
        client: reqwest::Client::builder().no_proxy().build()?,
        warehouse: format!("http://{}", listener.local_addr()?),
    };
    println!("listening on {}", shop.warehouse);
    let router = Router::new()
        .route("/orders/{item}", post(order))
        .route("/stock/{item}", get(stock))
        .with_state(shop)
        .layer(HttpLayer::new(|parts| parts.extensions.get().map(MatchedPath::as_str)).context_spans());
    let interrupt = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    axum::serve(listener, router)
        .with_graceful_shutdown(interrupt)
        .await?;
    telemetry.shutdown(Duration::from_secs(5))?;
    Ok(())
}

#[instrument(skip(shop))]
async fn order(State(shop): State<Shop>, Path(item): Path<String>) -> Result<String, StatusCode> {
    let stock = shop.client.get(format!("{}/stock/{item}", shop.warehouse));
    let stock = OUTGOING.send(stock).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    if !stock.status().is_success() {
        return Err(StatusCode::CONFLICT);
    }
    save(&shop.pool, &item)
        .await
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    ORDERS.add(1, &[]);
    info!("order taken");
    Ok(format!("ordered {item}\n"))
}

#[instrument(skip(pool), err)]
async fn save(pool: &SqlitePool, item: &str) -> Result<(), sqlx::Error> {
    let insert = sqlx::query("INSERT INTO orders (item) VALUES (?)");
    insert.bind(item).execute(pool).await.map(|_| ())
}

async fn stock(State(shop): State<Shop>, Path(item): Path<String>) -> Result<String, StatusCode> {
    let ordered: Result<i64, _> = sqlx::query_scalar("SELECT count(*) FROM orders WHERE item = ?")
        .bind(item)
        .fetch_one(&shop.pool)
        .await;
    match ordered {
        Ok(0..3) => Ok("in stock".to_owned()),
        Ok(_) => Err(StatusCode::GONE),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}
