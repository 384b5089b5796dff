//! Lines of output as HTML: colours are kept, everything else that would steer a terminal goes.

use crate::draw::svg::escaped;
use std::fmt::Write;

/// What is in force at a place of a line.
#[derive(Clone, Copy, Default, PartialEq)]
struct Look {
    bold: bool,
    faint: bool,
    underlined: bool,
    /// 0 to 15.
    colour: Option<u8>,
}

/// The line as escaped text, with spans of the classes `b`, `d`, `u` and `c0` to `c15`. Colours end with the line.
pub fn line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let (mut look, mut run) = (Look::default(), String::new());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\x1b' {
            // Control characters other than tabs are not seen on a terminal either.
            if c == '\t' || !c.is_control() {
                run.push(c);
            }
            continue;
        }
        match chars.next() {
            Some('[') => {
                let rest = chars.as_str();
                let end = chars.find(|c| ('\x40'..='\x7e').contains(c));
                if end == Some('m') {
                    let parameters = &rest[..rest.len() - chars.as_str().len() - 1];
                    let before = look;
                    look.apply(parameters);
                    if look != before {
                        before.write(&mut out, &run);
                        run.clear();
                    }
                }
            }
            // A command for the terminal itself, such as its title or a link: up to a bell, or to an escape that ends it.
            Some(']' | 'P' | 'X' | '^' | '_') => {
                if let Some('\x1b') = chars.find(|c| matches!(c, '\x07' | '\x1b')) {
                    chars.next();
                }
            }
            _ => {}
        }
    }
    look.write(&mut out, &run);
    out
}

impl Look {
    fn apply(&mut self, parameters: &str) {
        let mut numbers = parameters.split([';', ':']).map(|number| match number {
            "" => Some(0),
            number => number.parse::<u16>().ok(),
        });
        while let Some(number) = numbers.next() {
            match number {
                Some(0) => *self = Look::default(),
                Some(1) => self.bold = true,
                Some(2) => self.faint = true,
                Some(4) => self.underlined = true,
                Some(22) => (self.bold, self.faint) = (false, false),
                Some(24) => self.underlined = false,
                Some(number @ 30..=37) => self.colour = Some((number - 30) as u8),
                Some(39) => self.colour = None,
                Some(number @ 90..=97) => self.colour = Some((number - 82) as u8),
                Some(which @ (38 | 48)) => match numbers.next().flatten() {
                    Some(5) => {
                        let colour = numbers.next().flatten().filter(|colour| *colour < 16);
                        if which == 38 {
                            self.colour = colour.map(|colour| colour as u8);
                        }
                    }
                    Some(2) => {
                        numbers.by_ref().take(3).for_each(drop);
                        if which == 38 {
                            self.colour = None;
                        }
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }

    fn write(self, out: &mut String, text: &str) {
        if text.is_empty() {
            return;
        }
        let classes = [(self.bold, "b"), (self.faint, "d"), (self.underlined, "u")];
        let mut classes: Vec<String> =
            classes.iter().filter(|(is_so, _)| *is_so).map(|(_, class)| (*class).to_owned()).collect();
        classes.extend(self.colour.map(|colour| format!("c{colour}")));
        // Writing to a string does not fail.
        let _ = match classes.is_empty() {
            true => write!(out, "{}", escaped(text)),
            false => write!(out, "<span class=\"{}\">{}</span>", classes.join(" "), escaped(text)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_stay_and_commands_go() {
        for (text, expected) in [
            ("plain <b>", "plain &lt;b&gt;"),
            ("\x1b[31mred\x1b[0m \x1b[1;92mgreen", "<span class=\"c1\">red</span> <span class=\"b c10\">green</span>"),
            ("\x1b[2J\x1b[Hx\x07\x08\ty", "x\ty"),
            ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link", "alink"),
            ("\x1b[38;5;4mblue\x1b[38;2;1;2;3mtrue\x1b[48;5;1mb", "<span class=\"c4\">blue</span>trueb"),
            ("\x1b[31", ""),
            ("\x1b", ""),
            ("\x1b[999999999mx", "x"),
        ] {
            assert_eq!(line(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(line(b"\xff\x00"), "\u{fffd}");
    }
}
