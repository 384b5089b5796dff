//! An image is of another platform than the one that was asked for.

use oci::{ImageConfig, Platform};
use parser::diagnostic::Diagnostic;
use parser::span::Span;

/// `image` is the name as written.
pub fn check(image: &str, expected: &Platform, config: &ImageConfig, span: Span, word: Span) -> Option<Diagnostic> {
    if (&expected.os, &expected.architecture) == (&config.os, &config.architecture) {
        return None;
    }
    let actual = Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        ..Platform::default()
    };
    let message =
        format!("Base image {image} was pulled with platform \"{actual}\", expected \"{expected}\" for current build");
    Some(Diagnostic::warning("InvalidBaseImagePlatform", message, span).with_focus(word))
}
