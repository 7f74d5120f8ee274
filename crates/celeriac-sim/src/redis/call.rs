//! The commands that read and change data. Both clients and scripts call them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    data::{Bytes, Data},
    reply::Reply,
    strings::{float, int, number, range, text},
    zset::{AddOptions, Bound, Zset},
};

type List = VecDeque<Bytes>;
type Set = BTreeSet<Bytes>;
type Hash = BTreeMap<Bytes, Bytes>;
type Result = std::result::Result<Reply, Reply>;

/// A write that the history of a run records.
#[derive(Debug, Clone)]
pub enum Write {
    Text { key: String, value: Vec<u8> },
    Scores { key: String, members: Vec<String> },
}

/// Data with the time of a command and the effects of the command outside of the data.
#[derive(Debug)]
pub(super) struct Store {
    pub data: Data,
    /// Microseconds since the Unix epoch by the server's clock.
    pub now: i64,
    /// Messages published, with their channels.
    pub published: Vec<(Bytes, Bytes)>,
    /// Whether a list has grown, which may wake up blocked clients.
    pub pushed: bool,
    /// Writes that the simulation's history records.
    pub writes: Vec<Write>,
}

fn bulks<T: Into<Bytes>>(items: impl IntoIterator<Item = T>) -> Reply {
    Reply::Array(items.into_iter().map(Reply::bulk).collect())
}

fn flag(value: bool) -> Reply {
    Reply::Int(i64::from(value))
}

fn count(value: usize) -> Reply {
    Reply::Int(value as i64)
}

fn syntax_error() -> Reply {
    Reply::error("ERR syntax error")
}

impl Store {
    /// Runs a command of the data. Unknown commands are an error of the model.
    pub(super) fn call(&mut self, arguments: &[Bytes]) -> Reply {
        let name = text(&arguments[0]).to_ascii_uppercase();
        self.data.expire(self.now / 1000);
        let reply = self.dispatch(&name, &arguments[1..]);
        reply.unwrap_or_else(|error| error)
    }

