//! Health endpoints: `/api/health` for people, `live` and `ready` for orchestrators.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    app::AppState,
    error::{ApiError, ErrorBody},
    json::Json,
};
use crate::health::{ComponentStatus, Report};

/// Overall status of the service.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    Healthy,
    /// The service handles requests, but no worker runs its tasks.
    Degraded,
    Unhealthy,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
pub struct HealthView {
    status: Status,
    components: Report,
    service: Service,
}

#[derive(Debug, Serialize, ToSchema)]
struct Service {
    #[schema(example = "pressroom-app")]
    name: String,
    version: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Probe {
    #[schema(example = "ok")]
    status: &'static str,
}

/// Health of the service and its components
#[utoipa::path(
    get, path = "/api/health", tag = "health",
    responses(
        (status = OK, body = HealthView, description = "Healthy or degraded"),
        (status = SERVICE_UNAVAILABLE, body = HealthView,
            description = "The database or Redis is unavailable"),
    )
)]
pub async fn health(State(app): AppState) -> Response {
    let report = app.health.check().await;
    let required = [report.database, report.redis];
    let (status, code) = if required.contains(&ComponentStatus::Unhealthy) {
        (Status::Unhealthy, StatusCode::SERVICE_UNAVAILABLE)
    } else if report.celery == ComponentStatus::Unhealthy {
        (Status::Degraded, StatusCode::OK)
    } else {
        (Status::Healthy, StatusCode::OK)
    };
    let view = HealthView {
        status,
        components: report,
        service: Service {
            name: app.health.service_name().to_owned(),
            version: env!("CARGO_PKG_VERSION"),
        },
    };
    (code, Json(view)).into_response()
}

/// Liveness: the process is running
#[utoipa::path(get, path = "/api/health/live", tag = "health", responses((status = OK, body = Probe, description = "The process is running")))]
pub async fn live() -> Json<Probe> {
    Json(Probe { status: "ok" })
}

/// Readiness: the database is reachable, its schema is current, and the server is not shutting down
#[utoipa::path(
    get, path = "/api/health/ready", tag = "health",
    responses(
        (status = OK, body = Probe, description = "Ready"),
        (status = SERVICE_UNAVAILABLE, body = ErrorBody, description = "Not ready"),
    )
)]
pub async fn ready(State(app): AppState) -> Result<Json<Probe>, ApiError> {
    if app.health.is_ready().await {
        Ok(Json(Probe { status: "ok" }))
    } else {
        Err(ApiError::service_unavailable())
    }
}
