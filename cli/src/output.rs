//! `--output` (R5.1 to R5.10): what becomes of the result.

use oci::codec::Compression;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq)]
pub enum OutputSpec {
    /// The store, under these names, pushed too if asked for.
    Image { names: Vec<String>, push: bool, format: ImageFormat },
    /// An OCI layout or docker archive in a file, or on standard output.
    Archive { docker: bool, destination: Destination, names: Vec<String>, format: ImageFormat },
    /// An OCI layout as a directory, beside what is in it already.
    Layout { directory: PathBuf, names: Vec<String>, format: ImageFormat },
    /// The files, in a directory. `split` says whether each platform has a folder; by default where there are several.
    Local { directory: PathBuf, split: Option<bool>, epoch: Epoch },
    /// The files, as a tar.
    Tar { destination: Destination, split: Option<bool>, epoch: Epoch },
    /// Nothing but the cache.
    CacheOnly,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Destination {
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageFormat {
    /// `None`: what suits the output.
    pub compression: Option<Compression>,
    pub docker_types: bool,
    pub epoch: Epoch,
    /// Files of new layers are no later than the epoch.
    pub rewrites_times: bool,
}

/// `source-date-epoch`: what an output takes as SOURCE_DATE_EPOCH (R4.8.1, R4.8.2).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Epoch {
    /// The build's own.
    #[default]
    OfBuild,
    Unset,
    Seconds(i64),
}

impl ImageFormat {
    /// What suits the output.
    pub const PLAIN: ImageFormat =
        ImageFormat { compression: None, docker_types: false, epoch: Epoch::OfBuild, rewrites_times: false };
}

impl Epoch {
    fn parse(text: &str) -> Result<Epoch, String> {
        match text {
            "" => Ok(Epoch::Unset),
            text => text
                .parse()
                .map(Epoch::Seconds)
                .map_err(|_| format!("invalid source-date-epoch {text:?}: expected seconds since 1970")),
        }
    }

    /// In seconds, where that of the build is `build`.
    pub fn seconds(self, build: Option<i64>) -> Option<i64> {
        match self {
            Epoch::OfBuild => build,
            Epoch::Unset => None,
            Epoch::Seconds(seconds) => Some(seconds),
        }
    }
}

const TYPES: [&str; 7] = ["oci", "docker", "tar", "local", "image", "registry", "cacheonly"];

impl OutputSpec {
    /// Parses a flag's value.
    pub fn parse(text: &str) -> Result<OutputSpec, String> {
        let fields = csv(text)?;
        // R5.1: one word is a directory, and `-` a tar on standard output.
        if let [only] = fields.as_slice()
            && !only.contains('=')
        {
            return Ok(match only.as_str() {
                "-" => OutputSpec::Tar { destination: Destination::Stdout, split: None, epoch: Epoch::OfBuild },
                path => OutputSpec::Local { directory: path.into(), split: None, epoch: Epoch::OfBuild },
            });
        }
        let mut values = Fields::default();
        for field in &fields {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            values.set(&key.to_lowercase(), value, field.contains('='))?;
        }
        values.finish(text)
    }

    /// Whether the output is an image, which alone has an id.
    pub fn is_image(&self) -> bool {
        matches!(self, OutputSpec::Image { .. } | OutputSpec::Archive { .. } | OutputSpec::Layout { .. })
    }

    /// Whether the output is made of files rather than of layers as they are.
    pub fn needs_files(&self) -> bool {
        match self {
            OutputSpec::Local { .. } | OutputSpec::Tar { .. } => true,
            OutputSpec::Image { format, .. }
            | OutputSpec::Archive { format, .. }
            | OutputSpec::Layout { format, .. } => format.rewrites_times,
            OutputSpec::CacheOnly => false,
        }
    }

    pub fn is_stdout(&self) -> bool {
        matches!(
            self,
            OutputSpec::Tar { destination: Destination::Stdout, .. }
                | OutputSpec::Archive { destination: Destination::Stdout, .. }
        )
    }

