//! Compression of layers, and digests on the way through.
//!
//! gzip is written as independent blocks of 1 MiB, each a gzip member of its own, compressed in parallel: the bytes depend on the input, the
//! level and this block size, never on the number of threads. Readers of gzip must read all members, as gzip itself does.

use crate::Digest;
use flate2::read::MultiGzDecoder;
use libdeflater::{CompressionLvl, Compressor};
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::sync::mpsc;

/// Raise this when the bytes that a codec writes change: it is part of what compressed layers are remembered by.
const VERSION: u32 = 1;
const BLOCK: usize = 1 << 20;
const MAX_WINDOW_LOG: u32 = 27;

/// How layers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    /// 0 to 9.
    Gzip(u8),
    /// 1 to 22.
    Zstd(i32),
}

impl Compression {
    pub const GZIP: Compression = Compression::Gzip(6);
    pub const ZSTD: Compression = Compression::Zstd(3);

    /// The layer's media type, in the OCI or Docker family.
    pub fn media_type(self, docker: bool) -> &'static str {
        match (self, docker) {
            (Compression::None, false) => "application/vnd.oci.image.layer.v1.tar",
            (Compression::Gzip(_), false) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Compression::Zstd(_), false) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Compression::None, true) => "application/vnd.docker.image.rootfs.diff.tar",
            (Compression::Gzip(_), true) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Compression::Zstd(_), true) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        }
    }

    /// Names everything that decides the bytes.
    pub fn key(self) -> String {
        match self {
            Compression::None => "tar".into(),
            Compression::Gzip(level) => format!("gzip-{level}-{BLOCK}-v{VERSION}"),
            Compression::Zstd(level) => format!("zstd-{level}-v{VERSION}"),
        }
    }
}

/// Compresses what is written to it into `W`.
pub enum Encoder<W: Write> {
    None(W),
    Gzip(GzipBlocks<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    pub fn new(compression: Compression, out: W) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Encoder::None(out),
            Compression::Gzip(level) => Encoder::Gzip(GzipBlocks::new(level, out)),
            Compression::Zstd(level) => {
                let mut encoder = zstd::Encoder::new(out, level)?;
                encoder.include_checksum(true)?;
                // One worker or more give the same bytes; none gives others.
                let workers = std::thread::available_parallelism().map_or(1, usize::from);
                encoder.multithread(u32::try_from(workers).unwrap_or(1))?;
                Encoder::Zstd(encoder)
            }
        })
    }

    /// Writes what is still held back and gives the output.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Encoder::None(out) => Ok(out),
            Encoder::Gzip(blocks) => blocks.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::None(out) => out.write(bytes),
            Encoder::Gzip(blocks) => blocks.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Blocks in order: compressed on the thread pool, written by the caller's thread. At most twice as many as there are
/// threads are held at once.
pub struct GzipBlocks<W: Write> {
    out: W,
    level: u8,
    block: Vec<u8>,
    pending: VecDeque<mpsc::Receiver<io::Result<Vec<u8>>>>,
    any: bool,
}

impl<W: Write> GzipBlocks<W> {
    fn new(level: u8, out: W) -> Self {
        GzipBlocks { out, level, block: Vec::new(), pending: VecDeque::new(), any: false }
    }

    fn submit(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        let (sender, receiver) = mpsc::sync_channel(1);
        let level = self.level;
        rayon::spawn(move || {
            // The receiver is gone when writing failed: then nobody wants the block.
            let _ = sender.send(gzip_member(&block, level));
        });
        self.any = true;
        self.pending.push_back(receiver);
        while self.pending.len() > 2 * rayon::current_num_threads() {
            self.write_first()?;
        }
        Ok(())
    }

