//! The flags that limit what steps and containers may use up, as docker spells them.

use crate::error::{CliError, Result};
use clap::Args;
use executor::sandbox::{Limits, Resources, Rlimit, RlimitName};
use std::time::Duration;

#[derive(Args, Debug, Default)]
pub struct LimitArgs {
    /// Limit memory, such as 512m
    #[arg(short, long, value_name = "BYTES", help_heading = "Limits")]
    pub memory: Option<String>,

    /// Limit memory and swap together; -1 for any amount of swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, help_heading = "Limits")]
    pub memory_swap: Option<String>,

    /// Limit processor time: microseconds in each period
    #[arg(long, value_name = "MICROSECONDS", help_heading = "Limits")]
    pub cpu_quota: Option<u64>,

    /// The period of --cpu-quota (default: 100000)
    #[arg(long, value_name = "MICROSECONDS", help_heading = "Limits")]
    pub cpu_period: Option<u64>,

    /// Weight among others that want the processors; 1024 is the normal one
    #[arg(short, long, value_name = "WEIGHT", help_heading = "Limits")]
    pub cpu_shares: Option<u64>,

    /// Processors that may be used, such as 0-2,5
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    pub cpuset_cpus: Option<String>,

    /// Memory nodes that may be used
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    pub cpuset_mems: Option<String>,

    /// Limit the number of processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Limits")]
    pub pids_limit: Option<i64>,

    /// The control group in which those of the limits are made
    #[arg(long, value_name = "GROUP", help_heading = "Limits")]
    pub cgroup_parent: Option<String>,

    /// Limit each process, such as nofile=1024:2048; -1 for no limit
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", help_heading = "Limits")]
    pub ulimits: Vec<String>,

    /// Size of /dev/shm (default: 64m)
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub shm_size: Option<String>,
}

impl LimitArgs {
    pub fn limits(&self) -> Result<Limits> {
        let positive = |flag: &str, given: &Option<String>| {
            let bytes =
                given.as_deref().map(|text| bytes(text).ok_or_else(|| invalid_bytes(flag, text))).transpose()?;
            Ok::<_, CliError>(bytes.filter(|bytes| *bytes > 0))
        };
        let memory = positive("--memory", &self.memory)?;
        let memory_swap = match self.memory_swap.as_deref() {
            None => None,
            Some("-1") => Some(-1),
            Some(text) => {
                let total = bytes(text).and_then(|bytes| i64::try_from(bytes).ok());
                Some(total.ok_or_else(|| invalid_bytes("--memory-swap", text))?)
            }
        };
        if let (Some(total), memory) = (memory_swap.filter(|swap| *swap > 0), memory) {
            match memory {
                None => {
                    return Err(CliError::Usage(
                        "--memory-swap needs --memory: it is the sum of memory and swap".into(),
                    ));
                }
                Some(memory) if total.unsigned_abs() < memory => {
                    return Err(CliError::Usage(
                        "--memory-swap is smaller than --memory: it is the sum of memory and swap".into(),
                    ));
                }
                Some(_) => {}
            }
        }
        let list = |flag: &str, given: &Option<String>| match given {
            Some(text) if !is_list(text) => {
                Err(CliError::Usage(format!("invalid {flag} {text:?}: expected numbers and ranges, such as 0-2,5")))
            }
            given => Ok(given.clone()),
        };
        if let Some(parent) = &self.cgroup_parent
            && parent.split('/').any(|part| part == "..")
        {
            return Err(CliError::Usage(format!("invalid --cgroup-parent {parent:?}: it may not hold `..`")));
        }
        Ok(Limits {
            resources: Resources {
                memory,
                memory_swap,
                cpu_quota: self.cpu_quota,
                cpu_period: self.cpu_period,
                cpu_shares: self.cpu_shares.filter(|shares| *shares > 0),
                cpuset_cpus: list("--cpuset-cpus", &self.cpuset_cpus)?,
                cpuset_mems: list("--cpuset-mems", &self.cpuset_mems)?,
                pids: self.pids_limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0),
                parent: self.cgroup_parent.clone(),
            },
            rlimits: self.ulimits.iter().map(|text| rlimit(text)).collect::<Result<_>>()?,
            shm_size: positive("--shm-size", &self.shm_size)?,
        })
    }
}

