//! Which checks count (D21.2 to D21.5): `skip=...;experimental=...;error=true`.

use crate::boolean::boolean;
use crate::quote::quoted;

/// The options of a `# check=` directive or of `BUILDKIT_DOCKERFILE_CHECK`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    skip: Rules,
    experimental: Rules,
    /// Whether a build with a reported warning fails.
    pub error: bool,
}

/// Rule names; `all` stands for every rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rules {
    all: bool,
    names: Vec<String>,
}

impl Rules {
    fn add(&mut self, text: &str) {
        let text = text.trim();
        if text == "all" {
            self.all = true;
        } else {
            self.names.extend(text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
        }
    }

    fn contains(&self, rule: &str) -> bool {
        self.all || self.names.iter().any(|name| name == rule)
    }
}

impl CheckOptions {
    /// The error is BuildKit's text.
    pub fn parse(text: &str) -> Result<CheckOptions, String> {
        let mut options = CheckOptions::default();
        for part in text.splitn(3, ';').filter(|part| !part.trim().is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("invalid check option {}", quoted(part)))?;
            match key.trim() {
                "skip" => options.skip.add(value),
                "experimental" => options.experimental.add(value),
                "error" => {
                    let value = value.trim();
                    options.error =
                        boolean(value).ok_or_else(|| format!("failed to parse check option error={value}"))?;
                }
                _ => return Err(format!("invalid check option {}", quoted(key))),
            }
        }
        Ok(options)
    }

    /// The options for one instruction: those of a `# check=` comment above it are added, but for `error` (D21.4).
    /// Comments that cannot be parsed do not count.
    pub fn for_instruction(&self, comments: &[String]) -> CheckOptions {
        let mut options = self.clone();
        let local = comments.iter().filter_map(|comment| comment.strip_prefix("check="));
        for local in local.filter_map(|text| CheckOptions::parse(text).ok()) {
            options.skip.all |= local.skip.all;
            options.skip.names.extend(local.skip.names);
            options.experimental.all |= local.experimental.all;
            options.experimental.names.extend(local.experimental.names);
        }
        options
    }

    /// Whether findings of the rule are shown. Experimental rules must be enabled, and then cannot be skipped (D21.5).
    pub fn reports(&self, rule: &str, is_experimental: bool) -> bool {
        if is_experimental { self.experimental.contains(rule) } else { !self.skip.contains(rule) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let options = CheckOptions::parse("skip=A,B;error=true").unwrap();
        assert!(options.error && !options.reports("A", false) && options.reports("C", false));
        assert!(!options.reports("E", true));
        assert!(CheckOptions::parse("experimental=all;skip=all").unwrap().reports("E", true));
        assert!(!CheckOptions::parse("skip=all").unwrap().reports("A", false));
        assert_eq!(CheckOptions::parse("x=1").unwrap_err(), "invalid check option \"x\"");
        let local = CheckOptions::default().for_instruction(&["check=skip=A;error=true".into(), "note".into()]);
        assert!(!local.reports("A", false) && !local.error);
    }
}
