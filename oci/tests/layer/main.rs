//! Layers on disk and as tars, through the public functions of `oci::layer`. They pass as root and as any other user;
//! devices, owners and capabilities are only made as root.

mod apply;
mod compare;
mod copy;
mod diff;
mod tree;
mod write;
