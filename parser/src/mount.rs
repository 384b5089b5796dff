//! `RUN --mount` (D17): one CSV record of options, evaluated from left to right.

pub mod csv;
mod size;

use crate::ast::Word;
use crate::diagnostic::Diagnostic;
use crate::error_rule::ErrorRule;
use crate::expand::ExpandError;
use crate::quote::quoted;
use crate::span::Span;
use crate::suggest;

/// A mount of a RUN. Targets and sources are as written: joining with WORKDIR, defaults that depend on it and looking up
/// `from` are the caller's (D17.9, D17.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// A path of a stage, image or context.
    Bind { target: Option<String>, from: Option<String>, source: Option<String>, readonly: bool },
    /// A directory that outlives the build.
    Cache {
        target: Option<String>,
        id: Option<String>,
        sharing: Sharing,
        from: Option<String>,
        source: Option<String>,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        readonly: bool,
    },
    /// `size` in bytes.
    Tmpfs { target: Option<String>, size: Option<u64>, readonly: bool },
    /// A secret, as a file, as an environment variable, or both.
    Secret {
        /// From `id`, else `source`, else the base name of the target.
        id: String,
        target: Option<String>,
        env: Option<String>,
        required: bool,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    /// The socket of an SSH agent.
    Ssh {
        id: Option<String>,
        target: Option<String>,
        required: bool,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    },
}

/// Who may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    #[default]
    Shared,
    Private,
    Locked,
}

