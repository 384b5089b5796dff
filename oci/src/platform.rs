//! Platforms, parsed and matched as containerd does (spec R9.1 to R9.6).
//!
//! A text is `os[(version)]/arch[/variant]`. A single word is an operating system or an architecture, whichever is
//! known by that name, and the host gives the rest. Names are normalised (`x86_64` is `amd64`), and variants that say
//! nothing are dropped (`arm64/v8`, `amd64/v1`), so that equal platforms compare equal.
//!
//! What a platform can run is an ordered list ([`Platform::candidates`]): itself first, then older variants, then the
//! 32-bit sibling. From an index the first candidate that is there wins.

use crate::Descriptor;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Operating system, architecture and variant of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

/// A text that does not name a platform.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid platform {0:?}: expected os/architecture[/variant], such as linux/amd64 or linux/arm/v7")]
pub struct InvalidPlatform(pub String);

/// The annotation by which BuildKit marks manifests that describe another one of the same index (attestations).
pub const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

const KNOWN_OS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

const KNOWN_ARCHITECTURES: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

impl Platform {
    /// `os/architecture` without more, not normalised.
    pub fn new(os: impl Into<String>, architecture: impl Into<String>) -> Self {
        Platform { os: os.into(), architecture: architecture.into(), ..Platform::default() }
    }

    /// What this machine runs natively, in its plainest form: `amd64` without the variant that the CPU would allow.
    pub fn host() -> Self {
        let mut host = Platform::new("linux", std::env::consts::ARCH);
        match std::env::consts::ARCH {
            "x86" => host.architecture = "386".into(),
            "powerpc64" if cfg!(target_endian = "little") => host.architecture = "ppc64le".into(),
            "powerpc64" => host.architecture = "ppc64".into(),
            "loongarch64" => host.architecture = "loong64".into(),
            "arm" => {
                // `armv7l`, `armv6l`; a 64-bit kernel answers `aarch64` or, in a 32-bit personality, `armv8l`.
                let machine = rustix::system::uname();
                let version = machine.machine().to_string_lossy();
                host.variant = version.strip_prefix("armv").and_then(|v| v.get(..1)).map(|v| format!("v{v}"));
            }
            _ => {}
        }
        host.normalized()
    }

    /// R9.2.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.os.make_ascii_lowercase();
        if self.os == "macos" {
            self.os = "darwin".into();
        }
        self.architecture.make_ascii_lowercase();
        let mut variant = self.variant.take().map(|v| v.to_ascii_lowercase()).unwrap_or_default();
        match self.architecture.as_str() {
            "i386" => {
                self.architecture = "386".into();
                variant.clear();
            }
            "x86_64" | "x86-64" | "amd64" => {
                self.architecture = "amd64".into();
                if variant == "v1" {
                    variant.clear();
                }
            }
            "aarch64" | "arm64" => {
                self.architecture = "arm64".into();
                match variant.as_str() {
                    "8" | "v8" | "v8.0" => variant.clear(),
                    "9" | "v9" | "9.0" | "v9.0" => variant = "v9".into(),
                    _ => {}
                }
            }
            "armhf" => {
                self.architecture = "arm".into();
                variant = "v7".into();
            }
            "armel" => {
                self.architecture = "arm".into();
                variant = "v6".into();
            }
            "arm" => match variant.as_str() {
                "" | "7" => variant = "v7".into(),
                "5" | "6" | "8" => variant.insert(0, 'v'),
                _ => {}
            },
            _ => {}
        }
        self.variant = (!variant.is_empty()).then_some(variant);
        self
    }

    /// The platforms whose images this one runs, best first, itself included (R9.3).
    pub fn candidates(&self) -> Vec<Platform> {
        let wanted = self.clone().normalized();
        let with = |architecture: &str, variant: String| {
            Platform { architecture: architecture.into(), variant: Some(variant), ..wanted.clone() }.normalized()
        };
        let variant = wanted.variant.as_deref().unwrap_or_default();
        let mut candidates = vec![wanted.clone()];
        match wanted.architecture.as_str() {
            "amd64" => {
                let version = version_of(variant).map_or(0, |(major, _)| major);
                candidates.extend((1..version).rev().map(|v| with("amd64", format!("v{v}"))));
                candidates.push(Platform { variant: None, ..with("386", String::new()) });
            }
            "arm" => candidates.extend(older_arm(variant).map(|v| with("arm", v))),
            "arm64" => {
                let (major, minor) = version_of(if variant.is_empty() { "v8" } else { variant }).unwrap_or((0, 0));
                candidates.extend((0..minor).rev().map(|m| with("arm64", format!("v{major}.{m}"))));
                if major == 9 {
                    // Armv9.x is built on Armv8.(x+5).
                    candidates.extend((0..=minor + 5).rev().map(|m| with("arm64", format!("v8.{m}"))));
                }
                if major == 8 || major == 9 {
                    candidates.push(with("arm", "v8".into()));
                    candidates.extend(older_arm("v8").map(|v| with("arm", v)));
                }
            }
            _ => {}
        }
        candidates
    }

    /// Whether an image of the platform `image` may be used where this one is asked for.
    pub fn matches(&self, image: &Platform) -> bool {
        self.rank(&self.candidates(), image).is_some()
    }

    /// The place of `image` among `candidates`; lower is better.
    fn rank(&self, candidates: &[Platform], image: &Platform) -> Option<usize> {
        let image = image.clone().normalized();
        let version_fits = self.os != "windows" || windows_version_fits(&self.os_version, &image.os_version);
        let features_fit = image.os_features.iter().all(|feature| self.os_features.contains(feature));
        if !version_fits || !features_fit {
            return None;
        }
        candidates.iter().position(|candidate| {
            (&candidate.os, &candidate.architecture, &candidate.variant)
                == (&image.os, &image.architecture, &image.variant)
        })
    }

    /// The same platform in `oci_spec`'s type, for descriptors.
    pub fn to_spec(&self) -> oci_spec::image::Platform {
        let mut spec = oci_spec::image::Platform::default();
        spec.set_os(self.os.as_str().into())
            .set_architecture(self.architecture.as_str().into())
            .set_variant(self.variant.clone())
            .set_os_version(self.os_version.clone())
            .set_os_features((!self.os_features.is_empty()).then(|| self.os_features.clone()));
        spec
    }
}

