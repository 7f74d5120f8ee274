//! The dead-letter list: print it, put messages back into their queues, throw them away. Prints what is needed to
//! find a task again, and never its arguments.

use std::{
    collections::HashSet,
    io::{self, Write as _},
    sync::{Mutex, PoisonError},
};

use celeriac::{Broker, DeadLetter};
use clap::{Args, Subcommand};
use serde_json::json;

/// How many letters are read at a time.
const PAGE: usize = 50;

/// What to do with dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Dead {
    /// Prints them, the oldest first, without their arguments
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Puts them back into their queues, as if they had never been delivered
    Requeue {
        #[command(flatten)]
        which: Which,
        /// Also what no worker can run: it will come back unless the workers have changed
        #[arg(long)]
        force: bool,
    },
    /// Throws them away, for good
    Purge {
        #[command(flatten)]
        which: Which,
    },
}

/// Which letters are meant.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// All of them
    #[arg(long)]
    pub all: bool,
    /// Those of these tasks; a letter without a task has an id of its own in the list
    #[arg(value_name = "TASK ID")]
    pub ids: Vec<String>,
}

pub(super) async fn run(broker: &dyn Broker, command: &Dead) -> anyhow::Result<()> {
    match command {
        Dead::List { json } => match list(broker, *json).await {
            // The reader has seen enough.
            Err(error) if is_broken_pipe(&error) => Ok(()),
            answer => answer,
        },
        Dead::Requeue { which, force } => requeue(broker, which, *force).await,
        Dead::Purge { which } => purge(broker, which).await,
    }
}

async fn list(broker: &dyn Broker, json: bool) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let mut offset = 0;
    loop {
        let page = broker.dead_letters(offset, PAGE).await?;
        if offset == 0 && !json {
            writeln!(stdout, "{}", if page.is_empty() { EMPTY } else { HEADER })?;
        }
        if page.is_empty() {
            return Ok(());
        }
        offset += page.len();
        for letter in page {
            writeln!(stdout, "{}", if json { object(&letter) } else { row(&letter) })?;
        }
    }
}

const EMPTY: &str = "No dead letters.";
const HEADER: &str = "TIME                  ID                                    QUEUE         TASK  REASON";

fn row(letter: &DeadLetter) -> String {
    let time = letter.time.map_or_else(
        || "-".to_owned(),
        |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    );
    let queue = if letter.queue.is_empty() {
        "-"
    } else {
        &letter.queue
    };
    printable(&format!(
        "{time:<20}  {id:<36}  {queue:<12}  {task}  {reason}",
        id = name(letter),
        task = letter.task.as_deref().unwrap_or("-"),
        reason = letter.reason,
    ))
}

fn object(letter: &DeadLetter) -> String {
    json!({
        "id": letter.id.to_string(),
        "time": letter.time.map(|time| time.to_string()),
        "queue": letter.queue,
        "task": letter.task,
        "task_id": letter.task_id,
        "reason": letter.reason,
        "bytes": letter.raw.len(),
    })
    .to_string()
}

/// What a letter is called on the command line.
fn name(letter: &DeadLetter) -> String {
    letter
        .task_id
        .clone()
        .map_or_else(|| letter.id.to_string(), String::from)
}

/// Task names come from anywhere; a terminal obeys control characters.
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

/// The letters that were asked for, and which of the ids are really there.
struct Selection<'a> {
    which: &'a Which,
    found: Mutex<HashSet<String>>,
}

impl<'a> Selection<'a> {
    fn new(which: &'a Which) -> Self {
        Self {
            which,
            found: Mutex::default(),
        }
    }

    fn has(&self, letter: &DeadLetter) -> bool {
        let own = letter.id.to_string();
        let asked = |id: &&String| **id == own || Some(id.as_str()) == letter.task_id.as_deref();
        let Some(id) = self.which.ids.iter().find(asked) else {
            return self.which.all;
        };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.insert(id.clone());
        true
    }

    /// Says which ids were not there, and how many.
    fn missing(self) -> io::Result<usize> {
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<&String> = self.which.ids.iter().filter(|id| !found.contains(*id)).collect();
        for id in &missing {
            writeln!(io::stderr(), "{}: is no dead letter", printable(id))?;
        }
        Ok(missing.len())
    }
}

async fn requeue(broker: &dyn Broker, which: &Which, force: bool) -> anyhow::Result<()> {
    let selection = Selection::new(which);
    let answer = broker
        .requeue_where(&|letter| selection.has(letter), force)
        .await?;
    writeln!(io::stdout(), "Put back: {}", answer.requeued.len())?;
    for (letter, refusal) in &answer.refused {
        writeln!(
            io::stderr(),
            "{}",
            printable(&format!("{}: {refusal}", name(letter)))
        )?;
    }
    let missing = selection.missing()?;
    let stay = answer.refused.len();
    anyhow::ensure!(
        stay == 0,
        "{stay} stay in the dead-letter list; --force puts back what no worker can run"
    );
    anyhow::ensure!(missing == 0, "not all were there");
    Ok(())
}

async fn purge(broker: &dyn Broker, which: &Which) -> anyhow::Result<()> {
    let selection = Selection::new(which);
    let purged = broker.purge_where(&|letter| selection.has(letter)).await?;
    writeln!(io::stdout(), "Thrown away: {}", purged.len())?;
    let missing = selection.missing()?;
    anyhow::ensure!(missing == 0, "not all were there");
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
