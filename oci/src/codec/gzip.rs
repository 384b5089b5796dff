//! Gzip in parallel: every MiB of input becomes a gzip member of its own, which RFC 1952 allows and all readers take.
//!
//! Members are independent of each other, so the bytes depend on the block size, the level and libdeflate's version,
//! but not on threads or on how the input was cut into writes. A member's header has no name and no time.

use libdeflater::{CompressionLvl, Compressor};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Larger blocks would be 0.3 % smaller, and leave a longer tail on one thread.
const BLOCK: usize = 1 << 20;

pub struct Encoder<W> {
    out: W,
    level: CompressionLvl,
    block: Vec<u8>,
    /// Blocks that are being compressed, in order.
    pending: VecDeque<Receiver<Compressed>>,
    /// Buffers of finished blocks, to be filled again.
    spare: Vec<Vec<u8>>,
    written_any: bool,
}

struct Compressed {
    input: Vec<u8>,
    output: io::Result<Vec<u8>>,
}

impl<W: Write> Encoder<W> {
    pub fn new(out: W, level: u32) -> Self {
        let level = i32::try_from(level.min(12)).ok().and_then(|level| CompressionLvl::new(level).ok());
        Encoder {
            out,
            level: level.unwrap_or_default(),
            block: Vec::new(),
            pending: VecDeque::new(),
            spare: Vec::new(),
            written_any: false,
        }
    }

    pub fn write_all(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            if self.block.len() == BLOCK {
                self.submit()?;
            }
            let part = data.len().min(BLOCK - self.block.len());
            self.block.extend_from_slice(&data[..part]);
            data = &data[part..];
        }
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<W> {
        if !self.written_any && self.pending.is_empty() {
            let member = compress(self.level, &self.block)?;
            self.out.write_all(&member)?;
            return Ok(self.out);
        }
        if !self.block.is_empty() {
            self.submit()?;
        }
        while !self.pending.is_empty() {
            self.write_oldest()?;
        }
        Ok(self.out)
    }

    /// Hands the current block to the thread pool.
    fn submit(&mut self) -> io::Result<()> {
        while self.pending.len() >= 2 * rayon::current_num_threads() {
            self.write_oldest()?;
        }
        let next = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK));
        let input = std::mem::replace(&mut self.block, next);
        let level = self.level;
        let (sender, receiver): (SyncSender<Compressed>, _) = sync_channel(1);
        rayon::spawn(move || {
            let output = compress(level, &input);
            // The encoder may have been dropped after an error.
            let _ = sender.send(Compressed { input, output });
        });
        self.pending.push_back(receiver);
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(receiver) = self.pending.pop_front() else { return Ok(()) };
        let mut compressed = wait(&receiver)?;
        self.out.write_all(&compressed.output?)?;
        self.written_any = true;
        compressed.input.clear();
        self.spare.push(compressed.input);
        Ok(())
    }
}

/// Waits for a block. A thread of the pool must not just sleep: if all of them encoded layers, none would be left
/// to run the jobs they wait for. So it runs jobs itself meanwhile.
fn wait(receiver: &Receiver<Compressed>) -> io::Result<Compressed> {
    let lost = || io::Error::other("the thread that compressed a block has panicked");
    loop {
        if let Ok(compressed) = receiver.try_recv() {
            return Ok(compressed);
        }
        match rayon::yield_now() {
            None => return receiver.recv().map_err(|_| lost()),
            Some(rayon::Yield::Executed) => {}
            Some(rayon::Yield::Idle) => match receiver.recv_timeout(Duration::from_millis(1)) {
                Ok(compressed) => return Ok(compressed),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(lost()),
            },
        }
    }
}

fn compress(level: CompressionLvl, input: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressor = Compressor::new(level);
    let mut output = vec![0; compressor.gzip_compress_bound(input.len())];
    let len = compressor.gzip_compress(input, &mut output).map_err(io::Error::other)?;
    output.truncate(len);
    Ok(output)
}
