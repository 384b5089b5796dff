//! Signals of STOPSIGNAL after expansion (D15.30).

/// Linux signal names without `SIG`.
const NAMES: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Whether the text is a number other than zero, or a signal's name, in any case, with or without `SIG`.
pub fn is_valid(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return number != 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |prefix: &str, most: u8| {
        let digits = name.strip_prefix(prefix)?;
        let canonical = !digits.starts_with(['0', '+']);
        Some(canonical && digits.parse::<u8>().is_ok_and(|number| number <= most))
    };
    let is_known = NAMES.contains(&name);
    is_known || real_time("RTMIN+", 15).or_else(|| real_time("RTMAX-", 14)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn signals() {
        for text in ["kill", "SIGTERM", "sigusr1", "9", "-1", "RTMIN+3", "SIGRTMAX-14", "RTMAX"] {
            assert!(is_valid(text), "{text}");
        }
        for text in ["0", "", "SIG", "SIGSIGTERM", "NOPE", "RTMIN+16", "RTMIN+", "RTMAX-15", "9x"] {
            assert!(!is_valid(text), "{text}");
        }
    }
}