/// The manifest of an index that serves `wanted` best, ties by their order in the index. Attestations and entries for
/// `unknown/unknown` never do (R6.3.11). An entry that names no platform is taken only where nothing else fits; its
/// config then tells what it is (R9.4).
pub fn select<'a>(manifests: &'a [Descriptor], wanted: &Platform) -> Option<&'a Descriptor> {
    let candidates = wanted.candidates();
    let is_image = |descriptor: &&Descriptor| {
        let marked = descriptor.annotations().as_ref().is_some_and(|all| all.contains_key(REFERENCE_TYPE));
        let unknown = |p: &oci_spec::image::Platform| {
            p.os().to_string() == "unknown" && p.architecture().to_string() == "unknown"
        };
        !marked && !descriptor.platform().as_ref().is_some_and(unknown)
    };
    manifests
        .iter()
        .filter(is_image)
        .filter_map(|descriptor| match descriptor.platform() {
            Some(platform) => wanted.rank(&candidates, &platform.into()).map(|rank| (rank, descriptor)),
            None => Some((usize::MAX, descriptor)),
        })
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, descriptor)| descriptor)
}

impl From<&oci_spec::image::Platform> for Platform {
    fn from(spec: &oci_spec::image::Platform) -> Self {
        Platform {
            os: spec.os().to_string(),
            architecture: spec.architecture().to_string(),
            variant: spec.variant().clone().filter(|variant| !variant.is_empty()),
            os_version: spec.os_version().clone().filter(|version| !version.is_empty()),
            os_features: spec.os_features().clone().unwrap_or_default(),
        }
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    /// R9.1. The result is normalised.
    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let invalid = || InvalidPlatform(text.to_owned());
        if text.eq_ignore_ascii_case("local") {
            return Ok(Platform::host());
        }
        let parts: Vec<&str> = text.split('/').collect();
        let (first, rest) = parts.split_first().ok_or_else(invalid)?;
        let (os, os_version) = split_os_version(first).ok_or_else(invalid)?;
        if !is_word(os) || rest.len() > 2 || !rest.iter().all(|part| is_word(part)) {
            return Err(invalid());
        }
        let mut platform = match rest {
            [] => {
                let host = Platform::host();
                let as_os = Platform { os: os.into(), os_version, ..host.clone() }.normalized();
                if KNOWN_OS.contains(&as_os.os.as_str()) {
                    return Ok(as_os);
                }
                let as_architecture = Platform::new(host.os, os).normalized();
                if as_os.os_version.is_some() || !KNOWN_ARCHITECTURES.contains(&as_architecture.architecture.as_str()) {
                    return Err(invalid());
                }
                return Ok(as_architecture);
            }
            [architecture, variant @ ..] => Platform {
                variant: variant.first().map(|variant| (*variant).to_owned()),
                ..Platform::new(os, *architecture)
            },
        };
        platform.os_version = os_version;
        Ok(platform.normalized())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if let Some(version) = &self.os_version {
            write!(f, "({version})")?;
        }
        write!(f, "/{}", self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// `windows(10.0.20348)` is `windows` and `10.0.20348`.
fn split_os_version(text: &str) -> Option<(&str, Option<String>)> {
    let Some((os, rest)) = text.split_once('(') else {
        return Some((text, None));
    };
    let version = rest.strip_suffix(')')?;
    match version {
        "" => Some((os, None)),
        _ if is_word(version) => Some((os, Some(version.to_owned()))),
        _ => None,
    }
}

/// `v9.2` is (9, 2). Bounded, since candidate lists are made from it.
fn version_of(variant: &str) -> Option<(u32, u32)> {
    let text = variant.strip_prefix('v')?;
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    (major < 100 && minor < 100).then_some((major, minor))
}

fn older_arm(variant: &str) -> impl Iterator<Item = String> {
    let version = version_of(variant).map_or(0, |(major, _)| major);
    (5..version).rev().map(|v| format!("v{v}"))
}

/// A Windows image runs on hosts of the same build: the first three numbers.
fn windows_version_fits(wanted: &Option<String>, image: &Option<String>) -> bool {
    let build = |version: &str| version.split('.').take(3).map(str::to_owned).collect::<Vec<_>>();
    match (wanted, image) {
        (Some(wanted), Some(image)) => build(wanted) == build(image),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, MediaType};
    use std::collections::HashMap;

    fn parse(text: &str) -> Platform {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    /// R9.1, R9.2.
    #[test]
    fn parses_and_normalises() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/X86_64", "linux/amd64"),
            ("linux/x86-64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/i386", "linux/386"),
            ("macos/aarch64", "darwin/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm64/9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("arm64", "linux/arm64"),
            ("s390x", "linux/s390x"),
            ("windows(10.0.20348.1006)/amd64", "windows(10.0.20348.1006)/amd64"),
            ("unheard/of", "unheard/of"),
        ] {
            assert_eq!(parse(text).to_string(), normal, "{text}");
            assert_eq!(parse(normal), parse(text), "{text}");
        }
        assert_eq!(parse("local"), Platform::host());
        assert_eq!(parse("linux"), Platform::host());
        assert_eq!(parse("darwin").architecture, Platform::host().architecture);
        for bad in
            ["", "/", "linux/", "unheard", "linux/amd64/v1/x", "linux/*", "windows(1/amd64", "a b/c", "linux/\u{e9}"]
        {
            assert_eq!(bad.parse::<Platform>(), Err(InvalidPlatform(bad.to_owned())));
        }
    }

    /// R9.3.
    #[test]
    fn lists_what_runs_best_first() {
        let names = |text: &str| parse(text).candidates().iter().map(Platform::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(names("linux/amd64"), "linux/amd64 linux/386");
        assert_eq!(names("linux/amd64/v3"), "linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386");
        assert_eq!(names("linux/arm/v7"), "linux/arm/v7 linux/arm/v6 linux/arm/v5");
        assert_eq!(names("linux/arm64"), "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5");
        assert_eq!(
            names("linux/arm64/v9.1"),
            "linux/arm64/v9.1 linux/arm64/v9 linux/arm64/v8.6 linux/arm64/v8.5 linux/arm64/v8.4 linux/arm64/v8.3 \
             linux/arm64/v8.2 linux/arm64/v8.1 linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5"
        );
        assert_eq!(names("linux/s390x"), "linux/s390x");
        assert_eq!(names("linux/amd64/v4294967295"), "linux/amd64/v4294967295 linux/386");
    }

    /// R9.5.
    #[test]
    fn windows_builds_and_features_must_fit() {
        let host = parse("windows(10.0.20348.1006)/amd64");
        assert!(host.matches(&parse("windows(10.0.20348.9999)/amd64")));
        assert!(host.matches(&parse("windows/amd64")));
        assert!(!host.matches(&parse("windows(10.0.17763.1)/amd64")));
        let mut image = parse("linux/amd64");
        image.os_features.push("win32k".into());
        assert!(!parse("linux/amd64").matches(&image));
        assert!(image.matches(&image));
    }

    fn entry(name: &str, platform: Option<&str>) -> Descriptor {
        let mut descriptor = Descriptor::new(MediaType::ImageManifest, 1, Digest::of(name.as_bytes()).to_spec());
        descriptor.set_platform(platform.map(|text| parse(text).to_spec()));
        descriptor
    }

    #[test]
    fn selects_the_best_entry_of_an_index() {
        let mut attestation = entry("attestation", Some("linux/amd64"));
        attestation.set_annotations(Some(HashMap::from([(REFERENCE_TYPE.into(), "attestation-manifest".into())])));
        let index = [
            attestation,
            entry("unknown", Some("unknown/unknown")),
            entry("386", Some("linux/386")),
            entry("amd64", Some("linux/amd64")),
            entry("amd64 again", Some("linux/amd64")),
            entry("armv6", Some("linux/arm/v6")),
        ];
        let chosen = |platform: &str| select(&index, &parse(platform)).map(|d| d.digest().to_string());
        assert_eq!(chosen("linux/amd64"), Some(Digest::of(b"amd64").to_string()));
        assert_eq!(chosen("linux/amd64/v2"), Some(Digest::of(b"amd64").to_string()));
        assert_eq!(chosen("linux/386"), Some(Digest::of(b"386").to_string()));
        assert_eq!(chosen("linux/arm64"), Some(Digest::of(b"armv6").to_string()));
        assert_eq!(chosen("linux/s390x"), None);
        assert_eq!(chosen("unknown/unknown"), None);
        let unnamed = [entry("no platform", None), entry("386", Some("linux/386"))];
        let digest = |platform: &str| select(&unnamed, &parse(platform)).map(|d| d.digest().to_string());
        assert_eq!(digest("linux/amd64"), Some(Digest::of(b"386").to_string()));
        assert_eq!(digest("linux/s390x"), Some(Digest::of(b"no platform").to_string()));
    }
}
