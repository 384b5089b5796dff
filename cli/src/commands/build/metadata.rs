//! What `--metadata-file` tells (R5.11.2).
//!
//! What a result was made of stands in `buildx.build.provenance`, for several platforms in `buildx.build.provenance/PLATFORM`: there tools
//! that read docker buildx's files look for a predicate of SLSA provenance 1. Here it is the part that says which sources were used:
//! `resolvedDependencies`, base images with the digest that their name stood for, URLs by content, repositories by commit.

use super::export::{Built, PlatformResult};
use executor::source::material::{Material, uri};
use oci::{Platform, Reference};
use serde_json::{Value, json};
use solver::graph::Graph;
use solver::lower::ResolvedImage;
use solver::op::{Op, Source};
use std::collections::BTreeSet;

/// Of this kind of document, and never BuildKit's (R12.19).
const BUILD_TYPE: &str = "urn:rbuild:dockerfile:v1";
const BUILDER: &str = concat!("urn:rbuild:", env!("CARGO_PKG_VERSION"));

/// Which versions a build took.
pub struct Taken {
    pub images: Vec<(Reference, ResolvedImage)>,
    /// URLs and repositories.
    pub materials: Vec<Material>,
    /// Where the build context came from.
    pub context: Option<String>,
}

impl Taken {
    /// The members about all results.
    pub fn provenance(&self, graph: &Graph, parts: &[PlatformResult], as_index: bool) -> Vec<(String, Value)> {
        let member = |part: &PlatformResult| {
            let key = match as_index {
                true => format!("buildx.build.provenance/{}", part.platform),
                false => "buildx.build.provenance".to_owned(),
            };
            let dependencies = self.dependencies(graph, part);
            let dependencies = dependencies
                .iter()
                .map(|Material { uri, algorithm, digest }| json!({"uri": uri, "digest": {*algorithm: digest}}));
            let predicate = json!({
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "internalParameters": {"builderPlatform": Platform::host().to_string()},
                    "resolvedDependencies": dependencies.collect::<Vec<_>>(),
                },
                "runDetails": {"builder": {"id": BUILDER}},
            });
            (key, predicate)
        };
        parts.iter().map(member).collect()
    }

    /// What one result was made of, sorted.
    fn dependencies(&self, graph: &Graph, part: &PlatformResult) -> BTreeSet<Material> {
        let mut found = BTreeSet::new();
        let mut uris: BTreeSet<String> = self.context.clone().into_iter().collect();
        for id in graph.needed(&[part.target.result]) {
            let Op::Source(source) = &graph[id].op else { continue };
            match source {
                Source::Image { reference, manifest, platform } => {
                    let Ok(reference) = reference.parse::<Reference>() else { continue };
                    let known = self.images.iter().find(|(known, image)| {
                        image.manifest == *manifest
                            && known.name() == reference.name()
                            && known.tag() == reference.tag()
                    });
                    let (named, digest) = known.map_or((&reference, manifest), |(named, image)| (named, &image.digest));
                    let uri = oci::package_url(named, platform);
                    found.insert(Material { uri, algorithm: "sha256", digest: digest.hex() });
                }
                source => uris.extend(uri(source)),
            }
        }
        found.extend(self.materials.iter().filter(|material| uris.contains(&material.uri)).cloned());
        found
    }
}

/// The members about the image.
pub fn image(built: &Built, names: &[String]) -> Vec<(String, Value)> {
    let mut members = vec![
        ("containerimage.descriptor".to_owned(), json!(built.descriptor)),
        ("containerimage.digest".to_owned(), json!(built.descriptor.digest())),
    ];
    if let Some(config) = built.config {
        members.push(("containerimage.config.digest".to_owned(), config.to_string().into()));
    }
    if !names.is_empty() {
        members.push(("image.name".to_owned(), names.join(",").into()));
    }
    members
}
