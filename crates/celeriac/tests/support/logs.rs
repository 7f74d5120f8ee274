//! Log lines of one test. The test's runtime must have a single thread: the lines are captured per thread.

use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry,
};

/// Lines of this library at INFO and above, as `WARN text name=value`.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Vec<String>>>);

impl Logs {
    /// Collects the lines of this thread until the guard is dropped.
    pub fn capture() -> (Self, DefaultGuard) {
        let logs = Self::default();
        let guard = tracing::subscriber::set_default(registry().with(logs.clone()));
        (logs, guard)
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the lines about the server, and all other warnings and errors.
    pub fn problems(&self) -> Vec<String> {
        let relevant = |line: &String| line.contains("Redis") || !line.starts_with("INFO");
        self.lines().into_iter().filter(relevant).collect()
    }

    /// Returns [`problems`](Self::problems) shortened to the level and the first words.
    pub fn outline(&self) -> Vec<String> {
        let words = |line: &String| line.split([';', '[']).next().unwrap().trim().to_owned();
        self.problems().iter().map(words).collect()
    }
}

impl<S: Subscriber> Layer<S> for Logs {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || !metadata.target().starts_with("celeriac") {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let text = format!("{} {} [{}]", metadata.level(), line.message, line.fields.trim());
        self.0.lock().unwrap().push(text);
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            write!(self.message, "{value:?}").unwrap();
        } else {
            write!(self.fields, " {}={value:?}", field.name()).unwrap();
        }
    }
}
