//! Which records of the cache are meant (R7.7.9): `key=value`, `key!=value`, `key~=regex`, or `key` alone.

use crate::inventory::CacheRecord;
use crate::usage::Kind;
use regex::Regex;
use std::fmt;

/// One condition on a record.
#[derive(Clone, Debug)]
pub struct Filter {
    key: Key,
    test: Test,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Key {
    Id,
    Parents,
    Type,
    Description,
    InUse,
    Mutable,
    Immutable,
    Shared,
    Private,
}

#[derive(Clone, Debug)]
enum Test {
    /// There is a value.
    Is,
    Equals(String),
    Differs(String),
    Matches(Regex),
}

const KEYS: [(&str, Key); 10] = [
    ("id", Key::Id),
    ("parents", Key::Parents),
    ("parent", Key::Parents),
    ("type", Key::Type),
    ("description", Key::Description),
    ("inuse", Key::InUse),
    ("mutable", Key::Mutable),
    ("immutable", Key::Immutable),
    ("shared", Key::Shared),
    ("private", Key::Private),
];

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("invalid filter {text:?}: {problem}")]
pub struct InvalidFilter {
    pub text: String,
    pub problem: String,
}

impl Filter {
    /// `key`, with an operator and a value, or without. Times (`until`) are not for here: they are a span, not a property of a record.
    pub fn parse(text: &str) -> Result<Filter, InvalidFilter> {
        let invalid = |problem: String| InvalidFilter { text: text.to_owned(), problem };
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let Some((_, key)) = KEYS.iter().find(|(known, _)| *known == name) else {
            let known = KEYS.iter().map(|(known, _)| *known).filter(|known| *known != "parent").chain(["until"]);
            let near = known.clone().map(|known| (strsim::jaro_winkler(name, known), known));
            let near = near.filter(|(likeness, _)| *likeness > 0.75).max_by(|a, b| a.0.total_cmp(&b.0));
            return Err(invalid(match near {
                Some((_, known)) => format!("there is no {name:?}; did you mean {known}?"),
                None => format!("there is no {name:?}; there are {}", known.collect::<Vec<_>>().join(", ")),
            }));
        };
        let test = if rest.is_empty() {
            Test::Is
        } else if let Some(value) = rest.strip_prefix("~=") {
            let regex =
                Regex::new(value).map_err(|error| invalid(format!("{value:?} is no regular expression: {error}")))?;
            Test::Matches(regex)
        } else if let Some(value) = rest.strip_prefix("!=") {
            Test::Differs(value.to_owned())
        } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
            Test::Equals(value.to_owned())
        } else {
            return Err(invalid("expected key, key=value, key!=value or key~=regex".into()));
        };
        let filter = Filter { key: *key, test };
        filter.check_value().map_err(invalid)?;
        Ok(filter)
    }

    /// A value that no record can have is a mistake.
    fn check_value(&self) -> Result<(), String> {
        let (Test::Equals(value) | Test::Differs(value)) = &self.test else { return Ok(()) };
        match self.key {
            Key::Type if value != "frontend" && value.parse::<Kind>().is_err() => {
                let near = Kind::ALL.into_iter().map(|kind| (strsim::jaro_winkler(value, kind.name()), kind));
                let near = near.filter(|(likeness, _)| *likeness > 0.6).max_by(|a, b| a.0.total_cmp(&b.0));
                let all = Kind::ALL.map(Kind::name).join(", ");
                Err(match near {
                    Some((_, kind)) => format!("there is no type {value:?}; did you mean {kind}?"),
                    None => format!("there is no type {value:?}; there are {all}"),
                })
            }
            Key::InUse | Key::Mutable | Key::Immutable | Key::Shared | Key::Private
                if value != "true" && value != "false" =>
            {
                Err(format!("expected true or false, not {value:?}"))
            }
            _ => Ok(()),
        }
    }

    pub fn matches(&self, record: &CacheRecord) -> bool {
        let flag = |is_so: bool| self.test.holds_flag(is_so);
        match self.key {
            // As buildx has it, the first digits are enough.
            Key::Id => match &self.test {
                Test::Equals(value) => is_id(&record.id, value),
                Test::Differs(value) => !is_id(&record.id, value),
                test => test.holds(&record.id),
            },
            Key::Parents => match &self.test {
                Test::Differs(value) => !record.lowers.iter().any(|lower| lower == value),
                test => record.lowers.iter().any(|lower| test.holds(lower)),
            },
            Key::Type => self.test.holds(record.kind.name()),
            Key::Description => self.test.holds(&record.description),
            Key::InUse => flag(record.in_use),
            Key::Mutable => flag(record.is_mutable()),
            Key::Immutable => flag(!record.is_mutable()),
            Key::Shared => flag(record.shared),
            Key::Private => flag(!record.shared),
        }
    }
}

/// The id, or how it begins, with or without what says of what it is the id.
fn is_id(id: &str, digits: &str) -> bool {
    let bare = id.split_once([':', '-']).map_or(id, |(_, bare)| bare);
    !digits.is_empty() && (id.starts_with(digits) || bare.starts_with(digits))
}

impl Test {
    fn holds(&self, found: &str) -> bool {
        match self {
            Test::Is => !found.is_empty(),
            Test::Equals(value) => found == value,
            Test::Differs(value) => found != value,
            Test::Matches(regex) => regex.is_match(found),
        }
    }

    fn holds_flag(&self, is_so: bool) -> bool {
        match self {
            Test::Is => is_so,
            test => test.holds(if is_so { "true" } else { "false" }),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = KEYS.iter().find(|(_, key)| *key == self.key).map_or("", |(name, _)| name);
        match &self.test {
            Test::Is => f.write_str(key),
            Test::Equals(value) => write!(f, "{key}={value}"),
            Test::Differs(value) => write!(f, "{key}!={value}"),
            Test::Matches(regex) => write!(f, "{key}~={regex}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> CacheRecord {
        CacheRecord {
            id: "layer-12ab".into(),
            kind: Kind::CacheMount,
            lowers: vec!["chain-7".into(), "layer-9".into()],
            size: 1,
            created: 0,
            last_used: 0,
            uses: 0,
            description: "RUN make".into(),
            shared: true,
            in_use: false,
        }
    }

    /// R7.7.9.
    #[test]
    fn records_are_matched() {
        let is = |text: &str| Filter::parse(text).unwrap().matches(&record());
        for text in [
            "id=12a",
            "id=layer-12ab",
            "id~=^layer",
            "id!=13",
            "parents=chain-7",
            "parents~=9$",
            "parents!=layer-8",
            "type=exec.cachemount",
            "type==exec.cachemount",
            "type!=regular",
            "description~=^RUN",
            "shared",
            "immutable",
            "shared=true",
            "inuse=false",
            "inuse!=true",
            "private=false",
            "description",
        ] {
            assert!(is(text), "{text}");
        }
        for text in
            ["id=2ab", "id!=12", "parents=layer-8", "parents!=layer-9", "inuse", "private", "mutable", "shared=false"]
        {
            assert!(!is(text), "{text}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        let problem = |text: &str| Filter::parse(text).unwrap_err().problem;
        assert!(problem("typ=regular").contains("did you mean type?"));
        assert!(problem("zzz").contains("there are id, parents, type"));
        assert!(problem("type=cachemount").contains("did you mean exec.cachemount?"));
        assert!(problem("inuse=yes").contains("true or false"));
        assert!(problem("id~=(").contains("regular expression"));
        assert!(problem("id:x").contains("expected key"));
    }
}
