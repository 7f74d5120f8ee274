//! Journal in which worker processes record the runs of their tasks.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Milliseconds since the Unix epoch.
pub type Millis = u128;

pub fn now() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// One attempt by a worker to run a task.
#[derive(Debug, Clone)]
pub struct Run {
    pub worker: String,
    pub started: Millis,
    pub finished: Option<Millis>,
}

/// File that worker processes append to, removed when dropped.
pub struct Journal(PathBuf);

impl Journal {
    pub fn new(name: &str) -> Self {
        let name = format!("celeriac-{name}-{}.journal", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the runs of each task, in the order they started.
    pub fn runs(&self) -> HashMap<String, Vec<Run>> {
        let mut runs: HashMap<String, Vec<Run>> = HashMap::new();
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        // A worker may be writing its last line.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in complete.lines() {
            let [task, event, worker, time] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let time = time.parse().unwrap();
            let runs = runs.entry(task.to_owned()).or_default();
            match event {
                "begins" => runs.push(Run {
                    worker: worker.to_owned(),
                    started: time,
                    finished: None,
                }),
                _ => {
                    let run = runs.iter_mut().rfind(|run| run.worker == worker).unwrap();
                    assert_eq!(run.finished.replace(time), None, "{line}");
                }
            }
        }
        runs
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