    fn dispatch(&mut self, name: &str, args: &[Bytes]) -> Result {
        let milliseconds = self.now / 1000;
        let data = &mut self.data;
        Ok(match (name, args) {
            ("TIME", []) => bulks([
                (self.now / 1_000_000).to_string(),
                (self.now % 1_000_000).to_string(),
            ]),
            ("PUBLISH", [channel, message]) => {
                self.published.push((channel.clone(), message.clone()));
                // The server replaces this with the number of subscribers.
                Reply::Int(0)
            }
            ("FLUSHALL", []) => {
                *data = Data::default();
                Reply::ok()
            }

            // Keys.
            ("DEL", keys) => count(keys.iter().filter(|key| data.delete(key)).count()),
            ("EXISTS", keys) => count(keys.iter().filter(|key| data.exists(key)).count()),
            ("TYPE", [key]) => Reply::Status(data.kind(key).to_owned()),
            ("EXPIRE", [key, seconds]) => {
                let expires = milliseconds + int(seconds)? * 1000;
                flag(data.set_expiry(key, expires))
            }
            ("TTL", [key]) => Reply::Int(match data.expiry(key) {
                None => -2,
                Some(None) => -1,
                Some(Some(expires)) => (expires - milliseconds + 500) / 1000,
            }),

            // Strings.
            ("GET", [key]) => Reply::optional(data.get::<Bytes>(key)?.cloned()),
            ("MGET", keys) => Reply::Array(
                keys.iter()
                    .map(|key| Reply::optional(data.get::<Bytes>(key).ok().flatten().cloned()))
                    .collect(),
            ),
            ("GETRANGE", [key, start, end]) => {
                let value = data.get::<Bytes>(key)?.cloned().unwrap_or_default();
                let (start, mut end) = (int(start)?, int(end)?);
                if end < 0 && !(start < 0 && start > end) {
                    // Unlike in a list, a position before the first is the first.
                    end = (end + value.len() as i64).max(0);
                }
                Reply::bulk(&value[range(start, end, value.len())])
            }
            ("SET", [key, value, options @ ..]) => {
                let (mut expires, mut only_new) = (None, false);
                let mut options = options.iter();
                while let Some(option) = options.next() {
                    match text(option).to_ascii_uppercase().as_str() {
                        "NX" => only_new = true,
                        "EX" => {
                            let seconds = int(options.next().ok_or_else(syntax_error)?)?;
                            expires = Some(milliseconds + seconds * 1000);
                        }
                        _ => return Err(syntax_error()),
                    }
                }
                if only_new && data.exists(key) {
                    return Ok(Reply::Nil);
                }
                self.set(key, value, expires)
            }
            ("SETEX", [key, seconds, value]) => {
                let seconds = int(seconds)?;
                if seconds <= 0 {
                    return Err(Reply::error("ERR invalid expire time in 'setex' command"));
                }
                self.set(key, value, Some(milliseconds + seconds * 1000))
            }
            ("INCR", [key]) => self.increment(key, 1)?,
            ("INCRBY", [key, by]) => self.increment(key, int(by)?)?,

            // Lists.
            ("LPUSH" | "RPUSH", [key, values @ ..]) if !values.is_empty() => {
                let left = name == "LPUSH";
                let length = data.change(key, |list: &mut List| {
                    for value in values {
                        if left {
                            list.push_front(value.clone());
                        } else {
                            list.push_back(value.clone());
                        }
                    }
                    list.len()
                })?;
                self.pushed = true;
                count(length)
            }
            ("LPOP" | "RPOP", [key, rest @ ..]) => {
                if data.get::<List>(key)?.is_none() {
                    return Ok(if rest.is_empty() {
                        Reply::Nil
                    } else {
                        Reply::NilArray
                    });
                }
                let max = rest.first().map_or(Ok(1), |max| int(max))? as usize;
                let left = name == "LPOP";
                let popped = data.change(key, |list: &mut List| {
                    let pop = |list: &mut List| if left { list.pop_front() } else { list.pop_back() };
                    Vec::from_iter(std::iter::from_fn(|| pop(list)).take(max))
                })?;
                match rest {
                    [] => Reply::optional(popped.into_iter().next()),
                    _ => bulks(popped),
                }
            }
            ("LMOVE", [from, to, wherefrom, whereto]) => {
                let right = |side: &Bytes| text(side).eq_ignore_ascii_case("RIGHT");
                if data.get::<List>(from)?.is_none() {
                    return Ok(Reply::Nil);
                }
                data.get::<List>(to)?;
                let moved = data.change(from, |list: &mut List| {
                    if right(wherefrom) {
                        list.pop_back()
                    } else {
                        list.pop_front()
                    }
                })?;
                let Some(moved) = moved else { return Ok(Reply::Nil) };
                data.change(to, |list: &mut List| {
                    if right(whereto) {
                        list.push_back(moved.clone());
                    } else {
                        list.push_front(moved.clone());
                    }
                })?;
                Reply::Bulk(moved)
            }
            ("LLEN", [key]) => count(data.get::<List>(key)?.map_or(0, |list| list.len())),
            ("LINDEX", [key, index]) => {
                let index = int(index)?;
                Reply::optional(data.get::<List>(key)?.and_then(|list| {
                    let index = if index < 0 {
                        list.len() as i64 + index
                    } else {
                        index
                    };
                    list.get(usize::try_from(index).ok()?).cloned()
                }))
            }
            ("LRANGE", [key, start, end]) => {
                let (start, end) = (int(start)?, int(end)?);
                let list = data.get::<List>(key)?.map(|list| list.make_contiguous().to_vec());
                let list = list.unwrap_or_default();
                bulks(list[range(start, end, list.len())].iter().cloned())
            }
            ("LREM", [key, max, value]) => {
                let max = int(max)?;
                let removed = data.change(key, |list: &mut List| {
                    let mut found: Vec<usize> = (0..list.len())
                        .filter(|position| list[*position] == *value)
                        .collect();
                    if max < 0 {
                        found.reverse();
                    }
                    if max != 0 {
                        found.truncate(usize::try_from(max.unsigned_abs()).unwrap_or(usize::MAX));
                    }
                    found.sort_unstable_by(|one, other| other.cmp(one));
                    for position in &found {
                        list.remove(*position);
                    }
                    found.len()
                })?;
                count(removed)
            }
            ("LTRIM", [key, start, end]) => {
                let (start, end) = (int(start)?, int(end)?);
                data.change(key, |list: &mut List| {
                    let kept = range(start, end, list.len());
                    *list = list.drain(kept).collect();
                })?;
                Reply::ok()
            }

            // Sets.
            ("SADD", [key, members @ ..]) => {
                let added = |set: &mut Set| members.iter().filter(|one| set.insert(one.to_vec())).count();
                count(data.change(key, added)?)
            }
            ("SREM", [key, members @ ..]) => {
                let removed = |set: &mut Set| members.iter().filter(|one| set.remove(*one)).count();
                count(data.change(key, removed)?)
            }
            ("SMEMBERS", [key]) => bulks(data.get::<Set>(key)?.cloned().unwrap_or_default()),
            ("SISMEMBER", [key, member]) => {
                flag(data.get::<Set>(key)?.is_some_and(|set| set.contains(member)))
            }

            // Hashes.
            ("HGET", [key, field]) => {
                Reply::optional(data.get::<Hash>(key)?.and_then(|hash| hash.get(field).cloned()))
            }
            ("HMGET", [key, fields @ ..]) => {
                let hash = data.get::<Hash>(key)?.cloned().unwrap_or_default();
                Reply::Array(
                    fields
                        .iter()
                        .map(|field| Reply::optional(hash.get(field).cloned()))
                        .collect(),
                )
            }
            ("HSET", [key, pairs @ ..]) if !pairs.is_empty() && pairs.len() % 2 == 0 => {
                let added = data.change(key, |hash: &mut Hash| {
                    let pairs = pairs.chunks(2);
                    pairs
                        .filter(|pair| hash.insert(pair[0].clone(), pair[1].clone()).is_none())
                        .count()
                })?;
                count(added)
            }
            ("HSETNX", [key, field, value]) => flag(data.change(key, |hash: &mut Hash| {
                let is_new = !hash.contains_key(field);
                hash.entry(field.clone()).or_insert_with(|| value.clone());
                is_new
            })?),
            ("HDEL", [key, fields @ ..]) => {
                let removed =
                    |hash: &mut Hash| fields.iter().filter(|one| hash.remove(*one).is_some()).count();
                count(data.change(key, removed)?)
            }
            ("HLEN", [key]) => count(data.get::<Hash>(key)?.map_or(0, |hash| hash.len())),
            ("HEXISTS", [key, field]) => flag(
                data.get::<Hash>(key)?
                    .is_some_and(|hash| hash.contains_key(field)),
            ),
            ("HGETALL", [key]) => {
                let hash = data.get::<Hash>(key)?.cloned().unwrap_or_default();
                bulks(hash.into_iter().flat_map(|(field, value)| [field, value]))
            }
            ("HINCRBY", [key, field, by]) => {
                let by = int(by)?;
                let sum = data.change(key, |hash: &mut Hash| {
                    let value = hash.entry(field.clone()).or_insert_with(|| b"0".to_vec());
                    let sum = int(value).map_err(|_| Reply::error("ERR hash value is not an integer"))? + by;
                    *value = sum.to_string().into_bytes();
                    Ok(sum)
                })?;
                Reply::Int(sum?)
            }

            // Sorted sets.
            ("ZADD", [key, rest @ ..]) => self.add_scores(key, rest)?,
            ("ZREM", [key, members @ ..]) => {
                let removed = |zset: &mut Zset| members.iter().filter(|member| zset.remove(member)).count();
                count(data.change(key, removed)?)
            }
            ("ZSCORE", [key, member]) => {
                let score = data.get::<Zset>(key)?.and_then(|zset| zset.score(member));
                Reply::optional(score.map(number))
            }
            ("ZMSCORE", [key, members @ ..]) => {
                let zset = data.get::<Zset>(key)?.cloned().unwrap_or_default();
                let scores = members
                    .iter()
                    .map(|member| Reply::optional(zset.score(member).map(number)));
                Reply::Array(scores.collect())
            }
            ("ZCARD", [key]) => count(data.get::<Zset>(key)?.map_or(0, |zset| zset.len())),
            ("ZCOUNT", [key, low, high]) => {
                let (low, high) = (Bound::parse(low)?, Bound::parse(high)?);
                count(
                    data.get::<Zset>(key)?
                        .map_or(0, |zset| zset.between(low, high).len()),
                )
            }
            ("ZRANGE", [key, start, end, options @ ..]) => self.range(key, start, end, options)?,
            ("ZRANGEBYSCORE", [key, low, high, options @ ..]) => {
                let by_score = [b"BYSCORE".to_vec()].into_iter().chain(options.iter().cloned());
                self.range(key, low, high, &by_score.collect::<Vec<_>>())?
            }
            ("ZREMRANGEBYSCORE", [key, low, high]) => {
                let (low, high) = (Bound::parse(low)?, Bound::parse(high)?);
                count(data.change(key, |zset: &mut Zset| {
                    let members = zset.between(low, high);
                    members.iter().filter(|(member, _)| zset.remove(member)).count()
                })?)
            }
            ("ZREMRANGEBYRANK", [key, start, end]) => {
                let (start, end) = (int(start)?, int(end)?);
                count(data.change(key, |zset: &mut Zset| {
                    let all = zset.all();
                    let members = &all[range(start, end, all.len())];
                    members.iter().filter(|(member, _)| zset.remove(member)).count()
                })?)
            }
            _ => {
                let shown: Vec<String> = args.iter().map(|one| text(one)).collect();
                return Err(Reply::Error(format!(
                    "ERR the model does not know {name} {shown:?}"
                )));
            }
        })
    }

