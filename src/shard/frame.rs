//! Independent zstd frames with content checksums: packing rows into them, and taking a file apart frame by frame.
//!
//! A frame of our own holds whole rows and is handed out only when its checksum has matched. Frames of others may be of any size: above
//! [`WHOLE_BYTES`] they come in pieces, so that memory stays bounded. What the bytes are is not known here.

use crate::publish::hex;
use sha2::{Digest, Sha256};
use std::io::{self, BufRead, Read, Write};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

/// Raw size at which a frame is closed.
pub(super) const FRAME_BYTES: usize = 1 << 20;
/// Raw size up to which a frame is checked as a whole before any of it is handed out; also the limit of one row.
pub(super) const WHOLE_BYTES: usize = 64 << 20;
/// The four bytes that a zstd frame begins with.
pub(super) const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Compresses `raw` into one frame that carries its size and its checksum (the library's default is without).
pub(super) fn compress(raw: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    compressor.include_checksum(true)?;
    compressor.include_contentsize(true)?;
    compressor.compress(raw)
}

/// Packs rows into frames, hashing and counting what it writes.
pub(super) struct Packer<W> {
    out: W,
    level: i32,
    /// What every frame begins with.
    prefix: &'static [u8],
    raw: Vec<u8>,
    hash: Sha256,
    pub(super) raw_bytes: u64,
    frames: u64,
    bytes: u64,
}

impl<W: Write> Packer<W> {
    pub(super) fn new(out: W, level: i32, prefix: &'static [u8]) -> Self {
        Self { out, level, prefix, raw: prefix.to_vec(), hash: Sha256::new(), raw_bytes: 0, frames: 0, bytes: 0 }
    }

    /// Adds one row, whole, to the current frame; gives where that frame begins in the output, and the row in the frame's raw bytes.
    pub(super) fn row(&mut self, row: &[u8]) -> io::Result<(u64, u32)> {
        if row.len() > WHOLE_BYTES - self.prefix.len() {
            return Err(io::Error::other(format!("a row has {} bytes, the limit is {WHOLE_BYTES}", row.len())));
        }
        if self.raw.len() + row.len() > WHOLE_BYTES {
            self.close()?;
        }
        let place = (self.bytes, self.raw.len() as u32);
        self.raw.extend_from_slice(row);
        self.raw_bytes += row.len() as u64;
        if self.raw.len() >= FRAME_BYTES {
            self.close()?;
        }
        Ok(place)
    }

    fn close(&mut self) -> io::Result<()> {
        if self.raw.len() == self.prefix.len() {
            return Ok(());
        }
        let frame = compress(&self.raw, self.level)?;
        self.out.write_all(&frame)?;
        self.hash.update(&frame);
        self.bytes += frame.len() as u64;
        self.frames += 1;
        self.raw.truncate(self.prefix.len());
        Ok(())
    }

    /// Closes the last frame; gives back the writer, the number of frames, the bytes and their SHA-256.
    pub(super) fn finish(mut self) -> io::Result<(W, u64, u64, String)> {
        self.close()?;
        Ok((self.out, self.frames, self.bytes, hex(self.hash)))
    }
}

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Bad {
    /// The file could not be read: says nothing about its bytes.
    #[error("cannot be read ({0})")]
    Io(io::Error),
    /// The bytes are no frame.
    #[error("is damaged ({0})")]
    Damaged(String),
}

/// A frame's raw bytes, or a part of them where the frame is larger than [`WHOLE_BYTES`].
pub(super) struct Piece {
    pub(super) raw: Vec<u8>,
    /// Offset of the frame's first byte, and of the byte after what was read so far.
    pub(super) start: u64,
    pub(super) end: u64,
    /// Whether the frame ends here, with a matching checksum.
    pub(super) complete: bool,
}

/// Takes a stream of frames apart.
pub(super) struct Frames<R> {
    pub(super) input: R,
    decoder: Decoder<'static>,
    /// Number of frames that were read to their end.
    pub(super) index: u64,
    offset: u64,
    /// Start of a frame that is not finished.
    open: Option<u64>,
    whole_bytes: usize,
}

impl<R: BufRead> Frames<R> {
    /// `offset` is where `input` stands in its file.
    pub(super) fn new(input: R, offset: u64) -> io::Result<Self> {
        Ok(Self { input, decoder: Decoder::new()?, index: 0, offset, open: None, whole_bytes: WHOLE_BYTES })
    }

    /// The next frame or piece of one; `None` at the end of the input. After an error there is nothing more to be had.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, Bad> {
        let (mut raw, start) = (Vec::new(), self.open.unwrap_or(self.offset));
        let complete = self.append(&mut raw)?;
        Ok(complete.map(|complete| Piece { raw, start, end: self.offset, complete }))
    }

    /// Appends the raw bytes of the next frame or piece of one; says whether the frame ends with them, `None` at the end of the input. After an error `raw` is as
    /// it was.
    pub(super) fn append(&mut self, raw: &mut Vec<u8>) -> Result<Option<bool>, Bad> {
        let before = raw.len();
        let appended = self.decode(raw);
        if appended.is_err() {
            raw.truncate(before);
        }
        appended
    }

    fn decode(&mut self, raw: &mut Vec<u8>) -> Result<Option<bool>, Bad> {
        let (before, start) = (raw.len(), self.open.unwrap_or(self.offset));
        loop {
            let input = self.input.fill_buf().map_err(Bad::Io)?;
            let at_end = input.is_empty();
            if at_end && self.offset == start {
                return Ok(None);
            }
            // What a frame says of its size is a hint; where it is right, nothing is moved.
            let says = if self.offset == start { zstd::zstd_safe::get_frame_content_size(input).ok().flatten() } else { None };
            raw.reserve(says.map_or(1 << 17, |bytes| bytes.min(self.whole_bytes as u64) as usize + 1));
            let at = raw.len();
            let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around_pos(raw, at));
            let remaining = self.decoder.run(&mut from, &mut to).map_err(|error| Bad::Damaged(error.to_string()))?;
            let read = from.pos();
            if at_end && raw.len() == at && remaining != 0 {
                return Err(Bad::Damaged("the file ends inside it".into()));
            }
            self.input.consume(read);
            self.offset += read as u64;
            let complete = remaining == 0;
            self.open = (!complete).then_some(start);
            self.index += u64::from(complete);
            if complete || raw.len() - before > self.whole_bytes {
                return Ok(Some(complete));
            }
        }
    }
}

