//! What goes first, and how much may stay (R7.7.2 to R7.7.6). Nothing here touches the disk.

use crate::filter::Filter;
use crate::inventory::CacheRecord;
use crate::usage::Kind;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::str::FromStr;

/// Milliseconds.
const HOUR: i64 = 3_600_000;
const GIGABYTE: u64 = 1_000_000_000;

/// An amount of space: bytes, or a part of the disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Space {
    Bytes(u64),
    Percent(u64),
}

impl Space {
    pub fn of(self, disk: u64) -> u64 {
        match self {
            Space::Bytes(bytes) => bytes,
            Space::Percent(percent) => u64::try_from(u128::from(disk) * u128::from(percent) / 100).unwrap_or(u64::MAX),
        }
    }
}

/// `10GB`, `512mb`, `1.5g`, as docker has it in powers of 1024, or `10%`.
impl FromStr for Space {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid =
            || format!("expected a size such as 10GB or 512mb, or a part of the disk such as 10%, not {text:?}");
        let text = text.trim();
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.trim_end().parse().ok().filter(|percent| *percent <= 100);
            return percent.map(Space::Percent).ok_or_else(invalid);
        }
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim().to_ascii_lowercase();
        let shift = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            "p" => 50,
            _ => return Err(invalid()),
        };
        if let Ok(number) = number.parse::<u64>() {
            return number.checked_mul(1 << shift).map(Space::Bytes).ok_or_else(invalid);
        }
        let bytes = number.parse::<f64>().map_err(|_| invalid())? * (1_u64 << shift) as f64;
        if bytes < u64::MAX as f64 { Ok(Space::Bytes(bytes as u64)) } else { Err(invalid()) }
    }
}

/// The file system that the store is on, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disk {
    pub size: u64,
    pub free: u64,
}

/// What may stay, in bytes; 0 for no cap.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Caps {
    /// This much always stays.
    pub reserved: u64,
    pub max_used: u64,
    pub min_free: u64,
}

impl Caps {
    /// R7.7.4. `None`: no cap, so nothing need stay.
    fn keep(&self, used: u64, free: u64) -> Option<u64> {
        if *self == Caps::default() {
            return None;
        }
        let short = self.min_free.saturating_sub(free);
        let most = match (short, self.max_used) {
            (0, 0) if self.min_free > 0 => used,
            (0, most) => most,
            (short, 0) => used.saturating_sub(short),
            (short, most) => most.min(used.saturating_sub(short)),
        };
        Some(most.max(self.reserved))
    }

    /// Whether `used` bytes are more than may stay.
    pub fn are_exceeded(&self, used: u64, free: u64) -> bool {
        self.keep(used, free).is_some_and(|keep| used > keep)
    }
}

/// What the automatic collection may keep; where nothing is said, R7.7.3.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    pub reserved: Option<Space>,
    pub max_used: Option<Space>,
    pub min_free: Option<Space>,
}

impl Budget {
    pub fn caps(&self, disk: u64) -> Caps {
        let percent = |percent| Space::Percent(percent).of(disk);
        let max_used = self.max_used.map_or(percent(80).min(100 * GIGABYTE), |space| space.of(disk));
        let reserved = percent(10).min(10 * GIGABYTE);
        // Who wants little must not get more because of a default.
        let reserved = if max_used == 0 { reserved } else { reserved.min(max_used) };
        Caps {
            reserved: self.reserved.map_or(reserved, |space| space.of(disk)),
            max_used,
            min_free: self.min_free.map_or(percent(20), |space| space.of(disk)),
        }
    }
}

/// What is to go.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Also what images share, and what is internal.
    pub all: bool,
    /// Of these kinds; none for all.
    pub kinds: &'static [Kind],
    /// All of them must match.
    pub filters: Vec<Filter>,
    /// Only what was not used for that many milliseconds.
    pub unused_for: i64,
    pub caps: Caps,
}

impl Policy {
    /// R7.7.2: applied one after the other.
    pub fn automatic(caps: Caps) -> [Policy; 4] {
        const EASILY_MADE_AGAIN: &[Kind] = &[Kind::LocalSource, Kind::CacheMount, Kind::GitCheckout];
        [
            Policy {
                kinds: EASILY_MADE_AGAIN,
                unused_for: 48 * HOUR,
                caps: Caps { max_used: 512_000_000, ..Caps::default() },
                ..Policy::default()
            },
            Policy { unused_for: 60 * 24 * HOUR, caps, ..Policy::default() },
            Policy { caps, ..Policy::default() },
            Policy { all: true, caps, ..Policy::default() },
        ]
    }