    /// R5.7: tags name what has no name.
    pub fn with_names(self, tags: &[String]) -> OutputSpec {
        match self {
            OutputSpec::Image { names, push, format } if names.is_empty() => {
                OutputSpec::Image { names: tags.to_vec(), push, format }
            }
            OutputSpec::Archive { docker, destination, names, format } if names.is_empty() => {
                OutputSpec::Archive { docker, destination, names: tags.to_vec(), format }
            }
            OutputSpec::Layout { directory, names, format } if names.is_empty() => {
                OutputSpec::Layout { directory, names: tags.to_vec(), format }
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct Fields {
    kind: Option<String>,
    destination: Option<String>,
    names: Vec<String>,
    push: bool,
    compression: Option<String>,
    level: Option<i32>,
    docker_types: bool,
    directory: bool,
    split: Option<bool>,
    epoch: Epoch,
    rewrites_times: bool,
}

impl Fields {
    fn set(&mut self, key: &str, value: &str, has_value: bool) -> Result<(), String> {
        let flag = || match value {
            "" if !has_value => Ok(true),
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(format!("invalid value {value:?} for {key}: expected true or false")),
        };
        match key {
            "type" => self.kind = Some(value.to_lowercase()),
            "dest" => self.destination = Some(value.to_owned()),
            "name" => self.names = value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            "push" => self.push = flag()?,
            "compression" => self.compression = Some(value.to_owned()),
            "compression-level" => {
                let level =
                    value.parse().map_err(|_| format!("invalid compression-level {value:?}: expected a number"))?;
                self.level = Some(level);
            }
            "oci-mediatypes" => self.docker_types = !flag()?,
            "tar" => self.directory = !flag()?,
            "store" if flag()? => {}
            "unpack" | "force-compression" | "name-canonical" | "push-by-digest" if !flag()? => {}
            "rewrite-timestamp" => self.rewrites_times = flag()?,
            "source-date-epoch" => self.epoch = Epoch::parse(value)?,
            "platform-split" => self.split = Some(flag()?),
            key => return Err(format!("output option {key:?} is not supported yet")),
        }
        Ok(())
    }

    fn finish(self, text: &str) -> Result<OutputSpec, String> {
        let format = ImageFormat {
            compression: compression(self.compression.as_deref(), self.level)?,
            docker_types: self.docker_types,
            epoch: self.epoch,
            rewrites_times: self.rewrites_times,
        };
        let (split, epoch) = (self.split, self.epoch);
        let file = |destination: Option<String>| match destination.as_deref() {
            None | Some("" | "-") => Destination::Stdout,
            Some(path) => Destination::File(path.into()),
        };
        if self.directory && self.kind.as_deref() != Some("oci") {
            return Err(format!("output {text:?}: tar=false is for type=oci"));
        }
        match self.kind.as_deref() {
            Some("oci") if self.directory => match self.destination {
                Some(path) if path != "-" && !path.is_empty() => {
                    Ok(OutputSpec::Layout { directory: path.into(), names: self.names, format })
                }
                _ => Err(format!("output {text:?}: dest is required for tar=false")),
            },
            Some("image") => Ok(OutputSpec::Image { names: self.names, push: self.push, format }),
            Some("registry") => Ok(OutputSpec::Image { names: self.names, push: true, format }),
            Some("oci") => Ok(OutputSpec::Archive {
                docker: false,
                destination: file(self.destination),
                names: self.names,
                format,
            }),
            // Without a destination docker loads the image; here that is the store (R5.9.7).
            Some("docker") => match self.destination {
                None => Ok(OutputSpec::Image { names: self.names, push: false, format }),
                destination => {
                    Ok(OutputSpec::Archive { docker: true, destination: file(destination), names: self.names, format })
                }
            },
            Some("tar") => Ok(OutputSpec::Tar { destination: file(self.destination), split, epoch }),
            Some("local") => match self.destination {
                Some(path) if path != "-" && !path.is_empty() => {
                    Ok(OutputSpec::Local { directory: path.into(), split, epoch })
                }
                _ => Err(format!("output {text:?}: dest is required for local output")),
            },
            Some("cacheonly") => Ok(OutputSpec::CacheOnly),
            Some(kind) => {
                let suggestion = parser::suggest::closest(TYPES, kind);
                let hint = suggestion.map(|kind| format!(" (did you mean {kind}?)")).unwrap_or_default();
                Err(format!("unknown output type {kind:?}{hint}; there are {}", TYPES.join(", ")))
            }
            None => Err(format!("output {text:?}: type is required")),
        }
    }
}

/// What `compression` and `compression-level` ask for.
pub fn compression(name: Option<&str>, level: Option<i32>) -> Result<Option<Compression>, String> {
    let within = |least: i32, most: i32, default: i32| match level.unwrap_or(default) {
        level if (least..=most).contains(&level) => Ok(level),
        level => Err(format!("compression-level {level} is not within {least} to {most}")),
    };
    Ok(match name {
        None => None,
        Some("uncompressed") => Some(Compression::None),
        Some("gzip") => Some(Compression::Gzip { level: u32::try_from(within(0, 9, 6)?).unwrap_or(6) }),
        Some("zstd") => Some(Compression::Zstd { level: within(1, 22, 3)? }),
        Some("estargz") => return Err("compression estargz is not supported yet".into()),
        Some(other) => return Err(format!("unknown compression {other:?}: expected gzip, zstd or uncompressed")),
    })
}

/// Fields of a CSV record; one in quotes may hold commas.
pub fn csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().ok_or("no field")?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    if quoted { Err(format!("{text:?}: unbalanced quote")) } else { Ok(fields) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: ImageFormat = ImageFormat::PLAIN;

    #[test]
    fn outputs_are_told_by_their_type() {
        let archive = |docker, path: &str| OutputSpec::Archive {
            docker,
            destination: Destination::File(path.into()),
            names: vec![],
            format: PLAIN,
        };
        let local =
            |directory: &str, split| OutputSpec::Local { directory: directory.into(), split, epoch: Epoch::OfBuild };
        let tar = |destination, split| OutputSpec::Tar { destination, split, epoch: Epoch::OfBuild };
        for (text, expected) in [
            ("out", local("out", None)),
            ("-", tar(Destination::Stdout, None)),
            ("type=local,dest=out", local("out", None)),
            ("type=local,dest=out,platform-split=false", local("out", Some(false))),
            ("type=tar,dest=x.tar,platform-split", tar(Destination::File("x.tar".into()), Some(true))),
            ("type=tar", tar(Destination::Stdout, None)),
            ("type=oci,dest=x,tar=false", OutputSpec::Layout { directory: "x".into(), names: vec![], format: PLAIN }),
            ("type=oci,dest=x.tar", archive(false, "x.tar")),
            ("type=docker,dest=x.tar", archive(true, "x.tar")),
            ("type=docker", OutputSpec::Image { names: vec![], push: false, format: PLAIN }),
            ("type=registry,name=a", OutputSpec::Image { names: vec!["a".into()], push: true, format: PLAIN }),
            (
                "type=image,\"name=a,b\",push=true",
                OutputSpec::Image { names: vec!["a".into(), "b".into()], push: true, format: PLAIN },
            ),
            ("type=cacheonly", OutputSpec::CacheOnly),
        ] {
            assert_eq!(OutputSpec::parse(text), Ok(expected), "{text}");
        }
        let Ok(OutputSpec::Archive { format, .. }) =
            OutputSpec::parse("type=oci,dest=x,compression=zstd,compression-level=9,oci-mediatypes=false")
        else {
            panic!("not an archive")
        };
        let zstd = Some(Compression::Zstd { level: 9 });
        assert_eq!(format, ImageFormat { compression: zstd, docker_types: true, ..PLAIN });
    }

    /// R4.8.1, R4.8.2.
    #[test]
    fn times_of_outputs() {
        let image = |text: &str| match OutputSpec::parse(text) {
            Ok(OutputSpec::Image { format, .. }) => (format.epoch.seconds(Some(7)), format.rewrites_times),
            other => panic!("{other:?}"),
        };
        assert_eq!(image("type=image,rewrite-timestamp=true"), (Some(7), true));
        assert_eq!(image("type=image,source-date-epoch=5,rewrite-timestamp=false"), (Some(5), false));
        assert_eq!(image("type=image,source-date-epoch="), (None, false));
        let Ok(OutputSpec::Local { epoch, .. }) = OutputSpec::parse("type=local,dest=x,source-date-epoch=-1") else {
            panic!("not local")
        };
        assert_eq!(epoch, Epoch::Seconds(-1));
    }

    #[test]
    fn wrong_outputs_are_refused() {
        for (text, reason) in [
            ("type=ocy,dest=x", "did you mean oci?"),
            ("dest=x,name=y", "type is required"),
            ("type=local", "dest is required"),
            ("type=oci,tar=false", "dest is required"),
            ("type=docker,dest=x,tar=false", "tar=false is for type=oci"),
            ("type=local,dest=x,platform-split=maybe", "expected true or false"),
            ("type=oci,dest=x,compression=lz4", "unknown compression"),
            ("type=oci,dest=x,compression=gzip,compression-level=12", "not within"),
            ("type=oci,dest=x,source-date-epoch=now", "invalid source-date-epoch \"now\""),
            ("type=oci,dest=x,nonsense=1", "\"nonsense\" is not supported yet"),
            ("type=oci,\"dest=x", "unbalanced quote"),
        ] {
            let error = OutputSpec::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
