//! What the two ends of the helper's socket say to each other: JSON in frames that begin with their length.

use serde::{Serialize, de::DeserializeOwned};
use std::io::{Error, ErrorKind, Read, Result, Write};

/// No frame is longer: programs, their input and what they give back are all bounded below it.
const LONGEST: usize = 256 << 20;

/// Writes one frame.
pub(super) fn send(to: &mut impl Write, message: &impl Serialize) -> Result<()> {
    let body = serde_json::to_vec(message)?;
    if body.len() > LONGEST {
        return Err(Error::new(ErrorKind::InvalidInput, format!("a message of {} bytes", body.len())));
    }
    to.write_all(&(body.len() as u32).to_le_bytes())?;
    to.write_all(&body)
}

/// Reads one frame; `UnexpectedEof` where the other end has gone.
pub(super) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(Error::new(ErrorKind::InvalidData, format!("a frame of {length} bytes; the other end is no helper of ours")));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}
