//! What becomes of a build's result: an image of the store, an archive, files, a push.

pub mod archive;
pub mod image;
pub mod index;
pub mod push;
pub mod tree;
