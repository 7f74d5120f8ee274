//! Parser of the query language. Everything that it does not understand is an error: a misspelt query must not match
//! everything or nothing.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::{
    expression::{Comparison, Expression, Level, Query, Status, Subject, Term},
    lexer::{Lexer, QueryError, Word},
};
use crate::store::{
    condition::{Attribute, Condition, Operator},
    filter::Text,
    ids::{Id, SpanId, TraceId},
    units::{DURATION_UNITS, nanoseconds},
};

/// Maximum length of a query in bytes.
const MAX_BYTES: usize = 2_000;

/// Maximum number of terms in a query.
const MAX_TERMS: usize = 32;

/// Maximum number of nested parentheses and negations.
const MAX_DEPTH: usize = 16;

/// Attribute that a numeric `status` refers to.
const STATUS_CODE: &str = "http.response.status_code";

/// Levels with their lowest severity numbers (OpenTelemetry logs data model).
const LEVELS: [(&str, u8); 6] = [
    ("trace", 1),
    ("debug", 5),
    ("info", 9),
    ("warn", 13),
    ("error", 17),
    ("fatal", 21),
];

const KINDS: [(&str, SpanKind); 6] = [
    ("server", SpanKind::Server),
    ("client", SpanKind::Client),
    ("internal", SpanKind::Internal),
    ("producer", SpanKind::Producer),
    ("consumer", SpanKind::Consumer),
    ("unspecified", SpanKind::Unspecified),
];

/// Fields of both subjects.
const COMMON_FIELDS: [&str; 7] = ["service", "scope", "text", "trace", "span", "event", "error"];

/// Fields of spans and traces.
const SPAN_FIELDS: [&str; 8] = [
    "name",
    "kind",
    "status",
    "dur",
    "trace.dur",
    "spans",
    "errors",
    "services",
];

/// Fields of log records.
const RECORD_FIELDS: [&str; 3] = ["level", "body", "status"];

/// Parses a query.
///
/// # Errors
/// Returns the problem and its position.
pub(crate) fn parse(text: &str, subject: Subject) -> Result<Query, QueryError> {
    let mut parser = Parser {
        lexer: Lexer::new(text),
        subject,
        terms: 0,
        depth: 0,
        negations: 0,
    };
    if text.len() > MAX_BYTES {
        let problem = format!("the query is longer than {MAX_BYTES} bytes");
        return Err(parser.lexer.error(0, problem));
    }
    let expression = parser.any()?;
    let at = parser.lexer.at();
    if !parser.lexer.is_at_end() {
        return Err(parser.lexer.error(at, "this parenthesis was not opened"));
    }
    Ok(Query {
        expression,
        negations: parser.negations,
    })
}

impl Subject {
    /// Returns the names of the fields.
    pub(crate) fn fields(self) -> impl Iterator<Item = &'static str> {
        let own: &[&str] = match self {
            Self::Spans => &SPAN_FIELDS,
            Self::Records => &RECORD_FIELDS,
        };
        COMMON_FIELDS.iter().chain(own).copied()
    }

    /// Returns the names that a field accepts as values.
    pub(crate) fn values(self, field: &str) -> Vec<&'static str> {
        match field {
            _ if !self.has(field) => Vec::new(),
            "kind" => KINDS.iter().map(|(name, _)| *name).collect(),
            "level" => LEVELS.iter().map(|(name, _)| *name).collect(),
            "error" => vec!["true", "false"],
            "status" if self == Self::Spans => vec!["error", "ok", "unset"],
            _ => Vec::new(),
        }
    }

    /// Returns the attribute whose values a field is compared with, or the field itself.
    pub(crate) fn attribute(field: &str) -> &str {
        if field == "status" { STATUS_CODE } else { field }
    }

    fn has(self, field: &str) -> bool {
        self.fields().any(|known| known == field)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Spans => "traces",
            Self::Records => "log records",
        }
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    subject: Subject,
    terms: usize,
    depth: usize,
    negations: usize,
}

/// Comparison that is being parsed.
struct Compared {
    field: Word,
    operator: Operator,
    value: Word,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Expression, QueryError> {
        let mut alternatives = vec![self.all()?];
        while self.lexer.take_keyword("or") {
            alternatives.push(self.all()?);
        }
        Ok(Expression::any(alternatives))
    }

