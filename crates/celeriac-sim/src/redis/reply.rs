//! The wire format, RESP2.

/// Reply to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Status(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    NilArray,
    Array(Vec<Reply>),
}

impl Reply {
    pub fn ok() -> Self {
        Self::Status("OK".to_owned())
    }

    pub(super) fn error(text: &str) -> Self {
        Self::Error(text.to_owned())
    }

    pub(super) fn bulk(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bulk(bytes.into())
    }

    pub(super) fn optional(bytes: Option<impl Into<Vec<u8>>>) -> Self {
        bytes.map_or(Self::Nil, |bytes| Self::Bulk(bytes.into()))
    }

    /// Appends the encoded reply to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Status(text) => out.extend(format!("+{text}\r\n").bytes()),
            Self::Error(text) => out.extend(format!("-{text}\r\n").bytes()),
            Self::Int(number) => out.extend(format!(":{number}\r\n").bytes()),
            Self::Bulk(bytes) => {
                out.extend(format!("${}\r\n", bytes.len()).bytes());
                out.extend(bytes);
                out.extend(b"\r\n");
            }
            Self::Nil => out.extend(b"$-1\r\n"),
            Self::NilArray => out.extend(b"*-1\r\n"),
            Self::Array(items) => {
                out.extend(format!("*{}\r\n", items.len()).bytes());
                items.iter().for_each(|item| item.encode(out));
            }
        }
    }
}

/// Removes the first complete request from `buffer`.
pub fn take_request(buffer: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let mut rest = buffer.as_slice();
    let count = length(&mut rest, b'*')?;
    let mut arguments = Vec::with_capacity(count);
    for _ in 0..count {
        let size = length(&mut rest, b'$')?;
        arguments.push(rest.get(..size)?.to_vec());
        rest = rest.get(size + 2..)?;
    }
    let used = buffer.len() - rest.len();
    buffer.drain(..used);
    Some(arguments)
}

fn length(rest: &mut &[u8], kind: u8) -> Option<usize> {
    let end = rest.windows(2).position(|bytes| bytes == b"\r\n")?;
    let (line, after) = (&rest[..end], &rest[end + 2..]);
    assert_eq!(line.first(), Some(&kind), "requests are arrays of bulk strings");
    *rest = after;
    std::str::from_utf8(&line[1..]).ok()?.parse().ok()
}
