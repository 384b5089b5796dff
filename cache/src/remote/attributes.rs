//! The attributes of `--cache-from` and `--cache-to`: each kind of cache takes those that it knows, and the rest is a mistake.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Attributes that nobody has taken yet.
#[derive(Clone, Default, PartialEq)]
pub struct Attributes(BTreeMap<String, String>);

/// Names only: values may be secrets.
impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Attributes {
    pub fn new(attributes: impl IntoIterator<Item = (String, String)>) -> Self {
        Attributes(attributes.into_iter().collect())
    }

    /// The value of an attribute; an empty one counts as none.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    /// The value of an attribute that is true or false, as Go's `strconv.ParseBool` reads it.
    pub fn take_flag(&mut self, name: &str) -> Result<Option<bool>, String> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(format!("invalid {name} {value:?}: expected true or false")),
        }
    }

    /// The value of an attribute that is a time: `90s`, `1h30m`.
    pub fn take_duration(&mut self, name: &str) -> Result<Option<Duration>, String> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let duration = parse_duration(&value);
        duration.map(Some).ok_or_else(|| format!("invalid {name} {value:?}: expected a time such as 90s, 10m or 1h30m"))
    }

    /// The value of an attribute that cannot be left out.
    pub fn require(&mut self, name: &str) -> Result<String, String> {
        self.take(name).ok_or_else(|| format!("{name} is required"))
    }

    /// Ends the taking: refuses what is left.
    pub fn finish(self) -> Result<(), String> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("there is no attribute {name:?}")),
        }
    }
}

/// As Go's `time.ParseDuration`, without signs.
fn parse_duration(text: &str) -> Option<Duration> {
    let (mut seconds, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let scale = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds) in [("90s", 90.0), ("1h30m", 5400.0), ("1.5m", 90.0), ("250ms", 0.25), ("0s", 0.0)] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "1", "m", "1x", "-1s", "1s2", "1e9999h", "99999999999999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn what_nobody_takes_is_a_mistake() {
        let pairs = [("ref", "a"), ("tag", ""), ("reset", "T"), ("other", "x")];
        let mut attributes = Attributes::new(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(attributes.require("ref").as_deref(), Ok("a"));
        assert_eq!(attributes.take("tag"), None);
        assert_eq!(attributes.take_flag("reset"), Ok(Some(true)));
        assert_eq!(attributes.require("dest"), Err("dest is required".into()));
        assert_eq!(attributes.clone().finish(), Err("there is no attribute \"other\"".into()));
        assert!(attributes.take_flag("other").is_err());
        assert_eq!(attributes.finish(), Ok(()));
    }
}
