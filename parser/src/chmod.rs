//! `--chmod` (D18.29): octal, or symbolic as in chmod(1), always with umask 0.

use nom::Parser;
use nom::branch::alt;
use nom::character::complete::{char, one_of};
use nom::combinator::all_consuming;
use nom::multi::{many0, many1, separated_list1};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// 0 to 0o7777.
    Octal(u32),
    Symbolic(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
pub struct InvalidChmod(pub String);

pub fn parse(text: &str) -> Result<Chmod, InvalidChmod> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 && !text.starts_with('+') => return Ok(Chmod::Octal(mode)),
        _ => {}
    }
    match clauses(text) {
        Some(_) => Ok(Chmod::Symbolic(text.to_owned())),
        None => Err(InvalidChmod(text.to_owned())),
    }
}

/// The mode (12 bits) that a symbolic `text` makes of `mode`.
pub fn apply_symbolic(text: &str, mode: u32, is_directory: bool) -> Result<u32, InvalidChmod> {
    let clauses = clauses(text).ok_or_else(|| InvalidChmod(text.to_owned()))?;
    let mut mode = mode & 0o7777;
    for (who, actions) in clauses {
        let who = if who.is_empty() || who.contains(&'a') { vec!['u', 'g', 'o'] } else { who };
        for (operator, permissions) in actions {
            let bits = bits(&who, &permissions, mode, is_directory);
            let all: u32 = who.iter().map(|class| 0o7 << shift(*class)).sum::<u32>() | special(&who);
            mode = match operator {
                '+' => mode | bits,
                '-' => mode & !bits,
                // `=` on a directory leaves setuid and setgid unless they are named.
                _ if is_directory => (mode & !(all & 0o1777)) | bits,
                _ => (mode & !all) | bits,
            };
        }
    }
    Ok(mode)
}

fn shift(class: char) -> u32 {
    match class {
        'u' => 6,
        'g' => 3,
        _ => 0,
    }
}

/// The setuid, setgid and sticky bits that go with some classes.
fn special(who: &[char]) -> u32 {
    who.iter()
        .map(|class| match class {
            'u' => 0o4000,
            'g' => 0o2000,
            _ => 0o1000,
        })
        .sum()
}

fn bits(who: &[char], permissions: &[char], mode: u32, is_directory: bool) -> u32 {
    let mut bits = 0;
    for permission in permissions {
        let each = match permission {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            'X' if is_directory || mode & 0o111 != 0 => 1,
            'u' | 'g' | 'o' => (mode >> shift(*permission)) & 7,
            's' => {
                bits |= special(who) & 0o6000;
                0
            }
            't' => {
                bits |= 0o1000;
                0
            }
            _ => 0,
        };
        bits |= who.iter().map(|class| each << shift(*class)).fold(0, |all, part| all | part);
    }
    bits
}

type Clause = (Vec<char>, Vec<(char, Vec<char>)>);

/// `[ugoa]*([-+=][rwxXstugo]*)+`, separated by commas.
fn clauses(text: &str) -> Option<Vec<Clause>> {
    let permissions = alt((many1(one_of("ugo")), many0(one_of("rwxXst"))));
    let action = (one_of("+-="), permissions);
    let clause = (many0(one_of("ugoa")), many1(action));
    let mut parser = all_consuming(separated_list1(char(','), clause));
    let parsed: nom::IResult<&str, Vec<Clause>> = parser.parse(text);
    parsed.ok().map(|(_, clauses)| clauses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_or_symbolic() {
        assert_eq!(parse("0755"), Ok(Chmod::Octal(0o755)));
        assert_eq!(parse("4711"), Ok(Chmod::Octal(0o4711)));
        assert_eq!(parse("u=rwX,go=rX"), Ok(Chmod::Symbolic("u=rwX,go=rX".into())));
        for bad in ["64a", "10000", "", "888", "u=q", "+x,"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let message = "invalid chmod parameter: '64a'. it should be octal string and between 0 and 07777";
        assert_eq!(parse("64a").unwrap_err().to_string(), message);
    }

    #[test]
    fn symbolic_modes_apply() {
        for (spec, mode, is_directory, expected) in [
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o777, false, 0o555),
            ("g=u", 0o640, false, 0o660),
            ("u+s", 0o755, false, 0o4755),
            ("u=rw", 0o4755, false, 0o655),
            ("o+t", 0o777, true, 0o1777),
            ("ug+rw-x", 0o111, false, 0o661),
        ] {
            assert_eq!(apply_symbolic(spec, mode, is_directory), Ok(expected), "{spec} {mode:o}");
        }
    }
}
