//! `RUN --mount` values (D17): one CSV record of `key=value` fields and bare flags, evaluated from left to right.

use crate::expand::ExpandError;
use crate::suggest;

/// A mount, by its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Mount {
    Bind(Bind),
    Cache(Cache),
    Tmpfs(Tmpfs),
    Secret(Secret),
    Ssh(Ssh),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Bind {
    pub target: Option<String>,
    pub from: Option<String>,
    pub source: Option<String>,
    pub readonly: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cache {
    pub target: Option<String>,
    pub id: Option<String>,
    pub from: Option<String>,
    pub source: Option<String>,
    pub sharing: Sharing,
    pub readonly: bool,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    #[default]
    Shared,
    Private,
    Locked,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tmpfs {
    pub target: Option<String>,
    pub readonly: bool,
    /// Bytes.
    pub size: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Secret {
    pub target: Option<String>,
    pub id: Option<String>,
    pub source: Option<String>,
    pub env: Option<String>,
    pub required: bool,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Ssh {
    pub target: Option<String>,
    pub id: Option<String>,
    pub required: bool,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    #[error("{0}")]
    Invalid(String),
    #[error("{message} (did you mean {suggestion}?)")]
    DidYouMean { message: String, suggestion: String },
    #[error("failed to process mount option {value:?}: {error}")]
    Expand { value: String, error: ExpandError },
}

const KEYS: [&str; 18] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
];
const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

/// Fields as given, before it is known which type they belong to.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    readonly: Option<bool>,
    required: bool,
    size: Option<u64>,
    id: Option<String>,
    sharing: Option<Sharing>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    env: Option<String>,
}

impl Mount {
    /// Parses a flag's value; `expand` gives each option's value its final form (D17.5).
    pub fn parse(raw: &str, expand: &mut dyn FnMut(&str) -> Result<String, ExpandError>) -> Result<Mount, MountError> {
        let mut fields = Fields::default();
        for field in csv(raw)? {
            match field.split_once('=') {
                None => fields.flag(&field)?,
                Some((key, value)) => {
                    let key = key.to_lowercase();
                    if key == "from" && value.trim_end_matches('$').contains('$') {
                        let message = "'from' doesn't support variable expansion, define alias stage instead";
                        return invalid(message);
                    }
                    let value = if key == "from" {
                        value.to_owned()
                    } else {
                        expand(value).map_err(|error| MountError::Expand { value: value.to_owned(), error })?
                    };
                    fields.set(&key, value, &field)?;
                }
            }
        }
        fields.finish()
    }

    /// As written.
    pub fn target(&self) -> Option<&str> {
        let target = match self {
            Mount::Bind(bind) => &bind.target,
            Mount::Cache(cache) => &cache.target,
            Mount::Tmpfs(tmpfs) => &tmpfs.target,
            Mount::Secret(secret) => &secret.target,
            Mount::Ssh(ssh) => &ssh.target,
        };
        target.as_deref()
    }

    /// The stage, context or image that it takes files from.
    pub fn from(&self) -> Option<&str> {
        match self {
            Mount::Bind(bind) => bind.from.as_deref(),
            Mount::Cache(cache) => cache.from.as_deref(),
            _ => None,
        }
    }

    pub fn is_readonly(&self) -> bool {
        match self {
            Mount::Bind(bind) => bind.readonly,
            Mount::Cache(cache) => cache.readonly,
            Mount::Tmpfs(tmpfs) => tmpfs.readonly,
            Mount::Secret(_) | Mount::Ssh(_) => true,
        }
    }
}

impl Fields {
    fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("bind")
    }

    fn flag(&mut self, field: &str) -> Result<(), MountError> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => self.readonly = Some(true),
            "readwrite" | "rw" => self.readonly = Some(false),
            "required" => return self.set("required", "true".into(), field),
            _ => return invalid(format!("invalid field '{field}' must be a key=value pair")),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: String, field: &str) -> Result<(), MountError> {
        match key {
            "type" => {
                let kind = value.to_lowercase();
                if !TYPES.contains(&kind.as_str()) {
                    return unknown(format!("unsupported mount type {value:?}"), &TYPES, &kind);
                }
                self.kind = Some(kind);
            }
            "from" => self.from = Some(value),
            "source" | "src" => self.source = Some(value),
            "target" | "dst" | "destination" => self.target = Some(value),
            "readonly" | "ro" => self.readonly = Some(boolean(key, &value)?),
            "readwrite" | "rw" => self.readonly = Some(!boolean(key, &value)?),
            // These two look at the type seen so far (D17.4).
            "required" if matches!(self.kind(), "secret" | "ssh") => self.required = boolean(key, &value)?,
            "size" if self.kind() == "tmpfs" => self.size = Some(size(&value)?),
            "required" | "size" => {
                return invalid(format!("unexpected key '{key}' for mount type '{}'", self.kind()));
            }
            "id" => self.id = Some(value),
            "sharing" => {
                self.sharing = Some(match value.to_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    other => {
                        let message = format!("unsupported sharing value {value:?}");
                        return unknown(message, &["shared", "private", "locked"], other);
                    }
                });
            }
            "mode" => self.mode = Some(number(key, &value, 8)?),
            "uid" => self.uid = Some(number(key, &value, 10)?),
            "gid" => self.gid = Some(number(key, &value, 10)?),
            "env" => self.env = Some(value),
            _ => return unknown(format!("unexpected key '{key}' in '{field}'"), &KEYS, key),
        }
        Ok(())
    }

    fn finish(self) -> Result<Mount, MountError> {
        let kind = self.kind().to_owned();
        if matches!(kind.as_str(), "bind" | "tmpfs") {
            for (key, given) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
                if given.is_some() {
                    return invalid(format!("{key} not allowed for {kind:?} type mounts"));
                }
            }
        }
        if kind != "cache" && self.sharing.is_some() {
            return invalid(format!("invalid cache sharing set for {kind} mount"));
        }
        if kind == "secret" && self.from.is_some() {
            return invalid("secret mount should not have a from");
        }
        Ok(match kind.as_str() {
            "cache" => Mount::Cache(Cache {
                target: self.target,
                id: self.id,
                from: self.from,
                source: self.source,
                sharing: self.sharing.unwrap_or_default(),
                readonly: self.readonly.unwrap_or(false),
                mode: self.mode,
                uid: self.uid,
                gid: self.gid,
            }),
            "tmpfs" => {
                Mount::Tmpfs(Tmpfs { target: self.target, readonly: self.readonly.unwrap_or(false), size: self.size })
            }
            "secret" => {
                if self.id.is_some() && self.source.is_some() {
                    return invalid("both source and id can't be set");
                }
                if self.id.is_none() && self.source.is_none() && self.target.is_none() {
                    return invalid("invalid secret mount. one of source, target required");
                }
                Mount::Secret(Secret {
                    target: self.target,
                    id: self.id,
                    source: self.source,
                    env: self.env,
                    required: self.required,
                    mode: self.mode,
                    uid: self.uid,
                    gid: self.gid,
                })
            }
            "ssh" => {
                if self.source.is_some() {
                    return invalid("ssh does not support source");
                }
                Mount::Ssh(Ssh {
                    target: self.target,
                    id: self.id,
                    required: self.required,
                    mode: self.mode,
                    uid: self.uid,
                    gid: self.gid,
                })
            }
            _ => Mount::Bind(Bind {
                target: self.target,
                from: self.from,
                source: self.source,
                readonly: self.readonly.unwrap_or(true),
            }),
        })
    }
}

