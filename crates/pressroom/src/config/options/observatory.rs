//! The observatory's settings as text: where it listens, what it keeps, and where it sends telemetry on to.

use clap::Args;

/// What embedded mode and `pressroom observatory` read beside the other settings.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Settings of the observatory (each also an environment variable)")]
pub struct ObservatoryOptions {
    /// Address on which the observatory receives and shows telemetry; there is no login [default:
    /// 127.0.0.1]
    #[arg(
        long,
        global = true,
        env = "OBSERVATORY_HOST",
        hide_env_values = true,
        value_name = "IP"
    )]
    pub observatory_host: Option<String>,

    /// Port of the observatory's pages and of their JSON [default: 4319]
    #[arg(
        long,
        global = true,
        env = "OBSERVATORY_PORT",
        hide_env_values = true,
        value_name = "PORT"
    )]
    pub observatory_port: Option<String>,

    /// Port on which it receives OTLP over HTTP [default: 4318]
    #[arg(
        long,
        global = true,
        env = "OBSERVATORY_OTLP_HTTP_PORT",
        hide_env_values = true,
        value_name = "PORT"
    )]
    pub observatory_otlp_http_port: Option<String>,

    /// Port on which it receives OTLP over gRPC [default: 4317]
    #[arg(
        long,
        global = true,
        env = "OBSERVATORY_OTLP_GRPC_PORT",
        hide_env_values = true,
        value_name = "PORT"
    )]
    pub observatory_otlp_grpc_port: Option<String>,

    /// Port on which it says that it runs, as the OpenTelemetry Collector does [default: 13133]
    #[arg(
        long,
        global = true,
        env = "OBSERVATORY_HEALTH_PORT",
        hide_env_values = true,
        value_name = "PORT"
    )]
    pub observatory_health_port: Option<String>,

    /// How much telemetry is kept, as 256MiB [default: 64MiB embedded, 256MiB in observatory]
    #[arg(
        long,
        global = true,
        env = "OBSERVATORY_MEMORY",
        hide_env_values = true,
        value_name = "SIZE"
    )]
    pub observatory_memory: Option<String>,

    /// OTLP/HTTP endpoint that everything received is sent on to [default: none]
    #[arg(
        long,
        global = true,
        env = "OBSERVATORY_FORWARD_ENDPOINT",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub observatory_forward_endpoint: Option<String>,

    /// Sent with every request to it, percent-encoded as in OTEL_EXPORTER_OTLP_HEADERS
    #[arg(
        long,
        global = true,
        env = "OBSERVATORY_FORWARD_HEADERS",
        hide_env_values = true,
        value_name = "NAME=VALUE,..."
    )]
    pub observatory_forward_headers: Option<String>,

    /// How much may wait in DATA_DIR for the endpoint that telemetry is sent on to [default: 256MiB]
    #[arg(
        long,
        global = true,
        env = "OBSERVATORY_QUEUE_LIMIT",
        hide_env_values = true,
        value_name = "SIZE"
    )]
    pub observatory_queue_limit: Option<String>,

    /// base14 Scout's OTLP endpoint, that everything received is sent on to; takes the three below
    /// [default: none]
    #[arg(
        long,
        global = true,
        env = "SCOUT_ENDPOINT",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub scout_endpoint: Option<String>,

    /// The OAuth2 client of Scout
    #[arg(
        long,
        global = true,
        env = "SCOUT_CLIENT_ID",
        hide_env_values = true,
        value_name = "TEXT"
    )]
    pub scout_client_id: Option<String>,

    /// Its secret
    #[arg(
        long,
        global = true,
        env = "SCOUT_CLIENT_SECRET",
        hide_env_values = true,
        value_name = "TEXT"
    )]
    pub scout_client_secret: Option<String>,

    /// Where its tokens come from
    #[arg(
        long,
        global = true,
        env = "SCOUT_TOKEN_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub scout_token_url: Option<String>,

    /// The deployment environment that Scout is told [default: development]
    #[arg(
        long,
        global = true,
        env = "SCOUT_ENVIRONMENT",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub scout_environment: Option<String>,
}

impl ObservatoryOptions {
    /// See [`super::Options::without_empty`].
    #[must_use]
    pub(super) fn without_empty(self) -> Self {
        let set = |value: Option<String>| value.filter(|text| !text.trim().is_empty());
        Self {
            observatory_host: set(self.observatory_host),
            observatory_port: set(self.observatory_port),
            observatory_otlp_http_port: set(self.observatory_otlp_http_port),
            observatory_otlp_grpc_port: set(self.observatory_otlp_grpc_port),
            observatory_health_port: set(self.observatory_health_port),
            observatory_memory: set(self.observatory_memory),
            observatory_forward_endpoint: set(self.observatory_forward_endpoint),
            observatory_forward_headers: set(self.observatory_forward_headers),
            observatory_queue_limit: set(self.observatory_queue_limit),
            scout_endpoint: set(self.scout_endpoint),
            scout_client_id: set(self.scout_client_id),
            scout_client_secret: set(self.scout_client_secret),
            scout_token_url: set(self.scout_token_url),
            scout_environment: set(self.scout_environment),
        }
    }
}
