//! Levels of the x86-64 instruction set: amd64/v2 to v4 (R9.12).

use super::Unrunnable;
use oci::Platform;

/// Whether the processor has what a variant of its own architecture needs. Other architectures' variants cannot be told apart here.
pub fn check(platform: &Platform) -> Result<(), Unrunnable> {
    let Some(level) = platform.variant.as_deref().and_then(|variant| variant.strip_prefix('v')?.parse::<u8>().ok())
    else {
        return Ok(());
    };
    let Some(highest) = level_of_processor() else { return Ok(()) };
    if level <= highest {
        return Ok(());
    }
    let name = |level: u8| if level == 1 { "linux/amd64".to_owned() } else { format!("linux/amd64/v{level}") };
    let supported = (1..=highest).map(name).collect::<Vec<_>>().join(", ");
    Err(Unrunnable::Variant { platform: platform.to_string(), supported })
}

/// As the psABI defines them ("x86-64 psABI", Micro-Architecture Levels).
#[cfg(target_arch = "x86_64")]
fn level_of_processor() -> Option<u8> {
    macro_rules! has {
        ($($feature:tt),*) => { $(std::arch::is_x86_feature_detected!($feature))&&* };
    }
    let v2 = has!("cmpxchg16b", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3");
    let v3 = v2 && has!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe");
    let v4 = v3 && has!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl");
    Some(1 + u8::from(v2) + u8::from(v3) + u8::from(v4))
}

#[cfg(not(target_arch = "x86_64"))]
fn level_of_processor() -> Option<u8> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn levels() {
        assert_eq!(check(&"linux/amd64".parse().unwrap()), Ok(()));
        let error = check(&"linux/amd64/v9".parse().unwrap()).unwrap_err().to_string();
        let begin = "no support for running processes with linux/amd64/v9 platform, supported: linux/amd64";
        assert!(error.starts_with(begin), "{error}");
    }
}
