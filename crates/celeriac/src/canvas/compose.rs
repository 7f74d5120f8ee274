//! Composition of canvases, and the check that Celery's workers will run them as meant.

use super::node::{CanvasError, Kind, Node};

/// One task or several, not sent yet.
///
/// ```
/// use celeriac::{Signature, group};
/// // Fetches a page, counts its words and its links at the same time, and stores both.
/// let canvas = Signature::new("fetch").arg("https://example.com/")
///     .then(group([Signature::new("words"), Signature::new("links")]))
///     .then(Signature::new("store"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Canvas(pub(crate) Node);

/// The tasks one after the other, each with the return value of the one before as its first argument. A group that
/// something follows hands on the list of its return values: it becomes a chord.
pub fn chain<T: Into<Canvas>>(tasks: impl IntoIterator<Item = T>) -> Canvas {
    Canvas(Node::chain(nodes(tasks)))
}

/// The tasks at the same time.
pub fn group<T: Into<Canvas>>(tasks: impl IntoIterator<Item = T>) -> Canvas {
    Canvas(Node::group(nodes(tasks)))
}

/// The tasks of the header at the same time, then the body with the list of their return values, in their order. When
/// one of them fails, the body fails with `ChordError` and is not run.
pub fn chord<T: Into<Canvas>>(header: impl IntoIterator<Item = T>, body: impl Into<Canvas>) -> Canvas {
    Canvas(Node::chord(nodes(header), body.into().0))
}

fn nodes<T: Into<Canvas>>(tasks: impl IntoIterator<Item = T>) -> Vec<Node> {
    tasks.into_iter().map(|task| task.into().0).collect()
}

impl Canvas {
    /// This, and after it `next` with its return value. Celery's `|`.
    #[must_use]
    pub fn then(self, next: impl Into<Self>) -> Self {
        let next = next.into().0;
        let mut tasks = match self.0.kind {
            Kind::Chain(tasks) if self.0.options.is_empty() => tasks,
            _ => vec![self.0],
        };
        tasks.push(next);
        Self(Node::chain(tasks))
    }

    /// Run with the id of whichever of the tasks has failed for good. Celery's `link_error`: for a chain, any of
    /// its tasks; for a chord, its body, which fails when a part of its header does.
    #[must_use]
    pub fn on_error(mut self, errback: impl Into<Self>) -> Self {
        self.0.link_errors(&[errback.into().0.encode()]);
        self
    }

    /// What Celery's workers would not do as meant is not sent.
    pub(crate) fn check(&self) -> Result<(), CanvasError> {
        check(&self.0)
    }
}

fn check(node: &Node) -> Result<(), CanvasError> {
    match &node.kind {
        Kind::Task => Ok(()),
        Kind::Chain(tasks) if tasks.is_empty() => Err(CanvasError::Empty("a chain")),
        Kind::Group(tasks) if tasks.is_empty() => Err(CanvasError::Empty("a group")),
        Kind::Chain(tasks) => {
            let mut headers = tasks.windows(2).filter_map(|pair| match &pair[0].kind {
                Kind::Group(header) => Some(header),
                _ => None,
            });
            headers.try_for_each(|header| check_header(header))?;
            tasks.iter().try_for_each(check)
        }
        Kind::Group(tasks) => tasks.iter().try_for_each(check),
        Kind::Chord { header, body, .. } => {
            check_header(header)?;
            header.iter().try_for_each(check)?;
            check(body)
        }
    }
}

/// Celery 5.6 miscounts the parts of a header when one of them ends in a group of its own.
fn check_header(header: &[Node]) -> Result<(), CanvasError> {
    let ends_in_group = |node: &Node| !matches!(node.kind, Kind::Group(_)) && node.ends_in_group();
    if header.iter().any(ends_in_group) {
        return Err(CanvasError::Unsupported(
            "a part of a chord's header cannot end in a group; let a task follow that group",
        ));
    }
    Ok(())
}
