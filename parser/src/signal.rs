//! STOPSIGNAL's values (D15.30).

const NAMES: [&str; 37] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "UNUSED", "URG",
    "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// A number other than 0, or a name with or without `SIG`, in any case.
pub fn is_valid(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if NAMES.contains(&name) {
        return true;
    }
    let real_time = name.strip_prefix("RTMIN+").or_else(|| name.strip_prefix("RTMAX-"));
    real_time.is_some_and(|offset| matches!(offset.parse::<u8>(), Ok(1..=15)))
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn names_and_numbers() {
        for good in ["SIGTERM", "kill", "9", "SIGRTMIN+3", "SigInt"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["0", "", "SIGNOPE", "SIG", "RTMIN+16", "9x"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