/// Why a `--mount` is wrong. `Display` is BuildKit's text, without the suggestion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    #[error("failed to parse csv mounts: {0}")]
    Csv(&'static str),
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    FromVariable,
    #[error("unsupported mount type {}", quoted(.value))]
    Type { value: String, suggestion: Option<String> },
    #[error("unsupported sharing value {}", quoted(.value))]
    Sharing { value: String, suggestion: Option<String> },
    #[error("unexpected key '{key}' in '{field}'")]
    Key { key: String, field: String, suggestion: Option<String> },
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyForType { key: String, kind: &'static str },
    #[error("invalid field '{0}' must be a key=value pair")]
    NoValue(String),
    #[error("invalid value for {key}: {value}")]
    Value { key: String, value: String },
    #[error("invalid value {value} for {key}")]
    Number { key: &'static str, value: String },
    #[error("{key} not allowed for \"{kind}\" type mounts")]
    NotAllowed { key: &'static str, kind: &'static str },
    #[error("secret mount should not have a from")]
    SecretFrom,
    #[error("secret mount should not define sharing")]
    SecretSharing,
    #[error("invalid secret mount. one of source, target required")]
    SecretWithoutId,
    #[error("both source and id can't be set")]
    SecretSourceAndId,
    #[error("invalid cache sharing set for {0} mount")]
    SharingForType(&'static str),
    #[error("ssh does not support source")]
    SshSource,
    #[error(transparent)]
    Expand(#[from] ExpandError),
}

impl MountError {
    /// The error about a `--mount` as written.
    pub fn diagnostic(&self, flag: &Word) -> Diagnostic {
        // Quotes that the flag has lost would move everything behind them.
        let is_verbatim = flag.span.end - flag.span.start == flag.value.len();
        let part = self.part().filter(|_| is_verbatim);
        let focus = part
            .and_then(|part| flag.value.find(part).map(|at| (at, part)))
            .map_or(flag.span, |(at, part)| Span::new(flag.span.start + at, flag.span.start + at + part.len()));
        Diagnostic::error(ErrorRule::InvalidMount, self.to_string(), flag.span)
            .with_suggestion(self.suggestion().map(str::to_owned))
            .with_focus(focus)
    }

    /// What of the options is wrong.
    fn part(&self) -> Option<&str> {
        let part = match self {
            MountError::Type { value, .. } | MountError::Sharing { value, .. } => value.as_str(),
            MountError::Key { key, .. } | MountError::KeyForType { key, .. } => key,
            MountError::NoValue(field) => field,
            MountError::Value { value, .. } | MountError::Number { value, .. } => value,
            MountError::NotAllowed { key, .. } => key,
            _ => "",
        };
        (!part.is_empty()).then_some(part)
    }

    /// The word that was probably meant.
    pub fn suggestion(&self) -> Option<&str> {
        match self {
            MountError::Type { suggestion, .. }
            | MountError::Sharing { suggestion, .. }
            | MountError::Key { suggestion, .. } => suggestion.as_deref(),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

const KINDS: [(&str, Kind); 5] = [
    ("bind", Kind::Bind),
    ("cache", Kind::Cache),
    ("tmpfs", Kind::Tmpfs),
    ("secret", Kind::Secret),
    ("ssh", Kind::Ssh),
];
const SHARING: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

impl Kind {
    fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("bind", |(name, _)| name)
    }
}

/// The options as they come, before the type says which of them matter.
#[derive(Debug, Default)]
struct Options {
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    id: Option<String>,
    env: Option<String>,
    readonly: Option<bool>,
    required: bool,
    size: Option<u64>,
    sharing: Option<Sharing>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Mount {
    /// What is wrong with a mount before any expansion: the CSV, and variables in `from` (D17.5, D17.6).
    pub(crate) fn check(raw: &str) -> Result<(), MountError> {
        for field in csv::record(raw).map_err(MountError::Csv)? {
            if let Some((key, value)) = field.split_once('=')
                && key.eq_ignore_ascii_case("from")
                && value.split_once('$').is_some_and(|(_, after)| !after.is_empty())
            {
                return Err(MountError::FromVariable);
            }
        }
        Ok(())
    }

    /// Parses the value of a `--mount`; `expand` is applied to the value of each option.
    pub fn parse(raw: &str, expand: &mut dyn FnMut(&str) -> Result<String, ExpandError>) -> Result<Mount, MountError> {
        Mount::check(raw)?;
        let mut kind = Kind::Bind;
        let mut options = Options::default();
        for field in csv::record(raw).map_err(MountError::Csv)? {
            let Some((key, value)) = field.split_once('=') else {
                options.set_bare(&field, kind)?;
                continue;
            };
            let key = key.to_lowercase();
            let value = expand(value)?;
            if key == "type" {
                kind = choose(&KINDS, &value)
                    .map_err(|suggestion| MountError::Type { value: value.clone(), suggestion })?;
            } else {
                options.set(&field, &key, value, kind)?;
            }
        }
        options.finish(kind)
    }

    pub fn target(&self) -> Option<&str> {
        match self {
            Mount::Bind { target, .. }
            | Mount::Cache { target, .. }
            | Mount::Tmpfs { target, .. }
            | Mount::Secret { target, .. }
            | Mount::Ssh { target, .. } => target.as_deref(),
        }
    }

    /// The stage, context or image that a bind or cache mount names.
    pub fn from(&self) -> Option<&str> {
        match self {
            Mount::Bind { from, .. } | Mount::Cache { from, .. } => from.as_deref(),
            _ => None,
        }
    }

    pub fn readonly(&self) -> bool {
        match self {
            Mount::Bind { readonly, .. } | Mount::Cache { readonly, .. } | Mount::Tmpfs { readonly, .. } => *readonly,
            Mount::Secret { .. } => true,
            // The socket of an agent (X2.50).
            Mount::Ssh { .. } => false,
        }
    }
}

impl Options {
    fn set_bare(&mut self, field: &str, kind: Kind) -> Result<(), MountError> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => self.readonly = Some(true),
            "readwrite" | "rw" => self.readonly = Some(false),
            key @ "required" => {
                allowed(key, kind, &[Kind::Secret, Kind::Ssh])?;
                self.required = true;
            }
            _ => return Err(MountError::NoValue(field.to_owned())),
        }
        Ok(())
    }

    fn set(&mut self, field: &str, key: &str, value: String, kind: Kind) -> Result<(), MountError> {
        match key {
            // Empty values are as good as none.
            "from" => self.from = non_empty(value),
            "source" | "src" => self.source = non_empty(value),
            "target" | "dst" | "destination" => self.target = non_empty(value),
            "id" => self.id = non_empty(value),
            "env" => self.env = non_empty(value),
            "readonly" | "ro" => self.readonly = Some(boolean(key, &value)?),
            "readwrite" | "rw" => self.readonly = Some(!boolean(key, &value)?),
            "required" => {
                allowed(key, kind, &[Kind::Secret, Kind::Ssh])?;
                self.required = boolean(key, &value)?;
            }
            "size" => {
                allowed(key, kind, &[Kind::Tmpfs])?;
                let size = size::parse(&value).ok_or_else(|| MountError::Value { key: key.to_owned(), value })?;
                self.size = Some(size);
            }
            "sharing" => {
                let sharing = choose(&SHARING, &value)
                    .map_err(|suggestion| MountError::Sharing { value: value.clone(), suggestion })?;
                self.sharing = Some(sharing);
            }
            "mode" => self.mode = Some(number("mode", &value, 8)?),
            "uid" => self.uid = Some(number("uid", &value, 10)?),
            "gid" => self.gid = Some(number("gid", &value, 10)?),
            _ => {
                let suggestion = suggest::closest(KEYS, key);
                return Err(MountError::Key { key: key.to_owned(), field: field.to_owned(), suggestion });
            }
        }
        Ok(())
    }

    fn finish(self, kind: Kind) -> Result<Mount, MountError> {
        let Options { from, source, target, id, env, readonly, required, size, sharing, mode, uid, gid } = self;
        if matches!(kind, Kind::Bind | Kind::Tmpfs) {
            let given = [("mode", mode.is_some()), ("uid", uid.is_some()), ("gid", gid.is_some())];
            if let Some((key, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
                return Err(MountError::NotAllowed { key, kind: kind.name() });
            }
        }
        if kind == Kind::Secret && from.is_some() {
            return Err(MountError::SecretFrom);
        }
        if kind == Kind::Secret && sharing.is_some() {
            return Err(MountError::SecretSharing);
        }
        if kind != Kind::Cache && sharing.is_some() {
            return Err(MountError::SharingForType(kind.name()));
        }
        Ok(match kind {
            Kind::Bind => Mount::Bind { target, from, source, readonly: readonly.unwrap_or(true) },
            Kind::Cache => Mount::Cache {
                target,
                id,
                sharing: sharing.unwrap_or_default(),
                from,
                source,
                mode,
                uid,
                gid,
                readonly: readonly.unwrap_or(false),
            },
            Kind::Tmpfs => Mount::Tmpfs { target, size, readonly: readonly.unwrap_or(false) },
            Kind::Secret => {
                let id = secret_id(id, source, target.as_deref())?;
                Mount::Secret { id, target, env, required, mode, uid, gid }
            }
            Kind::Ssh if source.is_some() => return Err(MountError::SshSource),
            Kind::Ssh => Mount::Ssh { id, target, required, mode, uid, gid },
        })
    }
}

fn secret_id(id: Option<String>, source: Option<String>, target: Option<&str>) -> Result<String, MountError> {
    match (id, source, target) {
        (Some(_), Some(_), _) => Err(MountError::SecretSourceAndId),
        (Some(id), None, _) | (None, Some(id), _) => Ok(id),
        (None, None, Some(target)) => Ok(crate::path::base(target).to_owned()),
        (None, None, None) => Err(MountError::SecretWithoutId),
    }
}

fn non_empty(value: String) -> Option<String> {
    (!value.is_empty()).then_some(value)
}

fn allowed(key: &str, kind: Kind, kinds: &[Kind]) -> Result<(), MountError> {
    if kinds.contains(&kind) {
        return Ok(());
    }
    Err(MountError::KeyForType { key: key.to_owned(), kind: kind.name() })
}

/// Finds a name in any case, or suggests one.
fn choose<T: Copy>(known: &[(&str, T)], value: &str) -> Result<T, Option<String>> {
    let name = value.to_lowercase();
    match known.iter().find(|(known, _)| *known == name) {
        Some((_, choice)) => Ok(*choice),
        None => Err(suggest::closest(known.iter().map(|(name, _)| name), value)),
    }
}

fn boolean(key: &str, value: &str) -> Result<bool, MountError> {
    crate::boolean::boolean(value).ok_or_else(|| MountError::Value { key: key.to_owned(), value: value.to_owned() })
}

fn number(key: &'static str, value: &str, radix: u32) -> Result<u32, MountError> {
    let parsed = value.bytes().all(|byte| byte.is_ascii_digit()).then(|| u32::from_str_radix(value, radix).ok());
    parsed.flatten().ok_or_else(|| MountError::Number { key, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(raw: &str) -> Result<Mount, String> {
        Mount::parse(raw, &mut |value| Ok(value.replace("$v", "V"))).map_err(|error| error.to_string())
    }

    fn text(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    #[test]
    fn kinds_and_defaults() {
        assert_eq!(
            mount("source=a,target=/$v"),
            Ok(Mount::Bind { target: text("/V"), from: None, source: text("a"), readonly: true })
        );
        assert_eq!(
            mount("type=bind,from=b,dst=/x,rw"),
            Ok(Mount::Bind { target: text("/x"), from: text("b"), source: None, readonly: false })
        );
        assert_eq!(
            mount("TYPE=cache,Destination=/c,id=i,sharing=locked,mode=0700,uid=1,gid=2"),
            Ok(Mount::Cache {
                target: text("/c"),
                id: text("i"),
                sharing: Sharing::Locked,
                from: None,
                source: None,
                mode: Some(0o700),
                uid: Some(1),
                gid: Some(2),
                readonly: false,
            })
        );
        assert_eq!(
            mount("type=tmpfs,target=/t,size=64m"),
            Ok(Mount::Tmpfs { target: text("/t"), size: Some(64 << 20), readonly: false })
        );
        let Ok(Mount::Secret { id, env, target, required, .. }) = mount("type=secret,id=k,env=K,required") else {
            panic!("no secret")
        };
        assert_eq!((id.as_str(), env, target, required), ("k", text("K"), None, true));
        let Ok(Mount::Secret { id, .. }) = mount("type=secret,target=/run/x/key") else { panic!("no secret") };
        assert_eq!(id, "key");
        assert!(matches!(mount("type=ssh"), Ok(Mount::Ssh { id: None, required: false, .. })));
        assert_eq!(
            mount("type=bind,\"source=a,b\",target=/x").unwrap(),
            Mount::Bind { target: text("/x"), from: None, source: text("a,b"), readonly: true }
        );
    }

    #[test]
    fn errors() {
        let cases = [
            ("type=tmp", "unsupported mount type \"tmp\""),
            ("typ=x", "unexpected key 'typ' in 'typ=x'"),
            ("size=1m,type=tmpfs,target=/t", "unexpected key 'size' for mount type 'bind'"),
            ("required", "unexpected key 'required' for mount type 'bind'"),
            ("x", "invalid field 'x' must be a key=value pair"),
            ("mode=0700", "mode not allowed for \"bind\" type mounts"),
            ("type=tmpfs,uid=1", "uid not allowed for \"tmpfs\" type mounts"),
            ("type=cache,mode=9", "invalid value 9 for mode"),
            ("ro=maybe", "invalid value for ro: maybe"),
            ("type=tmpfs,size=lots", "invalid value for size: lots"),
            ("type=cache,sharing=lock", "unsupported sharing value \"lock\""),
            ("sharing=shared", "invalid cache sharing set for bind mount"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,src=b", "both source and id can't be set"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
            ("type=ssh,source=x", "ssh does not support source"),
            ("from=$v", "'from' doesn't support variable expansion, define alias stage instead"),
            ("", "failed to parse csv mounts: EOF"),
            ("a\"b", "failed to parse csv mounts: bare \" in non-quoted field"),
            ("\"a", "failed to parse csv mounts: extraneous or missing \" in quoted-field"),
        ];
        for (raw, message) in cases {
            assert_eq!(mount(raw).unwrap_err(), message, "{raw}");
        }
        let error = Mount::parse("typ=x", &mut |value| Ok(value.to_owned())).unwrap_err();
        assert_eq!(error.suggestion(), Some("type"));
        assert!(Mount::check("from=x$").is_ok());
    }
}
