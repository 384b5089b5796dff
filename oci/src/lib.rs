//! OCI images as documents, bytes and transfers, with no knowledge of builds.
//!
//! The crate's main types, in the order in which a pull meets them:
//!
//! - [`Reference`] names an image; [`Platform`] says which of an index's images is meant.
//! - [`RegistriesConf`] says which hosts to ask for it, and [`registry::Client`] asks them, and pushes.
//! - [`Digest`] and [`DiffId`] are the two content addresses: of stored bytes, and of an uncompressed layer.
//! - [`ImageConfig`] is the config document, with Docker's extensions. Descriptors, manifests and indexes are those of `oci_spec`.

pub mod archive;
pub mod codec;
pub mod digest;
pub mod fetch;
pub mod image;
pub mod layer;
pub mod layout;
pub mod platform;
mod purl;
pub mod reference;
pub mod registries;
pub mod registry;

pub use digest::{DiffId, Digest};
pub use image::ImageConfig;
pub use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
pub use platform::{InvalidPlatform, Platform};
pub use purl::package_url;
pub use reference::{InvalidReference, Reference};
pub use registries::RegistriesConf;