    fn write_first(&mut self) -> io::Result<()> {
        if let Some(first) = self.pending.pop_front() {
            let member = first.recv().map_err(|_| io::Error::other("a compression thread ended early"))??;
            self.out.write_all(&member)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        if !self.any {
            // Small layers are the most frequent ones: no thread is needed for them.
            self.out.write_all(&gzip_member(&self.block, self.level)?)?;
            return Ok(self.out);
        }
        if !self.block.is_empty() {
            self.submit()?;
        }
        while !self.pending.is_empty() {
            self.write_first()?;
        }
        Ok(self.out)
    }
}

impl<W: Write> Write for GzipBlocks<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK {
            self.submit()?;
        }
        if self.block.capacity() == 0 {
            self.block.reserve_exact(if self.any { BLOCK } else { bytes.len().min(BLOCK) });
        }
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gzip_member(block: &[u8], level: u8) -> io::Result<Vec<u8>> {
    let level = CompressionLvl::new(level.into()).map_err(|_| io::Error::other(format!("no gzip level {level}")))?;
    let mut compressor = Compressor::new(level);
    let mut member = vec![0; compressor.gzip_compress_bound(block.len())];
    let length = compressor.gzip_compress(block, &mut member).map_err(io::Error::other)?;
    member.truncate(length);
    Ok(member)
}

/// Decompresses by what the bytes begin with, whatever a media type claims (R4.4.7).
pub fn decoder<'a>(reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut reader = BufReader::with_capacity(256 * 1024, reader);
    let magic = peek(&mut reader, 4)?;
    if magic.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(MultiGzDecoder::new(reader)));
    }
    let is_skippable = magic.len() == 4 && (0x50..=0x5f).contains(&magic[0]) && magic[1..] == [0x2a, 0x4d, 0x18];
    if magic == [0x28, 0xb5, 0x2f, 0xfd] || is_skippable {
        let mut decoder = zstd::Decoder::with_buffer(reader)?;
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(reader))
}

/// The next bytes without taking them; fewer than `count` only at the end.
fn peek(reader: &mut BufReader<impl Read>, count: usize) -> io::Result<Vec<u8>> {
    use std::io::BufRead;
    // The buffer is far larger than a magic number, and readers of files fill it at once; a pipe may give less.
    let start = reader.fill_buf()?;
    Ok(start[..start.len().min(count)].to_vec())
}

/// Passes bytes on, counting and hashing them.
pub struct HashingWriter<W> {
    inner: W,
    hasher: Sha256,
    length: u64,
}

impl<W: Write> HashingWriter<W> {
    pub fn new(inner: W) -> Self {
        HashingWriter { inner, hasher: Sha256::new(), length: 0 }
    }

    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest::from_hasher(self.hasher), self.length)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Hashes and counts bytes as they are read.
pub struct HashingReader<R> {
    inner: R,
    hasher: Sha256,
    length: u64,
}

impl<R: Read> HashingReader<R> {
    pub fn new(inner: R) -> Self {
        HashingReader { inner, hasher: Sha256::new(), length: 0 }
    }

    /// Reads what is left, and gives digest and length of it all.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((Digest::from_hasher(self.hasher), self.length))
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.length += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_codec_round_trips() {
        let large: Vec<u8> = (0..5_000_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for bytes in [&[][..], b"small", &large] {
            for compression in [Compression::None, Compression::GZIP, Compression::ZSTD] {
                let encoded = encode(compression, bytes);
                let mut decoded = Vec::new();
                decoder(encoded.as_slice()).unwrap().read_to_end(&mut decoded).unwrap();
                assert!(decoded == bytes, "{compression:?} {}", bytes.len());
            }
        }
    }

    #[test]
    fn gzip_does_not_depend_on_how_it_is_written() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let mut encoder = Encoder::new(Compression::GZIP, Vec::new()).unwrap();
        for piece in bytes.chunks(777) {
            encoder.write_all(piece).unwrap();
        }
        assert!(encoder.finish().unwrap() == encode(Compression::GZIP, &bytes));
    }

    #[test]
    fn corrupt_input_is_an_error() {
        let mut encoded = encode(Compression::GZIP, b"some bytes to compress");
        let last = encoded.len() - 6;
        encoded[last] ^= 1;
        let mut decoded = Vec::new();
        assert!(decoder(encoded.as_slice()).unwrap().read_to_end(&mut decoded).is_err());
    }
}