    fn set(&mut self, key: &[u8], value: &[u8], expires: Option<i64>) -> Reply {
        self.data.set(key, value, expires);
        self.writes.push(Write::Text {
            key: text(key),
            value: value.to_vec(),
        });
        Reply::ok()
    }

    fn increment(&mut self, key: &[u8], by: i64) -> Result {
        let sum = self.data.change(key, |value: &mut Bytes| {
            let before = if value.is_empty() { 0 } else { int(value)? };
            *value = (before + by).to_string().into_bytes();
            Ok(before + by)
        })?;
        Ok(Reply::Int(sum?))
    }

    fn add_scores(&mut self, key: &[u8], rest: &[Bytes]) -> Result {
        let (options, pairs) = AddOptions::parse(rest);
        if pairs.is_empty() || pairs.len() % 2 == 1 {
            return Err(syntax_error());
        }
        let scores: std::result::Result<Vec<f64>, Reply> =
            pairs.chunks(2).map(|pair| float(&pair[0])).collect();
        let scores = scores?;
        let added = self.data.change(key, |zset: &mut Zset| {
            let mut added = 0;
            for (pair, score) in pairs.chunks(2).zip(scores) {
                let before = zset.score(&pair[1]);
                let skipped = before.is_none() && options.only_existing
                    || before.is_some() && options.only_new
                    || before.is_some_and(|before| options.only_greater && score <= before);
                if !skipped {
                    added += usize::from(zset.add(&pair[1], score));
                }
            }
            added
        })?;
        let members = pairs.chunks(2).map(|pair| text(&pair[1]));
        self.writes.push(Write::Scores {
            key: text(key),
            members: members.collect(),
        });
        Ok(count(added))
    }

