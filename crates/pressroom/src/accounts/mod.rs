//! Accounts: registration, login, logout, passwords, tokens and rate limits.
//!
//! This module contains the rules; SQL is in [`crate::store`], HTTP in [`crate::api`].

mod password;
mod rate_limit;
mod service;
mod token;
mod werkzeug;

pub use self::{
    password::{Overloaded, Password, PasswordScheme, Passwords, Verdict},
    rate_limit::{RateLimiter, Rates, TooManyAttempts},
    service::{AccountError, Accounts, SignedIn},
    token::{Claims, InvalidToken, SecretKey, Tokens},
};
