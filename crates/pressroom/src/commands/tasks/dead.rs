//! `pressroom tasks dead` lists, requeues and deletes dead letters. It prints ids and names of tasks, but never
//! their arguments. `pressroom tasks failed` and `retry` do so with arguments, for the letters whose tasks can run.

use std::{
    collections::HashSet,
    io::{self, Write as _},
    sync::{Mutex, PoisonError},
};

use celeriac::{Broker, DeadLetter, ExactNumber, Message, RequeueReport};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use telemetry::{escaped, escaped_json};

/// Number of letters to read at a time.
const PAGE: usize = 50;

/// A subcommand of `pressroom tasks dead`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum DeadCommand {
    /// List dead letters, oldest first, without their arguments
    List {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Put dead letters back into their queues, as if they had never been delivered
    Requeue {
        #[command(flatten)]
        selected: Selection,
        /// Requeue even messages that no worker can run; they fail again unless the workers have changed
        #[arg(long)]
        force: bool,
    },
    /// Delete dead letters permanently
    Purge {
        #[command(flatten)]
        selected: Selection,
    },
}

/// Selection of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub struct Selection {
    /// All dead letters
    #[arg(long)]
    pub all: bool,
    /// Task ids; for a dead letter without a task id, the id that `list` prints
    #[arg(value_name = "TASK ID")]
    pub ids: Vec<String>,
}

pub(super) async fn run(broker: &dyn Broker, command: &DeadCommand) -> anyhow::Result<()> {
    match command {
        DeadCommand::List { json } => list(broker, *json, false).await,
        DeadCommand::Requeue { selected, force } => {
            requeue(broker, Matcher::new(selected, false), *force).await
        }
        DeadCommand::Purge { selected } => purge(broker, selected).await,
    }
}

/// Puts the messages of failed tasks back into their queues.
pub(super) async fn retry(broker: &dyn Broker, selected: &Selection) -> anyhow::Result<()> {
    requeue(broker, Matcher::new(selected, true), false).await
}

/// Prints dead letters. With `failed`, only those whose tasks can run again, with their arguments.
pub(super) async fn list(broker: &dyn Broker, json: bool, failed: bool) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let (mut offset, mut printed) = (0, false);
    loop {
        let page = broker.dead_letters(offset, PAGE).await?;
        if page.is_empty() {
            let empty = if failed {
                "No failed tasks."
            } else {
                "No dead letters."
            };
            if !json && !printed {
                writeln!(stdout, "{empty}")?;
            }
            return Ok(());
        }
        offset += page.len();
        for letter in page {
            let message = failed.then(|| Message::decode(&letter.raw));
            let message = match message {
                Some(Err(_)) => continue,
                message => message.and_then(Result::ok),
            };
            if !json && !printed {
                writeln!(stdout, "{HEADER}")?;
            }
            printed = true;
            let line = if json { object } else { row }(&letter, message);
            writeln!(stdout, "{line}")?;
        }
    }
}

const HEADER: &str = "TIME                  ID                                    QUEUE         TASK  REASON";

fn row(letter: &DeadLetter, message: Option<Message>) -> String {
    let time = letter.time.map_or_else(
        || "-".to_owned(),
        |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    );
    let queue = if letter.queue.is_empty() {
        "-"
    } else {
        &letter.queue
    };
    let mut task = letter.task.as_deref().unwrap_or("-").to_owned();
    if let Some(Message { args, kwargs, .. }) = message {
        task = format!("{task} {}", ExactNumber::to_json(&args));
        if !kwargs.is_empty() {
            task = format!("{task} --kwargs {}", ExactNumber::to_json(&kwargs));
        }
    }
    // Names of tasks come from untrusted messages.
    let row = format!(
        "{time:<20}  {id:<36}  {queue:<12}  {task}  {reason}",
        id = listed_id(letter),
        reason = letter.reason,
    );
    escaped(&row).into_owned()
}

fn object(letter: &DeadLetter, message: Option<Message>) -> String {
    let mut object = json!({
        "id": letter.id.to_string(),
        "time": letter.time.map(|time| time.to_string()),
        "queue": letter.queue,
        "task": letter.task,
        "task_id": letter.task_id,
        "reason": letter.reason,
        "bytes": letter.raw.len(),
    });
    if let Some(message) = message {
        object["args"] = Value::Array(message.args);
        object["kwargs"] = Value::Object(message.kwargs);
    }
    escaped_json(&ExactNumber::to_json(&object)).into_owned()
}

/// Returns the id that identifies a letter on the command line.
fn listed_id(letter: &DeadLetter) -> String {
    letter
        .task_id
        .clone()
        .map_or_else(|| letter.id.to_string(), String::from)
}

/// Matches dead letters against a selection, and records the ids of the matches.
struct Matcher<'a> {
    selected: &'a Selection,
    /// Whether only letters match whose tasks can run again.
    failed: bool,
    found: Mutex<HashSet<String>>,
}

impl<'a> Matcher<'a> {
    fn new(selected: &'a Selection, failed: bool) -> Self {
        Self {
            selected,
            failed,
            found: Mutex::default(),
        }
    }

    fn matches(&self, letter: &DeadLetter) -> bool {
        if self.failed && Message::decode(&letter.raw).is_err() {
            return false;
        }
        let letter_id = letter.id.to_string();
        let is_selected = |id: &&String| **id == letter_id || Some(id.as_str()) == letter.task_id.as_deref();
        let Some(id) = self.selected.ids.iter().find(is_selected) else {
            return self.selected.all;
        };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.insert(id.clone());
        true
    }

    /// Prints each selected id that has no dead letter.
    ///
    /// # Errors
    /// Returns an error if a selected id has no dead letter.
    fn require_all_found(self) -> anyhow::Result<()> {
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let ids = self.selected.ids.iter();
        let missing: Vec<&String> = ids.filter(|id| !found.contains(*id)).collect();
        for id in &missing {
            // The exit code reports the failure even if the line cannot be written.
            let _ = writeln!(io::stderr(), "{}: no such dead letter", escaped(id));
        }
        anyhow::ensure!(missing.is_empty(), "dead letters not found: {}", missing.len());
        Ok(())
    }
}

async fn requeue(broker: &dyn Broker, matcher: Matcher<'_>, force: bool) -> anyhow::Result<()> {
    let select = |letter: &DeadLetter| matcher.matches(letter);
    let requeued = broker.requeue_where(&select, force).await?;
    let printed = print_report(&requeued);
    let refused = requeued.refused.len();
    let all_found = matcher.require_all_found();
    // Letters that were not requeued fail the command, even if the reader has closed the output.
    anyhow::ensure!(
        refused == 0,
        "dead letters not requeued: {refused}, because no worker can run them; \
         --force requeues them anyway"
    );
    all_found?;
    Ok(printed?)
}

fn print_report(requeued: &RequeueReport) -> io::Result<()> {
    writeln!(io::stdout(), "Requeued: {}", requeued.requeued.len())?;
    for (letter, refusal) in &requeued.refused {
        let line = format!("{}: {refusal}", listed_id(letter));
        writeln!(io::stderr(), "{}", escaped(&line))?;
    }
    Ok(())
}

async fn purge(broker: &dyn Broker, selected: &Selection) -> anyhow::Result<()> {
    let matcher = Matcher::new(selected, false);
    let purged = broker.purge_where(&|letter| matcher.matches(letter)).await?;
    let printed = writeln!(io::stdout(), "Purged: {}", purged.len());
    matcher.require_all_found()?;
    Ok(printed?)
}
