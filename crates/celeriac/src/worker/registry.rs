//! Registered tasks by name. Deserialises JSON arguments into the types that a task declares; arguments of
//! other types cause a `TypeError`, whose message contains no values.

use std::{collections::HashMap, fmt, sync::atomic::Ordering, time::Duration};

use futures_util::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::limits::Limits;
use crate::{
    canvas::{ACCUMULATE, MAP, STARMAP},
    context::TaskContext,
    exception::Exception,
    json,
    message::seconds,
    task::TaskOptions,
    task_error::TaskError,
};

/// Code of a task; returns `None` if the arguments do not have the types that the task declares.
pub(super) type Handler =
    dyn Fn(TaskContext, Vec<Value>) -> Option<BoxFuture<'static, Result<Value, TaskError>>> + Send + Sync;

/// A registered task.
pub(super) struct Registered {
    pub options: TaskOptions,
    /// Settings that remote control may change.
    pub limits: Limits,
    pub code: Code,
}

/// Code of a task.
pub(super) enum Code {
    User(Box<Handler>),
    Builtin(Builtin),
}

/// Tasks that every Celery worker knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Builtin {
    Accumulate,
    BackendCleanup,
    Chain,
    Chord,
    ChordUnlock,
    Chunks,
    Group,
    Map,
    Starmap,
}

const BUILTINS: [(&str, Builtin); 9] = [
    (ACCUMULATE, Builtin::Accumulate),
    ("celery.backend_cleanup", Builtin::BackendCleanup),
    ("celery.chain", Builtin::Chain),
    ("celery.chord", Builtin::Chord),
    ("celery.chord_unlock", Builtin::ChordUnlock),
    ("celery.chunks", Builtin::Chunks),
    ("celery.group", Builtin::Group),
    (MAP, Builtin::Map),
    (STARMAP, Builtin::Starmap),
];

/// Registered tasks by name. A task of the user replaces a built-in task of the same name.
pub(super) struct Registry {
    tasks: HashMap<String, Registered>,
}

