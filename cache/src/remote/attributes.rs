//! The attributes of `--cache-from` and `--cache-to`: each kind of cache takes those that it knows, and the rest is a mistake.

use std::collections::BTreeMap;

/// Attributes that nobody has taken yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes(BTreeMap<String, String>);

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

#[cfg(test)]
mod tests {
    use super::*;

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
