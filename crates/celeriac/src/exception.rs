//! Errors in the form in which Celery stores them in results.

use std::{any::type_name, error::Error, fmt};

use serde_json::Value;

use crate::repr;

/// Boxed error, into which `?` converts types that implement [`Error`], strings, and wrappers such as
/// `anyhow::Error`.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Error of a task as Celery's results store it. Python clients raise it as an exception.
///
/// ```
/// use celeriac::Exception;
///
/// let exception = Exception::new("OperationalError", "no connection").module("sqlalchemy.exc");
/// assert_eq!(exception.to_string(), "OperationalError: no connection");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Exception {
    /// Class name, such as `OperationalError`.
    pub type_name: String,
    /// Python module of the class, such as `sqlalchemy.exc`.
    pub module: String,
    /// Message.
    pub message: String,
    /// Arguments of the constructor, if they are not just the message.
    arguments: Option<Vec<Value>>,
}

impl Exception {
    /// Creates an exception in Python's module `builtins`, whose only argument is its message.
    pub fn new(type_name: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            type_name: type_name.into(),
            module: "builtins".to_owned(),
            message: message.into(),
            arguments: None,
        }
    }

    /// Sets the arguments with which Python clients construct the exception, and the message that Python
    /// derives from them.
    ///
    /// ```
    /// use celeriac::Exception;
    ///
    /// let exception = Exception::new("HTTPError", "").args([404.into(), "not found".into()]);
    /// assert_eq!(exception.message, "(404, 'not found')");
    /// ```
    pub fn args(mut self, arguments: impl IntoIterator<Item = Value>) -> Self {
        let arguments: Vec<Value> = arguments.into_iter().collect();
        self.message = match arguments.as_slice() {
            [] => String::new(),
            [Value::String(message)] => message.clone(),
            [one] => repr::value(one),
            several => repr::tuple(several),
        };
        let is_message = matches!(arguments.as_slice(), [Value::String(_)]);
        self.arguments = (!is_message).then_some(arguments);
        self
    }

    /// Returns the arguments of the constructor, as results store them.
    #[must_use]
    pub fn arguments(&self) -> Vec<Value> {
        let only_message = || vec![Value::from(self.message.as_str())];
        self.arguments.clone().unwrap_or_else(only_message)
    }

    /// Sets the module of the class.
    pub fn module(mut self, module: impl Into<String>) -> Self {
        self.module = module.into();
        self
    }

    /// Creates an exception from a Rust error: named after its type, with the messages of the error and its
    /// sources.
    ///
    /// An `Exception` is returned unchanged. An error without its own type, such as a string, becomes Python's
    /// `Exception`.
    ///
    /// ```
    /// use celeriac::Exception;
    ///
    /// let error = "one".parse::<i32>().unwrap_err();
    /// let exception = Exception::from_error(error);
    /// assert_eq!(exception.to_string(), "ParseIntError: invalid digit found in string");
    /// ```
    pub fn from_error<E: Into<Box<dyn Error + Send + Sync>>>(error: E) -> Self {
        match error.into().downcast::<Self>() {
            Ok(exception) => *exception,
            Err(error) => {
                let (module, name) = python_class(type_name::<E>());
                Self::new(name, text_with_sources(error.as_ref())).module(module)
            }
        }
    }

    /// Reads an exception from a stored result.
    pub(crate) fn from_result(result: &Value) -> Self {
        let text = |name: &str| result[name].as_str().unwrap_or_default().to_owned();
        let exception = Self::new(text("exc_type"), "").module(text("exc_module"));
        match &result["exc_message"] {
            Value::Null => exception,
            Value::Array(arguments) => exception.args(arguments.iter().cloned()),
            other => exception.args([other.clone()]),
        }
    }

    /// Formats the exception as a Python traceback, without frames, because Rust errors have none.
    pub(crate) fn traceback(&self) -> String {
        let module = match self.module.as_str() {
            "" | "builtins" => String::new(),
            module => format!("{module}."),
        };
        format!("Traceback (most recent call last):\n{module}{self}\n")
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.type_name, self.message)
    }
}

impl Error for Exception {}

/// Returns the Python module and class that represent a Rust type.
fn python_class(rust_type: &str) -> (String, &str) {
    let path = rust_type.split('<').next().unwrap_or_default();
    match path.rsplit_once("::") {
        None | Some(("alloc::string", "String") | ("alloc::boxed", "Box")) => {
            ("builtins".to_owned(), "Exception")
        }
        Some((module, name)) => (module.replace("::", "."), name),
    }
}

/// Returns the error's message, followed by the messages of its sources unless it already contains them.
fn text_with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = source.to_string();
        if !text.contains(&source_text) {
            text = format!("{text}: {source_text}");
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the invoice")]
    struct Unreadable(#[source] std::fmt::Error);

    #[test]
    fn a_rust_error_is_named_after_its_type_and_shows_its_sources() {
        let exception = Exception::from_error(Unreadable(std::fmt::Error));
        let expected = Exception::new(
            "Unreadable",
            format!("cannot read the invoice: {}", std::fmt::Error),
        );
        assert_eq!(exception, expected.module("celeriac.exception.tests"));
    }

    #[test]
    fn arguments_become_the_message_that_python_shows() {
        let exception = |arguments: Vec<Value>| Exception::new("E", "").args(arguments);
        assert_eq!(exception(vec!["no".into()]), Exception::new("E", "no"));
        assert_eq!(Exception::new("E", "no").arguments(), [Value::from("no")]);
        assert_eq!(exception(vec![]).message, "");
        assert_eq!(exception(vec![]).arguments(), [] as [Value; 0]);
        assert_eq!(exception(vec![7.into()]).message, "7");
        let several = vec![Value::from(7), Value::from("no")];
        assert_eq!(exception(several.clone()).message, "(7, 'no')");
        assert_eq!(exception(several.clone()).arguments(), several);
    }

    #[test]
    fn an_exception_and_a_string_keep_their_message() {
        let exception = Exception::new("ValueError", "no words").module("app");
        assert_eq!(Exception::from_error(exception.clone()), exception);
        let boxed: BoxError = exception.clone().into();
        assert_eq!(Exception::from_error(boxed), exception);
        assert_eq!(
            Exception::from_error("no words"),
            Exception::new("Exception", "no words")
        );
    }
}