fn invalid<T>(message: impl Into<String>) -> Result<T, MountError> {
    Err(MountError::Invalid(message.into()))
}

fn unknown<T>(message: String, candidates: &[&str], value: &str) -> Result<T, MountError> {
    match suggest::closest(candidates.iter().copied(), value) {
        Some(suggestion) => Err(MountError::DidYouMean { message, suggestion }),
        None => invalid(message),
    }
}

fn boolean(key: &str, value: &str) -> Result<bool, MountError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => invalid(format!("invalid value for {key}: {value}")),
    }
}

fn number(key: &str, value: &str, radix: u32) -> Result<u32, MountError> {
    match u32::from_str_radix(value, radix) {
        Ok(number) => Ok(number),
        Err(_) => invalid(format!("invalid value {value} for {key}")),
    }
}

/// `64m`, `1g`, `512`: factors of 1024, an optional `b` or `ib` behind them.
fn size(value: &str) -> Result<u64, MountError> {
    let lower = value.trim().to_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match lower[digits.len()..].trim_end_matches('b').trim_end_matches('i') {
        "" => Some(0),
        "k" => Some(10),
        "m" => Some(20),
        "g" => Some(30),
        "t" => Some(40),
        _ => None,
    };
    let bytes = shift.and_then(|shift| digits.trim().parse::<u64>().ok()?.checked_mul(1 << shift));
    match bytes {
        Some(bytes) => Ok(bytes),
        None => invalid(format!("invalid value for size: {value}")),
    }
}

