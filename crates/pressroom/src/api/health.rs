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
use crate::health::{Checked, ComponentStatus, Report};

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
    /// Reasons and remedies for components that are not healthy, and notices; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    messages: Vec<String>,
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
    /// Notice about the schema; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    message: Option<String>,
}

/// Health of the service and its components
#[utoipa::path(
    get, path = "/api/health", tag = "health",
    responses(
        (status = OK, body = HealthView, description = "Healthy or degraded"),
        (status = SERVICE_UNAVAILABLE, body = HealthView,
            description = "The database or Redis is unavailable, or the database cannot serve requests"),
    )
)]
pub async fn health(State(app): AppState) -> Response {
    let Checked {
        components: report,
        messages,
    } = app.health.check().await;
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
        messages,
    };
    (code, Json(view)).into_response()
}

/// Liveness: the process is running
#[utoipa::path(
    get, path = "/api/health/live", tag = "health",
    responses((status = OK, body = Probe, description = "The process is running"))
)]
pub async fn live() -> Json<Probe> {
    Json(Probe {
        status: "ok",
        message: None,
    })
}

/// Readiness: the database accepts writes, its schema is current, and the server is not shutting down
#[utoipa::path(
    get, path = "/api/health/ready", tag = "health",
    responses(
        (status = OK, body = Probe, description = "Ready"),
        (status = SERVICE_UNAVAILABLE, body = ErrorBody, description = "Not ready"),
    )
)]
pub async fn ready(State(app): AppState) -> Result<Json<Probe>, ApiError> {
    match app.health.readiness().await {
        Ok(message) => Ok(Json(Probe {
            status: "ok",
            message,
        })),
        Err(reason) => Err(ApiError::service_unavailable().with_message(reason)),
    }
}
