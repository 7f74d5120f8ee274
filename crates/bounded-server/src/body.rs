//! Finds the end of a request body, without changing it.
//!
//! The states of the chunked coding mirror hyper's decoder, so both find the same end unless hyper rejects the body.

/// Framing of a body, and the position within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    /// Number of bytes left.
    Length(u64),
    Chunked(Chunked),
}

/// Position in a body in the chunked transfer coding (RFC 9112, section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunked {
    state: State,
    /// Size of the current chunk, or the number of its bytes left.
    size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    SizeStart,
    Size,
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// Beginning of a trailer line, or of the empty line at the end.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

/// Error for a body that is not in the chunked coding.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl BodyFraming {
    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunked {
            state: State::SizeStart,
            size: 0,
        })
    }

    pub(crate) fn is_at_end(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.state == State::End,
        }
    }

    /// Returns the number of leading bytes that belong to the body.
    pub(crate) fn consume(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match self {
            Self::Length(left) => Ok(take(left, bytes.len())),
            Self::Chunked(chunked) => chunked.consume(bytes),
        }
    }
}

/// Subtracts up to `available` from `left`, and returns the amount.
fn take(left: &mut u64, available: usize) -> usize {
    let taken = usize::try_from(*left).map_or(available, |left| left.min(available));
    *left -= taken as u64;
    taken
}

impl Chunked {
    fn consume(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut position = 0;
        while self.state != State::End && position < bytes.len() {
            if self.state == State::Data {
                position += take(&mut self.size, bytes.len() - position);
                if self.size == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.after(bytes[position])?;
                position += 1;
            }
        }
        Ok(position)
    }

    fn after(&mut self, byte: u8) -> Result<State, Malformed> {
        Ok(match (self.state, byte) {
            (State::SizeStart, _) => {
                self.size = 0;
                self.add_digit(byte)?
            }
            (State::Size | State::SizeSpace, b' ' | b'\t') => State::SizeSpace,
            (State::Size | State::SizeSpace, b';') => State::Extension,
            (State::Size | State::SizeSpace | State::Extension, b'\r') => State::SizeLf,
            (State::Size, _) => self.add_digit(byte)?,
            (State::Extension, b'\n') => return Err(Malformed),
            (State::Extension, _) => State::Extension,
            (State::SizeLf, b'\n') if self.size == 0 => State::TrailerStart,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerStart | State::Trailer, _) => State::Trailer,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::End,
            _ => return Err(Malformed),
        })
    }

    fn add_digit(&mut self, byte: u8) -> Result<State, Malformed> {
        let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
        let size = self.size.checked_mul(16);
        self.size = size
            .and_then(|size| size.checked_add(digit.into()))
            .ok_or(Malformed)?;
        Ok(State::Size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the length of the body at the beginning of `bytes`, which arrive in two pieces.
    fn length(mut framing: BodyFraming, bytes: &[u8], split: usize) -> Result<Option<usize>, Malformed> {
        let mut position = 0;
        for piece in [&bytes[..split], &bytes[split..]] {
            let consumed = framing.consume(piece)?;
            position += consumed;
            if framing.is_at_end() {
                return Ok(Some(position));
            }
            assert_eq!(consumed, piece.len());
        }
        Ok(None)
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        let next = b"GET / HTTP/1.1\r\n\r\n";
        let bodies: [(BodyFraming, &[u8]); 6] = [
            (BodyFraming::Length(0), b""),
            (BodyFraming::Length(7), b"0\r\n\r\nab"),
            (BodyFraming::chunked(), b"0\r\n\r\n"),
            (BodyFraming::chunked(), b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"),
            (
                BodyFraming::chunked(),
                b"1 ;a=\"b\"\r\nx\r\n000A\r\n0123456789\r\n0\r\nX: 1\r\nY: 2\r\n\r\n",
            ),
            (BodyFraming::chunked(), b"1\t\r\n\n\r\n00;x\r\n\r\n"),
        ];
        for (framing, body) in bodies {
            let bytes = [body, next].concat();
            for split in 0..=bytes.len() {
                assert_eq!(
                    length(framing, &bytes, split),
                    Ok(Some(body.len())),
                    "{split} of {body:?}"
                );
            }
        }
        assert_eq!(length(BodyFraming::chunked(), b"5\r\nab", 2), Ok(None));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        let bodies: [&[u8]; 10] = [
            b"\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"0x5\r\n",
            b"5\n",
            b"5;a\nb\r\n",
            b"1\r\nxy\r\n",
            b"1\r\nx\n",
            b"0\r\n\rX",
            b"10000000000000000\r\n",
        ];
        for body in bodies {
            for split in 0..body.len() {
                assert_eq!(
                    length(BodyFraming::chunked(), body, split),
                    Err(Malformed),
                    "{body:?}"
                );
            }
        }
    }
}