    /// `ZRANGE`.
    fn range(&mut self, key: &[u8], start: &[u8], end: &[u8], options: &[Bytes]) -> Result {
        let (mut by_score, mut reverse, mut scores, mut limit) = (false, false, false, None);
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match text(option).to_ascii_uppercase().as_str() {
                "BYSCORE" => by_score = true,
                "REV" => reverse = true,
                "WITHSCORES" => scores = true,
                "LIMIT" => {
                    let offset = int(options.next().ok_or_else(syntax_error)?)?;
                    limit = Some((offset, int(options.next().ok_or_else(syntax_error)?)?));
                }
                _ => return Err(syntax_error()),
            }
        }
        let bounds = if by_score {
            let (low, high) = if reverse { (end, start) } else { (start, end) };
            Some((Bound::parse(low)?, Bound::parse(high)?))
        } else {
            None
        };
        let positions = if by_score {
            (0, -1)
        } else {
            (int(start)?, int(end)?)
        };
        let zset = self.data.get::<Zset>(key)?.cloned().unwrap_or_default();
        let mut found = match bounds {
            Some((low, high)) => zset.between(low, high),
            None => zset.all(),
        };
        if reverse {
            found.reverse();
        }
        let mut found = found[range(positions.0, positions.1, found.len())].to_vec();
        if let Some((offset, max)) = limit {
            found.drain(..found.len().min(usize::try_from(offset).unwrap_or(usize::MAX)));
            found.truncate(usize::try_from(max).unwrap_or(usize::MAX));
        }
        Ok(bulks(found.into_iter().flat_map(|(member, score)| {
            let score = scores.then(|| number(score).into_bytes());
            [Some(member), score].into_iter().flatten()
        })))
    }
}
