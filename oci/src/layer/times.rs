//! What becomes of the times of files when they leave the store.

/// The mtimes that entries get, in seconds since 1970. Those of whiteouts are always 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Times {
    #[default]
    Kept,
    /// Later ones become this one: SOURCE_DATE_EPOCH with `rewrite-timestamp` (R4.8.5, X4.24).
    AtMost(i64),
    /// Files outside of an image (R4.8.8).
    All(i64),
}

impl Times {
    /// What becomes of `seconds`.
    pub fn of(self, seconds: i64) -> i64 {
        match self {
            Times::Kept => seconds,
            Times::AtMost(latest) => seconds.min(latest),
            Times::All(time) => time,
        }
    }

    /// The same for a time with nanoseconds, which stay where the time does.
    pub fn of_fine(self, (seconds, nanoseconds): (i64, u32)) -> (i64, u32) {
        let stays = match self {
            Times::Kept => true,
            Times::AtMost(latest) => seconds < latest,
            Times::All(_) => false,
        };
        (self.of(seconds), if stays { nanoseconds } else { 0 })
    }
}
