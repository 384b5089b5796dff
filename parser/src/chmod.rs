//! `--chmod` after expansion (D18.29): octal, or symbolic as chmod(1) has it, with no umask.

/// A `--chmod` value that was found valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// 0 to 0o7777, for files and directories alike.
    Octal(u32),
    /// Applied to each entry's own mode by [`apply_symbolic`].
    Symbolic(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
pub struct ChmodError(pub String);

const SPECIAL: u32 = 0o7000;

pub fn parse(text: &str) -> Result<Chmod, ChmodError> {
    let invalid = || ChmodError(text.to_owned());
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Chmod::Octal(mode)),
            _ => Err(invalid()),
        };
    }
    apply_symbolic(text, 0, false).map(|_| Chmod::Symbolic(text.to_owned()))
}

/// The mode after `u=rwX,go=rX` and the like. Only the twelve permission bits of `mode` count, and only they are given.
pub fn apply_symbolic(spec: &str, mode: u32, is_dir: bool) -> Result<u32, ChmodError> {
    let mut mode = mode & 0o7777;
    for clause in spec.split(',') {
        mode = apply_clause(clause, mode, is_dir).ok_or_else(|| ChmodError(spec.to_owned()))?;
    }
    Ok(mode)
}

/// `[ugoa]*([-+=]([rwxXst]*|[ugo]))+`
fn apply_clause(clause: &str, mut mode: u32, is_dir: bool) -> Option<u32> {
    let operator_at = clause.find(['+', '-', '='])?;
    let (who, mut rest) = clause.split_at(operator_at);
    let mut affected = 0;
    for c in who.chars() {
        affected |= match c {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    if who.is_empty() {
        affected = 0o7777;
    }
    while let Some(operator) = rest.chars().next() {
        rest = &rest[1..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        let (permissions, after) = rest.split_at(end);
        rest = after;
        let bits = permission_bits(permissions, mode, is_dir)? & affected;
        mode = match operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            // A directory keeps its special bits unless they are named, as with GNU chmod.
            _ if is_dir => (mode & !(affected & !(SPECIAL & 0o6000))) | bits,
            _ => (mode & !affected) | bits,
        };
    }
    Some(mode)
}

/// The bits that the letters mean for everybody.
fn permission_bits(letters: &str, mode: u32, is_dir: bool) -> Option<u32> {
    // Copying a class's permissions: `g=u`.
    let class = match letters {
        "u" => Some(mode >> 6 & 7),
        "g" => Some(mode >> 3 & 7),
        "o" => Some(mode & 7),
        _ => None,
    };
    if let Some(class) = class {
        return Some(class * 0o111);
    }
    let mut bits = 0;
    for letter in letters.chars() {
        bits |= match letter {
            'r' => 0o444,
            'w' => 0o222,
            'x' => 0o111,
            'X' if is_dir || mode & 0o111 != 0 => 0o111,
            'X' => 0,
            's' => 0o6000,
            't' => 0o1000,
            _ => return None,
        };
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing() {
        assert_eq!(parse("0644"), Ok(Chmod::Octal(0o644)));
        assert_eq!(parse("7777"), Ok(Chmod::Octal(0o7777)));
        assert_eq!(parse("u=rwX,go=rX"), Ok(Chmod::Symbolic("u=rwX,go=rX".into())));
        for text in ["64a", "10000", "", "rwx", "u+q", "z=r", "u=rw,", "8"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let message = "invalid chmod parameter: '64a'. it should be octal string and between 0 and 07777";
        assert_eq!(parse("64a").unwrap_err().to_string(), message);
    }

    #[test]
    fn symbolic_modes() {
        let cases = [
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("g=u", 0o740, false, 0o770),
            ("o=", 0o777, false, 0o770),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, true, 0o2755),
            ("+t", 0o777, true, 0o1777),
            ("go-rwx,u+x", 0o644, false, 0o700),
            ("u+x-w", 0o644, false, 0o544),
            ("g=rx", 0o2777, true, 0o2757),
        ];
        for (spec, mode, is_dir, expected) in cases {
            assert_eq!(apply_symbolic(spec, mode, is_dir), Ok(expected), "{spec} {mode:o}");
        }
    }
}