    fn all(&mut self) -> Result<Expression, QueryError> {
        let mut parts = Vec::new();
        loop {
            let is_joined = !parts.is_empty() && self.lexer.take_keyword("and");
            let at = self.lexer.at();
            if self.lexer.is_at_end()
                || self.lexer.peek(')')
                || self.lexer.peek_keyword("or")
                || self.lexer.peek_keyword("and")
            {
                if is_joined || parts.is_empty() {
                    return Err(self.lexer.error(at, "a term is missing"));
                }
                return Ok(Expression::all(parts));
            }
            parts.push(self.unary()?);
        }
    }

    fn unary(&mut self) -> Result<Expression, QueryError> {
        let at = self.lexer.at();
        if self.lexer.clone().take_operator().is_none() && self.lexer.take('!') {
            let inner = Box::new(self.nested(at, Self::unary)?);
            return Ok(self.negated(inner));
        }
        if self.lexer.take('(') {
            let inner = self.nested(at, Self::any)?;
            if !self.lexer.take(')') {
                return Err(self.lexer.error(at, "this parenthesis is not closed"));
            }
            return Ok(inner);
        }
        self.terms += 1;
        if self.terms > MAX_TERMS {
            let problem = format!("the query has more than {MAX_TERMS} terms");
            return Err(self.lexer.error(at, problem));
        }
        self.term()
    }