impl Default for Registry {
    fn default() -> Self {
        let mut registry = Self {
            tasks: HashMap::new(),
        };
        for (name, builtin) in BUILTINS {
            let options = TaskOptions::new().extra_kwargs(true).max_retries(None);
            let options = options.ignore_result(builtin == Builtin::ChordUnlock);
            registry.insert(name.to_owned(), options, Code::Builtin(builtin));
        }
        registry
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Registry {
    pub(super) fn add(&mut self, name: String, options: TaskOptions, handler: Box<Handler>) {
        self.insert(name, options, Code::User(handler));
    }

    fn insert(&mut self, name: String, options: TaskOptions, code: Code) {
        let limits = Limits::new(&options);
        let registered = Registered {
            options,
            limits,
            code,
        };
        self.tasks.insert(name, registered);
    }

    pub(super) fn get(&self, name: &str) -> Option<&Registered> {
        self.tasks.get(name)
    }

    /// Returns the names of the user's tasks, sorted.
    pub(super) fn names(&self) -> Vec<&str> {
        let tasks = self.tasks.iter();
        let users = tasks.filter(|(_, task)| matches!(task.code, Code::User(_)));
        let mut names: Vec<&str> = users.map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Returns the names, sorted, each with those of the `fields` that have a value, such as
    /// `add [rate_limit=10/s]`.
    pub(super) fn described(&self, fields: &[String]) -> Vec<String> {
        let described = |name: &str| {
            let task = self.get(name)?;
            let fields = fields.iter();
            let values = fields.filter_map(|field| Some(format!("{field}={}", task.field(name, field)?)));
            let values: Vec<String> = values.collect();
            Some(match values.as_slice() {
                [] => name.to_owned(),
                values => format!("{name} [{}]", values.join(" ")),
            })
        };
        self.names().into_iter().filter_map(described).collect()
    }

    /// Returns the number of runs started for each task that has run.
    pub(super) fn totals(&self) -> Map<String, Value> {
        let total = |(name, task): (&String, &Registered)| {
            let total = task.limits.total.load(Ordering::Relaxed);
            (total > 0).then(|| (name.clone(), total.into()))
        };
        self.tasks.iter().filter_map(total).collect()
    }
}

impl Registered {
    /// Returns an attribute of the task as Python formats it, or `None` if it has no value.
    fn field(&self, task: &str, name: &str) -> Option<String> {
        let python_bool = |value: bool| Some(if value { "True" } else { "False" }.to_owned());
        let limits = self.limits.time_limit();
        let limit = |limit: Option<Duration>| Some(seconds(limit?).to_string());
        match name {
            "name" => Some(task.to_owned()),
            "rate_limit" => self.limits.rate().map(|rate| rate.as_str().to_owned()),
            "max_retries" => self.options.max_retries.map(|retries| retries.to_string()),
            "time_limit" => limit(limits.hard),
            "soft_time_limit" => limit(limits.soft),
            "acks_late" => python_bool(self.options.acks_late),
            "ignore_result" => python_bool(self.options.ignore_result),
            "track_started" => python_bool(self.options.track_started),
            "serializer" => Some("json".to_owned()),
            _ => None,
        }
    }

    /// Starts a run of a user's task.
    ///
    /// # Errors
    /// Returns a `TypeError` if the arguments do not have the types that the task declares.
    pub(super) fn call(
        &self,
        handler: &Handler,
        context: TaskContext,
        args: Vec<Value>,
        kwargs: Map<String, Value>,
    ) -> Result<BoxFuture<'static, Result<Value, TaskError>>, Exception> {
        let task = context.task.clone();
        let name = task.rsplit('.').next().unwrap_or_default();
        let args = self.positional(name, args, kwargs)?;
        let types: Vec<&str> = args.iter().map(python_type).collect();
        handler(context, args).ok_or_else(|| {
            let message = format!("{name}() does not take arguments of types ({})", types.join(", "));
            Exception::new("TypeError", message)
        })
    }

    /// Returns the positional arguments, followed by the keyword arguments in the order of the task's
    /// parameters up to the last one given; gaps are null.
    fn positional(
        &self,
        name: &str,
        mut args: Vec<Value>,
        mut kwargs: Map<String, Value>,
    ) -> Result<Vec<Value>, Exception> {
        let given = args.len();
        for (position, parameter) in self.options.parameters.iter().enumerate() {
            let Some(value) = kwargs.shift_remove(*parameter) else {
                continue;
            };
            if position < given {
                let message = format!("{name}() got multiple values for argument '{parameter}'");
                return Err(Exception::new("TypeError", message));
            }
            args.resize(position, Value::Null);
            args.push(value);
        }
        match kwargs.keys().next() {
            Some(unknown) if !self.options.extra_kwargs => {
                let message = format!("{name}() got an unexpected keyword argument '{unknown}'");
                Err(Exception::new("TypeError", message))
            }
            _ => Ok(args),
        }
    }
}

/// Deserialises positional arguments into a tuple; no arguments become `()`. If the last of `parameters` are
/// missing and the tuple needs them, they are null.
pub(super) fn deserialised<A: DeserializeOwned>(mut args: Vec<Value>, parameters: usize) -> Option<A> {
    if args.is_empty()
        && let Ok(unit) = serde_json::from_value(Value::Null)
    {
        return Some(unit);
    }
    if args.len() < parameters {
        if let Ok(fitting) = A::deserialize(&Value::Array(args.clone())) {
            return Some(fitting);
        }
        args.resize(parameters, Value::Null);
    }
    serde_json::from_value(Value::Array(args)).ok()
}

pub(super) fn serialised<R: Serialize>(returned: R) -> Result<Value, TaskError> {
    serde_json::to_value(returned).map_err(|_| {
        let exception = Exception::new("EncodeError", "the returned value is not JSON serializable");
        TaskError::Failed(exception.module("kombu.exceptions"))
    })
}

fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => match json::exact_number(value) {
            Some("NaN" | "Infinity" | "-Infinity") => "float",
            Some(_) => "int",
            None => "dict",
        },
    }
}
