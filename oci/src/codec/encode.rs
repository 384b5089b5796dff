//! The writer in front of all compressors.

use super::{Compression, gzip, zstd_frame};
use std::io::{self, Write};

/// Compresses what is written to it. Compressing runs on other threads while the caller produces more; memory is
/// bounded by a few blocks a thread. What fits into one block is compressed by the caller's thread, in
/// [`finish`](Encoder::finish), which must be called: a dropped encoder leaves a torn stream.
pub struct Encoder<W: Write>(Kind<W>);

enum Kind<W: Write> {
    Plain(W),
    Gzip(gzip::Encoder<W>),
    Zstd(zstd_frame::Encoder<W>),
}

impl<W: Write> Encoder<W> {
    pub fn new(out: W, compression: Compression) -> Self {
        Encoder(match compression {
            Compression::None => Kind::Plain(out),
            Compression::Gzip { level } => Kind::Gzip(gzip::Encoder::new(out, level)),
            Compression::Zstd { level } => Kind::Zstd(zstd_frame::Encoder::new(out, level)),
        })
    }

    /// Ends the stream and gives back what it was written to, without flushing it.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Kind::Plain(out) => Ok(out),
            Kind::Gzip(encoder) => encoder.finish(),
            Kind::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(out) => out.write(data),
            Kind::Gzip(encoder) => encoder.write_all(data).map(|()| data.len()),
            Kind::Zstd(encoder) => encoder.write_all(data).map(|()| data.len()),
        }
    }

    /// Does nothing to a compressed stream: a flush in the middle would change its bytes.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Plain(out) => out.flush(),
            _ => Ok(()),
        }
    }
}
