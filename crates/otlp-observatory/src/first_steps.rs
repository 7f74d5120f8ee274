//! Commands for the first visit to the pages, which the embedding program sets.

use std::sync::{Arc, Mutex, PoisonError};

/// A command for the first visit to the pages.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct FirstStep {
    /// Purpose of the command, such as `Register:`.
    pub text: String,
    /// Command for a shell.
    pub command: String,
}

impl FirstStep {
    /// Creates a step from its text and its command.
    pub fn new(text: impl Into<String>, command: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            command: command.into(),
        }
    }
}

/// Commands that the page shows while it waits for the first request, besides those for SDKs. Clones share them, so a
/// program
/// can set them once it knows its own address.
#[derive(Clone, Debug, Default)]
pub struct FirstSteps(Arc<Mutex<Vec<FirstStep>>>);

impl FirstSteps {
    /// Replaces the commands.
    pub fn set(&self, steps: impl IntoIterator<Item = FirstStep>) {
        let steps = steps.into_iter().collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = steps;
    }

    pub(crate) fn get(&self) -> Vec<FirstStep> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