/// A reader that hashes and counts what passes through it.
pub(super) struct Hashed<R> {
    pub(super) input: R,
    hash: Sha256,
    pub(super) bytes: u64,
}

impl<R: Read> Hashed<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, hash: Sha256::new(), bytes: 0 }
    }

    pub(super) fn sha256(&self) -> String {
        hex(self.hash.clone())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.hash.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], whole_bytes: usize) -> Result<Vec<(usize, bool)>, Bad> {
        let mut frames = Frames { whole_bytes, ..Frames::new(bytes, 0).unwrap() };
        let mut pieces = Vec::new();
        while let Some(piece) = frames.next()? {
            assert!(piece.start < piece.end && piece.end <= bytes.len() as u64);
            pieces.push((piece.raw.len(), piece.complete));
        }
        Ok(pieces)
    }

    #[test]
    fn frames_end_where_they_were_closed_and_big_ones_come_in_pieces() {
        let noise: Vec<u8> = (0..700_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let bytes = [compress(b"one", 3).unwrap(), compress(&noise, 3).unwrap(), compress(b"three", 9).unwrap()].concat();
        assert_eq!(read(&bytes, WHOLE_BYTES).unwrap(), [(3, true), (700_000, true), (5, true)]);
        let pieces = read(&bytes, 200_000).unwrap();
        assert!(pieces.len() > 4 && pieces.iter().all(|(n, _)| *n <= 200_000 + (1 << 17)), "{pieces:?}");
        assert_eq!(pieces.iter().map(|(n, _)| n).sum::<usize>(), 700_008);
        assert_eq!(pieces.iter().filter(|(_, complete)| *complete).count(), 3);
    }

    #[test]
    fn the_checksum_is_there() {
        let frame = compress(b"some text that is long enough, long enough, long enough", 3).unwrap();
        assert_eq!(frame[4] & 4, 4, "the descriptor's checksum flag");
        assert_eq!(frame[..4], MAGIC);
        let mut bad = frame.clone();
        *bad.last_mut().unwrap() ^= 1;
        assert!(matches!(read(&bad, WHOLE_BYTES), Err(Bad::Damaged(why)) if why.contains("checksum")));
    }

    #[test]
    fn rows_beyond_the_limit_are_refused() {
        let mut packer = Packer::new(Vec::new(), 1, b"");
        assert!(packer.row(&vec![0; WHOLE_BYTES + 1]).unwrap_err().to_string().contains("the limit is 67108864"));
    }
}