    fn is_meant(&self, record: &CacheRecord, now: i64) -> bool {
        !record.in_use
            && (self.all || record.kind != Kind::Internal && !record.shared)
            && (self.unused_for == 0 || record.last_used <= now.saturating_sub(self.unused_for))
            && (self.kinds.is_empty() || self.kinds.contains(&record.kind))
            && self.filters.iter().all(|filter| filter.matches(record))
    }

    /// Which records go, the first first, at most `most` of them. One goes after all that stand on it.
    pub(crate) fn plan(&self, records: &[CacheRecord], free: u64, now: i64, most: usize) -> Vec<usize> {
        let counted = records.iter().filter(|record| self.all || !record.shared);
        let mut used: u64 = counted.map(|record| record.size).sum();
        // What goes makes room on the disk as well: so it is enough to compare with what may stay now.
        let keep = self.caps.keep(used, free);
        if keep.is_some_and(|keep| used <= keep) {
            return Vec::new();
        }
        let meant: Vec<bool> = records.iter().map(|record| self.is_meant(record, now)).collect();
        let ranks = ranks(records, &meant);
        let places: HashMap<&str, usize> =
            records.iter().enumerate().map(|(place, record)| (record.id.as_str(), place)).collect();
        let lowers =
            |place: usize| records[place].lowers.iter().filter_map(|lower| places.get(lower.as_str()).copied());
        let mut children = vec![0_usize; records.len()];
        for place in 0..records.len() {
            lowers(place).for_each(|lower| children[lower] += 1);
        }
        let order = |place: usize| Reverse((ranks[place], records[place].created, place));
        let mut leaves: BinaryHeap<_> =
            (0..records.len()).filter(|place| meant[*place] && children[*place] == 0).map(order).collect();
        let mut planned = Vec::new();
        while let Some(Reverse((_, _, place))) = leaves.pop() {
            if planned.len() == most || keep.is_some_and(|keep| used <= keep) {
                break;
            }
            planned.push(place);
            used = used.saturating_sub(records[place].size);
            for lower in lowers(place) {
                children[lower] -= 1;
                if children[lower] == 0 && meant[lower] {
                    leaves.push(order(lower));
                }
            }
        }
        planned
    }
}