/// Splits a CSV record; a field in quotes may hold commas.
fn csv(record: &str) -> Result<Vec<String>, MountError> {
    let mut fields = Vec::new();
    let mut rest = record;
    loop {
        let field;
        match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut text = String::new();
                let mut after = quoted;
                loop {
                    let Some(end) = after.find('"') else {
                        return invalid(format!("invalid mount: unbalanced quote in {record}"));
                    };
                    text.push_str(&after[..end]);
                    after = &after[end + 1..];
                    match after.strip_prefix('"') {
                        Some(next) => {
                            text.push('"');
                            after = next;
                        }
                        None => break,
                    }
                }
                field = text;
                rest = after;
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return invalid(format!("invalid mount: bare quote in {record}"));
                }
                field = rest[..end].to_owned();
                rest = &rest[end..];
            }
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None if rest.is_empty() => return Ok(fields),
            None => return invalid(format!("invalid mount: text behind a quoted field in {record}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &str) -> Result<Mount, String> {
        Mount::parse(raw, &mut |text| Ok(text.replace("$V", "value"))).map_err(|error| error.to_string())
    }

    #[test]
    fn mounts_are_told_by_their_type() {
        assert_eq!(
            parse("target=/x,rw").unwrap(),
            Mount::Bind(Bind { target: Some("/x".into()), from: None, source: None, readonly: false })
        );
        assert_eq!(
            parse("type=tmpfs,dst=/t,size=64m").unwrap(),
            Mount::Tmpfs(Tmpfs { target: Some("/t".into()), readonly: false, size: Some(64 << 20) })
        );
        let Mount::Cache(cache) = parse("type=CACHE,target=/c/$V,sharing=locked,mode=0700,uid=5").unwrap() else {
            panic!("not a cache mount")
        };
        assert_eq!(
            (cache.target.as_deref(), cache.sharing, cache.mode),
            (Some("/c/value"), Sharing::Locked, Some(0o700))
        );
        let Mount::Bind(bind) = parse("type=bind,\"source=a,b\",target=/x").unwrap() else {
            panic!("not a bind mount")
        };
        assert_eq!(bind.source.as_deref(), Some("a,b"));
    }

    #[test]
    fn wrong_options_are_refused() {
        for (raw, message) in [
            ("type=tmp", "unsupported mount type \"tmp\" (did you mean tmpfs?)"),
            ("typ=bind", "unexpected key 'typ' in 'typ=bind' (did you mean type?)"),
            ("size=1m,type=tmpfs,target=/t", "unexpected key 'size' for mount type 'bind'"),
            ("nonsense", "invalid field 'nonsense' must be a key=value pair"),
            ("target=/x,mode=755", "mode not allowed for \"bind\" type mounts"),
            ("target=/x,sharing=shared", "invalid cache sharing set for bind mount"),
            ("from=$V,target=/x", "'from' doesn't support variable expansion, define alias stage instead"),
            ("type=secret", "invalid secret mount. one of source, target required"),
        ] {
            assert_eq!(parse(raw), Err(message.to_owned()), "{raw}");
        }
    }
}
