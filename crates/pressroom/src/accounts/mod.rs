//! Accounts: registration, login, logout, passwords, tokens, sessions and rate limits.
//!
//! This module contains the rules; SQL is in [`crate::store`], HTTP in [`crate::api`].

mod disguise;
mod hashing;
mod password;
mod rate_limit;
mod service;
mod token;
mod werkzeug;

pub use self::{
    hashing::Overloaded,
    password::{Password, PasswordScheme, Passwords, Verdict},
    rate_limit::{Policy, Quota, RateLimiter, Rates, TooManyAttempts},
    service::{AccountError, Accounts, NewCredentials, SignedIn},
    token::{Claims, InvalidToken, SecretKey, Tokens},
};