/// R7.7.5: the older and the rarer, the lower. The rank by last use and the rank by uses count the same.
fn ranks(records: &[CacheRecord], meant: &[bool]) -> Vec<u64> {
    let rank = |value: &dyn Fn(&CacheRecord) -> i64| {
        let mut values: Vec<i64> =
            records.iter().zip(meant).filter(|(_, meant)| **meant).map(|(it, _)| value(it)).collect();
        values.sort_unstable();
        values.dedup();
        let ranks = records.iter().map(|record| values.partition_point(|known| *known < value(record)) as u64 + 1);
        (ranks.collect::<Vec<_>>(), values.len() as u64 + 1)
    };
    let (by_time, times) = rank(&|record| record.last_used);
    let (by_uses, uses) = rank(&|record| i64::try_from(record.uses).unwrap_or(i64::MAX));
    by_time.into_iter().zip(by_uses).map(|(time, use_)| time * uses + use_ * times).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, lowers: &[&str], last_used: i64) -> CacheRecord {
        CacheRecord {
            id: id.into(),
            kind: Kind::Regular,
            lowers: lowers.iter().map(|lower| (*lower).to_owned()).collect(),
            size: 10,
            created: 0,
            last_used,
            uses: 1,
            description: String::new(),
            shared: false,
            in_use: false,
        }
    }

    fn planned(records: &[CacheRecord], policy: &Policy) -> String {
        let plan = policy.plan(records, 0, 1000, usize::MAX);
        plan.into_iter().map(|place| records[place].id.clone()).collect::<Vec<_>>().join(" ")
    }

    /// R7.7.5.
    #[test]
    fn what_others_stand_on_goes_after_them() {
        let chain = [record("a", &[], 1), record("b", &["a"], 5), record("c", &["a", "b"], 9), record("d", &[], 3)];
        assert_eq!(planned(&chain, &Policy::default()), "d c b a");
        let mut used = chain.clone();
        used[2].in_use = true;
        assert_eq!(planned(&used, &Policy::default()), "d");
        let caps = Caps { max_used: 25, ..Caps::default() };
        assert_eq!(planned(&chain, &Policy { caps, ..Policy::default() }), "d c");
        assert_eq!(planned(&chain, &Policy { unused_for: 996, ..Policy::default() }), "d", "only what is old");
        assert_eq!(Policy::default().plan(&chain, 0, 1000, 1).len(), 1);
    }

    /// R7.7.5.
    #[test]
    fn older_and_rarer_goes_first() {
        let mut records =
            [record("old and often", &[], 1), record("newer and rare", &[], 2), record("new and often", &[], 3)];
        records[0].uses = 9;
        records[2].uses = 9;
        assert_eq!(planned(&records, &Policy::default()), "newer and rare old and often new and often");
    }

    /// R7.7.6.
    #[test]
    fn what_images_share_stays_and_does_not_count() {
        let mut records = [record("shared", &[], 1), record("internal", &[], 1), record("own", &[], 1)];
        records[0].shared = true;
        records[1].kind = Kind::Internal;
        assert_eq!(planned(&records, &Policy::default()), "own");
        assert_eq!(planned(&records, &Policy { all: true, ..Policy::default() }), "shared internal own");
        let caps = Caps { max_used: 20, ..Caps::default() };
        assert_eq!(planned(&records, &Policy { caps, ..Policy::default() }), "");
        assert_eq!(planned(&records, &Policy { caps, all: true, ..Policy::default() }), "shared");
    }

    /// R7.7.4.
    #[test]
    fn caps() {
        let caps = |reserved, max_used, min_free| Caps { reserved, max_used, min_free };
        for (caps, used, free, keep) in [
            (caps(0, 0, 0), 100, 5, None),
            (caps(0, 60, 0), 100, 5, Some(60)),
            (caps(0, 60, 10), 100, 20, Some(60)),
            (caps(0, 60, 70), 100, 20, Some(50)),
            (caps(55, 60, 70), 100, 20, Some(55)),
            (caps(0, 0, 30), 100, 20, Some(90)),
            (caps(0, 0, 30), 100, 40, Some(100)),
            (caps(0, 0, 300), 100, 20, Some(0)),
            (caps(30, 0, 0), 100, 20, Some(30)),
        ] {
            assert_eq!(caps.keep(used, free), keep, "{caps:?}");
        }
    }

    /// R7.7.3.
    #[test]
    fn default_caps() {
        let caps = |disk: u64| Budget::default().caps(disk);
        let gigabytes = |reserved: u64, max_used: u64, min_free: u64| Caps {
            reserved: reserved * GIGABYTE,
            max_used: max_used * GIGABYTE,
            min_free: min_free * GIGABYTE,
        };
        assert_eq!(caps(50 * GIGABYTE), gigabytes(5, 40, 10));
        assert_eq!(caps(1000 * GIGABYTE), gigabytes(10, 100, 200));
        let little = Budget { max_used: Some(Space::Bytes(GIGABYTE)), ..Budget::default() };
        assert_eq!(little.caps(50 * GIGABYTE), gigabytes(1, 1, 10));
    }

    /// R7.7.2.
    #[test]
    fn what_is_easily_made_again_goes_first() {
        let caps = Caps { max_used: 100 * GIGABYTE, ..Caps::default() };
        let mut records = [record("step", &[], 1), record("mount", &[], 1), record("used mount", &[], 49 * HOUR)];
        records[1].kind = Kind::CacheMount;
        records[2].kind = Kind::CacheMount;
        let [first, second, ..] = Policy::automatic(caps);
        let plan = |policy: &Policy, records: &[CacheRecord]| policy.plan(records, 0, 50 * HOUR, 9);
        assert_eq!(plan(&first, &records), [0; 0], "there is room");
        records[0].size = GIGABYTE;
        assert_eq!(plan(&first, &records), [1]);
        assert_eq!(plan(&second, &records), [0; 0]);
    }

    #[test]
    fn spaces() {
        let bytes = |text: &str| text.parse::<Space>();
        assert_eq!(bytes("10GB"), Ok(Space::Bytes(10 << 30)));
        assert_eq!(bytes("512mb"), Ok(Space::Bytes(512 << 20)));
        assert_eq!(bytes("1.5g"), Ok(Space::Bytes(3 << 29)));
        assert_eq!(bytes("0"), Ok(Space::Bytes(0)));
        assert_eq!(bytes("20%"), Ok(Space::Percent(20)));
        assert_eq!(Space::Percent(20).of(500), 100);
        for text in ["", "ten", "10XB", "-1", "101%", "%", "1.2.3g"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
