//! Type, message and place of an error, from the exception of a span or record.

use opentelemetry_proto::tonic::{common::v1::KeyValue, logs::v1::LogRecord, trace::v1::Span};

use super::groups::Kind;
use crate::store::source::text_of;

/// Parts of paths that belong to libraries and runtimes.
const LIBRARIES: [&str; 8] = [
    "site-packages/",
    "dist-packages/",
    "node_modules/",
    "node:internal/",
    "lib/python",
    "/rustc/",
    ".cargo/registry",
    "<frozen",
];

/// Names of an error.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Error {
    /// `exception.type`, `error.type`, or empty.
    pub(super) kind: String,
    pub(super) message: String,
    /// Frame of the stack trace or code location, or empty.
    pub(super) place: String,
}

impl Error {
    pub(super) fn of_span(span: &Span) -> Self {
        let exception = span.events.iter().rev().find(|event| event.name == "exception");
        let of_event = exception
            .map(|event| Self::of_attributes(&event.attributes))
            .unwrap_or_default();
        let of_span = Self::of_attributes(&span.attributes);
        let status = span.status.as_ref().map_or("", |status| &status.message);
        Self {
            kind: first([of_event.kind, of_span.kind]),
            message: first([of_event.message, of_span.message, status.to_owned()]),
            place: first([of_event.place, of_span.place]),
        }
    }

    pub(super) fn of_record(record: &LogRecord) -> Self {
        Self::of_attributes(&record.attributes)
    }

    fn of_attributes(attributes: &[KeyValue]) -> Self {
        let text = |keys: &[&str]| {
            let found = attributes
                .iter()
                .find(|attribute| keys.contains(&&*attribute.key));
            found.and_then(text_of).unwrap_or_default()
        };
        let frame = top_frame(text(&["exception.stacktrace"]));
        let function = text(&["code.function.name", "code.function"]);
        let file = text(&["code.file.path", "code.filepath"]);
        Self {
            kind: first([text(&["exception.type"]), text(&["error.type"])]).to_owned(),
            message: text(&["exception.message"]).to_owned(),
            place: first([frame.unwrap_or_default(), function, file]).to_owned(),
        }
    }

    /// Returns whether the error is about a pool of connections.
    pub(super) fn kind(&self) -> Kind {
        if is_about_pool(&self.message) || is_about_pool(&self.kind) {
            Kind::PoolExhausted
        } else {
            Kind::Error
        }
    }

    /// Returns the type, or else the message without numbers.
    pub(super) fn label(&self) -> String {
        first([self.kind.clone(), without_numbers(&self.message)])
    }
}

/// Returns the first one that is not empty.
fn first<T: AsRef<str> + Default>(texts: impl IntoIterator<Item = T>) -> T {
    let mut texts = texts.into_iter();
    texts.find(|text| !text.as_ref().is_empty()).unwrap_or_default()
}

/// Whether a message says that no connection was available.
pub(super) fn is_about_pool(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let has = |text: &str| message.contains(text);
    has("remaining connection slots")
        || has("too many connections")
        || has("too many clients")
        || has("pool")
            && (has("timed out") || has("timeout") || has("exhausted") || has("limit") || has("no available"))
}

/// Replaces digits, so that messages that differ in ids are equal.
pub(super) fn without_numbers(message: &str) -> String {
    let mut result = String::new();
    for letter in message.lines().next().unwrap_or_default().chars() {
        match letter {
            '0'..='9' if result.ends_with('#') => {}
            '0'..='9' => result.push('#'),
            other => result.push(other),
        }
    }
    result
}

/// Returns the frame that raised an exception: the innermost one that is not in a library, or else the innermost.
fn top_frame(stack: &str) -> Option<&str> {
    let is_own = |frame: &&str| !LIBRARIES.iter().any(|library| frame.contains(library));
    // Python's innermost frame comes last.
    let python = |line: &&str| line.starts_with("File \"") && line.contains(", line ");
    let frames = || stack.lines().map(str::trim);
    let last = frames()
        .filter(python)
        .rfind(is_own)
        .or_else(|| frames().rfind(python));
    if last.is_some() {
        return last;
    }
    let is_frame = |line: &&str| {
        line.starts_with("at ") || line.starts_with("#0 ") || line.contains(".go:") || line.contains(":in ")
    };
    let frame = frames()
        .filter(is_frame)
        .find(is_own)
        .or_else(|| frames().find(is_frame))?;
    Some(frame.strip_prefix("at ").unwrap_or(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_that_raised_is_found() {
        let python = "Traceback (most recent call last):\n  File \"/app/main.py\", line 3, in run\n    load()\n  \
                      File \"/app/orders.py\", line 12, in load\n    raise\n  \
                      File \"/usr/lib/python3/site-packages/db.py\", line 1, in query\nValueError: no";
        for (stack, frame) in [
            (python, Some("File \"/app/orders.py\", line 12, in load")),
            (
                "java.lang.E: x\n\tat shop.Cart.load(Cart.java:12)\n\tat shop.Main.run(Main.java:3)",
                Some("shop.Cart.load(Cart.java:12)"),
            ),
            (
                "Error: x\n    at node:internal/a:1:2\n    at load (/app/cart.js:10:5)\n    at run (/app/main.js:1:1)",
                Some("load (/app/cart.js:10:5)"),
            ),
            (
                "goroutine 1 [running]:\nmain.load()\n\t/app/cart.go:12 +0x1",
                Some("/app/cart.go:12 +0x1"),
            ),
            (
                "cart.rb:12:in `load'\nmain.rb:1:in `run'",
                Some("cart.rb:12:in `load'"),
            ),
            (
                "#0 /app/cart.php(12): load()",
                Some("#0 /app/cart.php(12): load()"),
            ),
            ("no frames", None),
        ] {
            assert_eq!(top_frame(stack), frame);
        }
    }

    #[test]
    fn messages_about_pools_are_recognised() {
        assert!(is_about_pool("QueuePool limit of size 5 overflow 10 reached"));
        assert!(is_about_pool("FATAL: sorry, too many clients already"));
        assert!(is_about_pool(
            "pool timed out while waiting for an open connection"
        ));
        assert!(!is_about_pool("the swimming pool is closed"));
        assert_eq!(
            without_numbers("order 4711 of user 12\nmore"),
            "order # of user #"
        );
    }
}
