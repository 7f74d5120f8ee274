//! Reads of sessions.

use std::collections::HashMap;

use async_trait::async_trait;
use telemetry::Statement;
use tokio::time::Instant;

use crate::{
    domain::{Session, TokenKey, UserId},
    store::{
        postgres::{
            connections::{Call, Primary},
            error::StatementError,
        },
        rows,
        sql::{statement, user_columns},
    },
};

/// Finds the sessions of several tokens. The planner does not see the lengths of the arrays in the subqueries. Otherwise,
/// it would make a new plan for every execution, which costs more than the execution.
const FIND_SESSIONS: Statement = statement!(
    "SELECT users",
    "
        SELECT asked.number, ",
    user_columns!(),
    ", EXISTS (SELECT FROM revoked_tokens WHERE token_key = asked.token) AS revoked,
            generation, ended_at, kept_token
        FROM unnest((SELECT $1::text[]), (SELECT $2::integer[])) WITH ORDINALITY AS asked (token, of_user, number)
        JOIN users ON users.id = asked.of_user
        LEFT JOIN ended_sessions ON ended_sessions.user_id = users.id",
);

/// A token whose session to find.
#[derive(Clone)]
pub(in crate::store::postgres) struct FindSession {
    pub(in crate::store::postgres) user: UserId,
    pub(in crate::store::postgres) token: TokenKey,
}

#[async_trait]
impl Call for FindSession {
    type Answer = Option<Session>;
    const STATEMENT: Statement = FIND_SESSIONS;

    fn returned_rows(session: &Option<Session>) -> Option<i64> {
        Some(session.is_some().into())
    }

    async fn run(
        primary: &Primary,
        calls: &[Self],
        _start: Instant,
    ) -> Result<Vec<Option<Session>>, StatementError> {
        let tokens: Vec<&str> = calls.iter().map(|call| call.token.0.as_str()).collect();
        let users: Vec<i32> = calls.iter().map(|call| call.user.0).collect();
        let found = primary.run_read(&FIND_SESSIONS, &[&tokens, &users]).await?;
        let mut sessions = HashMap::new();
        for row in &found.rows {
            sessions.insert(row.try_get::<_, i64>("number")?, rows::session(row)?);
        }
        Ok((1..)
            .zip(calls)
            .map(|(number, _)| sessions.remove(&number))
            .collect())
    }
}