fn invalid_bytes(flag: &str, text: &str) -> CliError {
    CliError::Usage(format!(
        "invalid {flag} {text:?}: expected bytes, with k, m, g or t for the powers of 1024, such as 512m"
    ))
}

/// A number with a unit, as docker's `units.RAMInBytes` takes it: `512m`, `1.5 GiB`, `64kb`.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let factor = 1_u64 << shift;
    match number.parse::<u64>() {
        Ok(number) => number.checked_mul(factor),
        Err(_) => {
            let number: f64 = number.parse().ok()?;
            let bytes = number * factor as f64;
            (bytes.is_finite() && bytes < u64::MAX as f64).then_some(bytes as u64)
        }
    }
}

fn is_list(text: &str) -> bool {
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    text.split(',').all(|part| match part.split_once('-') {
        Some((first, last)) => is_number(first) && is_number(last),
        None => is_number(part),
    })
}

/// `NAME=SOFT[:HARD]`.
fn rlimit(text: &str) -> Result<Rlimit> {
    let invalid = |why: &str| CliError::Usage(format!("invalid --ulimit {text:?}: {why}"));
    let (name, values) = text.split_once('=').ok_or_else(|| invalid("expected NAME=SOFT[:HARD]"))?;
    let Some((_, resource)) = RlimitName::ALL.iter().find(|(known, _)| *known == name) else {
        let known = RlimitName::ALL.map(|(known, _)| known);
        let hint = parser::suggest::closest(known, name).map(|name| format!("did you mean {name}?"));
        return Err(invalid(&hint.unwrap_or_else(|| format!("the limits are {}", known.join(", ")))));
    };
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        text => text.parse().map(Some).map_err(|_| invalid("a limit is a number, or -1 for none")),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (value(soft)?, value(hard)?),
        None => (value(values)?, value(values)?),
    };
    let is_above = match (soft, hard) {
        (Some(soft), Some(hard)) => soft > hard,
        (None, Some(_)) => true,
        (_, None) => false,
    };
    if is_above {
        return Err(invalid("the soft limit is above the hard one"));
    }
    Ok(Rlimit { resource: *resource, soft, hard })
}

/// `90`, `90s`, `15m`, `1h30m`: as Go writes durations, and plain seconds.
pub fn duration(text: &str) -> std::result::Result<Duration, String> {
    let invalid = || format!("expected a time such as 90s, 15m or 1h30m, not {text:?}");
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let factor = match &rest[digits..unit_end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(invalid()),
        };
        total += number * factor;
        rest = &rest[unit_end..];
    }
    match Duration::try_from_secs_f64(total) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_taken_as_docker_takes_them() {
        let cases =
            [("512m", 512 << 20), ("1g", 1 << 30), ("64kb", 64 << 10), ("1.5GiB", 3 << 29), ("7", 7), ("2 M", 2 << 20)];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["", "m", "1x", "-1", "99999999999999999999", "99999999999t", "1.2.3g"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn ulimits() {
        let of =
            |text: &str| rlimit(text).map(|limit| (limit.soft, limit.hard)).map_err(|error| error.message().to_owned());
        assert_eq!(of("nofile=1024:2048"), Ok((Some(1024), Some(2048))));
        assert_eq!(of("nproc=7"), Ok((Some(7), Some(7))));
        assert_eq!(of("core=-1"), Ok((None, None)));
        assert!(of("nofiles=1").unwrap_err().contains("did you mean nofile?"));
        assert!(of("nofile=2:1").unwrap_err().contains("above the hard one"));
        assert!(of("nofile").unwrap_err().contains("NAME=SOFT"));
        assert!(of("nofile=x").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        for text in ["", "s", "1d", "0s", "1h30", "-1s", "999999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn swap_is_a_sum() {
        let with = |memory: &str, swap: &str| LimitArgs {
            memory: Some(memory.into()),
            memory_swap: Some(swap.into()),
            ..LimitArgs::default()
        };
        assert!(with("1g", "512m").limits().is_err());
        assert_eq!(with("1g", "-1").limits().unwrap().resources.memory_swap, Some(-1));
        assert!(LimitArgs { cpuset_cpus: Some("0-".into()), ..LimitArgs::default() }.limits().is_err());
    }
}
