//! Sorted sets.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    reply::Reply,
    strings::{float, text},
};

/// A score that orders like its number.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Score(f64);

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Zset {
    scores: BTreeMap<Vec<u8>, f64>,
    order: BTreeSet<(Score, Vec<u8>)>,
}

/// End of a range of scores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    score: f64,
    excluded: bool,
}

impl Bound {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Reply> {
        let excluded = bytes.first() == Some(&b'(');
        let score = float(&bytes[usize::from(excluded)..]);
        let score = score.map_err(|_| Reply::error("ERR min or max is not a float"))?;
        Ok(Self { score, excluded })
    }
}

impl Zset {
    pub(super) fn len(&self) -> usize {
        self.scores.len()
    }

    pub(super) fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    /// Returns whether the member is new.
    pub(super) fn add(&mut self, member: &[u8], score: f64) -> bool {
        // Redis has no negative zero.
        let score = score + 0.0;
        let before = self.scores.insert(member.to_vec(), score);
        if let Some(before) = before {
            self.order.remove(&(Score(before), member.to_vec()));
        }
        self.order.insert((Score(score), member.to_vec()));
        before.is_none()
    }

    pub(super) fn remove(&mut self, member: &[u8]) -> bool {
        let Some(score) = self.scores.remove(member) else {
            return false;
        };
        self.order.remove(&(Score(score), member.to_vec()));
        true
    }

    /// Returns all members in order.
    pub(super) fn all(&self) -> Vec<(Vec<u8>, f64)> {
        let ordered = self.order.iter();
        ordered.map(|(score, member)| (member.clone(), score.0)).collect()
    }

    /// Returns the members with scores in a range, in order.
    pub(super) fn between(&self, low: Bound, high: Bound) -> Vec<(Vec<u8>, f64)> {
        let from = (Score(low.score), Vec::new());
        let found = self
            .order
            .range(from..)
            .skip_while(|(score, _)| low.excluded && score.0 <= low.score)
            .take_while(|(score, _)| score.0 < high.score || !high.excluded && score.0 <= high.score);
        found.map(|(score, member)| (member.clone(), score.0)).collect()
    }
}

/// Conditions of `ZADD`.
#[derive(Debug, Default)]
pub(super) struct AddOptions {
    pub only_existing: bool,
    pub only_new: bool,
    pub only_greater: bool,
}

impl AddOptions {
    /// Reads the options. Returns them and the remaining arguments.
    pub(super) fn parse(mut arguments: &[Vec<u8>]) -> (Self, &[Vec<u8>]) {
        let mut options = Self::default();
        while let Some((first, rest)) = arguments.split_first() {
            match text(first).to_ascii_uppercase().as_str() {
                "XX" => options.only_existing = true,
                "NX" => options.only_new = true,
                "GT" => options.only_greater = true,
                _ => break,
            }
            arguments = rest;
        }
        (options, arguments)
    }
}
