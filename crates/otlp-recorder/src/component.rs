//! A second service in one process, such as the worker of a program that runs everything. Threads belong to the
//! process's own service unless they enter the component.

use std::cell::Cell;

thread_local! {
    static ENTERED: Cell<bool> = const { Cell::new(false) };
}

/// Assigns the calling thread to the component of the process: from now on, spans that start on the thread and log
/// records that it emits have the resource of [`PipelineBuilder::component`].
///
/// Call it in `on_thread_start` of the component's tokio runtime.
///
/// [`PipelineBuilder::component`]: crate::PipelineBuilder::component
pub fn enter_component() {
    ENTERED.set(true);
}

/// Whether the calling thread has entered the component.
pub(crate) fn in_component() -> bool {
    ENTERED.get()
}