    fn nested(
        &mut self,
        at: usize,
        parse: fn(&mut Self) -> Result<Expression, QueryError>,
    ) -> Result<Expression, QueryError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let problem = format!("more than {MAX_DEPTH} nested parentheses and negations");
            return Err(self.lexer.error(at, problem));
        }
        let inner = parse(self)?;
        self.depth -= 1;
        Ok(inner)
    }

    fn negated(&mut self, inner: Box<Expression>) -> Expression {
        let index = self.negations;
        self.negations += 1;
        Expression::Not { index, inner }
    }

    fn term(&mut self) -> Result<Expression, QueryError> {
        let field = self.lexer.key()?;
        let Some(operator) = self.lexer.take_operator() else {
            return self.word(field);
        };
        let symbol = operator.symbol();
        if field.text.is_empty() {
            return Err(self
                .lexer
                .error(field.at, format!("a field is missing before `{symbol}`")));
        }
        let value = self.lexer.value()?;
        if !value.is_quoted {
            self.check_bare(operator, &value)?;
        }
        self.comparison(Compared {
            field,
            operator,
            value,
        })
    }

    /// Checks a value without quotes.
    fn check_bare(&self, operator: Operator, value: &Word) -> Result<(), QueryError> {
        let symbol = operator.symbol();
        let problem = match value.text.chars().next() {
            None => format!("a value is missing after `{symbol}`"),
            Some(next @ ('=' | '~' | '<' | '>' | '!')) => {
                format!("`{symbol}{next}` is no operator; quote a value that starts with `{next}`,")
            }
            Some('"' | '\'') => return Ok(()),
            Some(_)
                if matches!(operator, Operator::Equal | Operator::NotEqual)
                    && value.text != "*"
                    && value.text.contains('*') =>
            {
                "`*` is no wildcard; use `~` for a part of the text, or quote the value,".to_owned()
            }
            Some(_) => return Ok(()),
        };
        Err(self.lexer.error(value.at, problem))
    }

    /// Parses a term without an operator: text that occurs anywhere in the entry.
    fn word(&self, word: Word) -> Result<Expression, QueryError> {
        if !word.is_quoted {
            let field = word.text.split_once(':').map(|(field, _)| field);
            if let Some(field) = field.filter(|field| self.subject.has(field)) {
                let problem = format!("write `{field}=…` instead of `{field}:…`, or quote the text,");
                return Err(self.lexer.error(word.at, problem));
            }
            if matches!(&*word.text, "&&" | "||" | "&" | "|" | ",") {
                let problem = format!("`{}` is no operator; use `and` or `or`,", word.text);
                return Err(self.lexer.error(word.at, problem));
            }
        }
        if word.text.is_empty() {
            let problem = if word.is_quoted {
                "the text is empty"
            } else {
                "a term is missing"
            };
            return Err(self.lexer.error(word.at, problem));
        }
        Ok(match TraceId::from_hex(&word.text) {
            Some(id) => Expression::text_or_trace(&word.text, id),
            None => Expression::Term(Term::Text(Text::new(&word.text))),
        })
    }

    fn comparison(&mut self, compared: Compared) -> Result<Expression, QueryError> {
        let Compared {
            field,
            operator,
            value,
        } = &compared;
        if !value.is_quoted && value.text == "*" && matches!(operator, Operator::Equal | Operator::NotEqual) {
            return self.existence(&compared);
        }
        let is_field = !field.is_quoted && self.subject.has(&field.text);
        let is_other_field = !field.is_quoted
            && (SPAN_FIELDS.contains(&&*field.text) || RECORD_FIELDS.contains(&&*field.text));
        if !is_field && is_other_field {
            let problem = format!(
                "`{}` is no field of {}; quote an attribute of this name",
                field.text,
                self.subject.name()
            );
            return Err(self.lexer.error(field.at, problem));
        }
        if !is_field {
            let condition = self.condition(&compared)?;
            return Ok(Expression::Term(Term::Attribute(Attribute::new(
                &field.text,
                condition,
            ))));
        }
        let term = match &*field.text {
            "service" => Term::Service(self.text_condition(&compared)?),
            "scope" => Term::Scope(self.text_condition(&compared)?),
            "name" => Term::Name(self.text_condition(&compared)?),
            "event" => Term::Event(self.text_condition(&compared)?),
            "body" => Term::Body(self.condition(&compared)?),
            "text" => return self.text(&compared),
            "trace" => {
                let (id, equal) = self.id(&compared)?;
                Term::Trace { id, equal }
            }
            "span" => {
                let (id, equal) = self.id::<8>(&compared)?;
                let id: SpanId = id;
                Term::Span { id, equal }
            }
            "kind" => {
                let (kind, equal) = self.one_of(&compared, &KINDS)?;
                Term::Kind { kind, equal }
            }
            "error" => {
                let (wanted, equal) = self.one_of(&compared, &[("true", true), ("false", false)])?;
                return Ok(self.error(wanted == equal));
            }
            "status" => return self.status(&compared),
            "dur" => Term::Duration(self.duration(&compared)?),
            "trace.dur" => Term::TraceDuration(self.duration(&compared)?),
            "spans" => Term::Spans(self.count(&compared)?),
            "errors" => Term::Errors(self.count(&compared)?),
            "services" => Term::Services(self.count(&compared)?),
            _ => Term::Level(self.level(&compared)?),
        };
        Ok(Expression::Term(term))
    }

    /// Parses `key=*` and `key!=*`.
    fn existence(&mut self, compared: &Compared) -> Result<Expression, QueryError> {
        let field = &compared.field;
        let condition = Condition::Exists;
        let term = match &*field.text {
            "event" if !field.is_quoted => Term::Event(condition),
            "body" if !field.is_quoted && self.subject == Subject::Records => Term::Body(condition),
            "status" if !field.is_quoted => Term::Attribute(Attribute::new(STATUS_CODE, condition)),
            name if !field.is_quoted && self.subject.has(name) => {
                return Err(self
                    .lexer
                    .error(field.at, format!("`{name}` always exists; name an attribute")));
            }
            key => Term::Attribute(Attribute::new(key, condition)),
        };
        let term = Expression::Term(term);
        Ok(match compared.operator {
            Operator::Equal => term,
            _ => self.negated(Box::new(term)),
        })
    }

    fn text(&mut self, compared: &Compared) -> Result<Expression, QueryError> {
        let term = Expression::Term(Term::Text(Text::new(&compared.value.text)));
        match compared.operator {
            Operator::Contains => Ok(term),
            Operator::NotContains => Ok(self.negated(Box::new(term))),
            _ => Err(self.wrong_operator(compared, "`~` and `!~`")),
        }
    }

    /// Returns the expression for failed spans and records, or for traces without a failed span and other records.
    fn error(&mut self, wanted: bool) -> Expression {
        let failed = Expression::Term(match self.subject {
            Subject::Spans => Term::Status {
                status: Status::Error,
                equal: true,
            },
            Subject::Records => Term::Level(Level {
                operator: Operator::AtLeast,
                least: 17,
            }),
        });
        if wanted {
            failed
        } else {
            self.negated(Box::new(failed))
        }
    }

    fn status(&mut self, compared: &Compared) -> Result<Expression, QueryError> {
        let name = &*compared.value.text;
        if self.subject == Subject::Spans && matches!(name, "error" | "ok" | "unset") {
            let names = [("error", "error"), ("ok", "ok"), ("unset", "unset")];
            let (name, equal) = self.one_of(compared, &names)?;
            return Ok(match name {
                "ok" => self.error(!equal),
                name => {
                    let status = if name == "error" {
                        Status::Error
                    } else {
                        Status::Unset
                    };
                    Expression::Term(Term::Status { status, equal })
                }
            });
        }
        let contains = matches!(compared.operator, Operator::Contains | Operator::NotContains);
        if !contains && compared.value.text.parse::<f64>().is_err() {
            let problem = match self.subject {
                Subject::Spans => {
                    "`status` is a number, `error`, `ok` or `unset`; this value is none of them"
                }
                Subject::Records => "`status` is a number; this value is none",
            };
            return Err(self.lexer.error(compared.value.at, problem));
        }
        let condition = self.condition(compared)?;
        Ok(Expression::Term(Term::Attribute(Attribute::new(
            STATUS_CODE,
            condition,
        ))))
    }

    fn condition(&self, compared: &Compared) -> Result<Condition, QueryError> {
        let symbol = compared.operator.symbol();
        let number = |problem| format!("`{symbol}` {problem}");
        let condition = Condition::new(compared.operator, &compared.value.text);
        condition.map_err(|problem| self.lexer.error(compared.value.at, number(problem)))
    }

    fn text_condition(&self, compared: &Compared) -> Result<Condition, QueryError> {
        match compared.operator {
            Operator::Equal | Operator::NotEqual | Operator::Contains | Operator::NotContains => {
                self.condition(compared)
            }
            _ => Err(self.wrong_operator(compared, "`=`, `!=`, `~` and `!~`")),
        }
    }

    fn wrong_operator(&self, compared: &Compared, allowed: &str) -> QueryError {
        let (field, symbol) = (&compared.field, compared.operator.symbol());
        let problem = format!(
            "`{}` is compared with {allowed}, not with `{symbol}`,",
            field.text
        );
        self.lexer.error(field.at, problem)
    }

    /// Returns the value, which must be one of `names`, and whether it must be equal.
    fn one_of<T: Copy>(&self, compared: &Compared, names: &[(&str, T)]) -> Result<(T, bool), QueryError> {
        let equal = self.equality(compared)?;
        let value = self.named(compared, names)?;
        Ok((value, equal))
    }

    fn named<T: Copy>(&self, compared: &Compared, names: &[(&str, T)]) -> Result<T, QueryError> {
        let mut known = names.iter();
        let found = known.find(|(name, _)| compared.value.text.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = names.iter().map(|(name, _)| format!("`{name}`")).collect();
            let problem = format!(
                "`{}` is one of {}, and this value is not",
                compared.field.text,
                names.join(", ")
            );
            self.lexer.error(compared.value.at, problem)
        })
    }

    fn equality(&self, compared: &Compared) -> Result<bool, QueryError> {
        match compared.operator {
            Operator::Equal => Ok(true),
            Operator::NotEqual => Ok(false),
            _ => Err(self.wrong_operator(compared, "`=` and `!=`")),
        }
    }

    fn id<const N: usize>(&self, compared: &Compared) -> Result<(Id<N>, bool), QueryError> {
        let equal = self.equality(compared)?;
        let id = Id::from_hex(&compared.value.text).ok_or_else(|| {
            let problem = format!(
                "`{}` needs {} hexadecimal digits, not all zero,",
                compared.field.text,
                2 * N
            );
            self.lexer.error(compared.value.at, problem)
        })?;
        Ok((id, equal))
    }

    fn duration(&self, compared: &Compared) -> Result<Comparison, QueryError> {
        let value = nanoseconds(&compared.value.text, &DURATION_UNITS);
        self.ordered(
            compared,
            value,
            "needs a duration such as `250us`, `10ms`, `1.5s` or `2m`",
        )
    }

    fn count(&self, compared: &Compared) -> Result<Comparison, QueryError> {
        self.ordered(compared, compared.value.text.parse().ok(), "needs a number")
    }

    fn ordered(
        &self,
        compared: &Compared,
        value: Option<u64>,
        problem: &str,
    ) -> Result<Comparison, QueryError> {
        self.check_ordered(compared)?;
        let operator = compared.operator;
        let value = value.ok_or_else(|| {
            let problem = format!("`{}` {problem}", compared.field.text);
            self.lexer.error(compared.value.at, problem)
        })?;
        Ok(Comparison { operator, value })
    }

    fn check_ordered(&self, compared: &Compared) -> Result<(), QueryError> {
        match compared.operator {
            Operator::Contains | Operator::NotContains => {
                Err(self.wrong_operator(compared, "`=`, `!=`, `<`, `<=`, `>` and `>=`"))
            }
            _ => Ok(()),
        }
    }

    fn level(&self, compared: &Compared) -> Result<Level, QueryError> {
        self.check_ordered(compared)?;
        let least = self.named(compared, &LEVELS)?;
        let operator = compared.operator;
        Ok(Level { operator, least })
    }
}
