//! Stand-in for the parser crate's pattern matcher, with the same names: the one place to change when that is there.

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    glob: Vec<u8>,
    negated: bool,
}

#[derive(Clone, Debug, Default)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, Default)]
pub struct State {
    matched: Vec<bool>,
}

impl PatternMatcher {
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<PatternMatcher, String> {
        let mut out = Vec::new();
        for p in patterns {
            let p = p.as_ref().trim();
            if p.is_empty() {
                continue;
            }
            let (negated, rest) = match p.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, p),
            };
            if rest.is_empty() {
                return Err("illegal exclusion pattern: \"!\"".into());
            }
            out.push(Pattern { text: p.into(), glob: super::path::clean(rest.as_bytes()), negated });
        }
        Ok(PatternMatcher { patterns: out })
    }

    pub fn root_state(&self) -> State {
        State { matched: vec![false; self.patterns.len()] }
    }

    pub fn step(&self, state: &State, path: &[u8]) -> (bool, State) {
        let mut excluded = false;
        let mut matched = Vec::new();
        for (p, up) in self.patterns.iter().zip(&state.matched) {
            let m = *up || (!p.glob.is_empty() && glob(&p.glob, path));
            matched.push(m);
            if m {
                excluded = !p.negated;
            }
        }
        (excluded, State { matched })
    }

    pub fn is_excluded(&self, path: &[u8]) -> bool {
        self.walk(path).0
    }

    fn walk(&self, path: &[u8]) -> (bool, State) {
        let mut out = (false, self.root_state());
        for end in path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i).chain([path.len()]) {
            out = self.step(&out.1, &path[..end]);
        }
        out
    }

    pub fn may_reinclude_below(&self, _path: &[u8]) -> bool {
        self.has_negations()
    }

    pub fn has_negations(&self) -> bool {
        self.patterns.iter().any(|p| p.negated)
    }

    pub fn deciding_pattern(&self, path: &[u8]) -> Option<&str> {
        let (excluded, state) = self.walk(path);
        let i = state.matched.iter().rposition(|m| *m)?;
        excluded.then_some(self.patterns[i].text.as_str())
    }
}

fn glob(p: &[u8], s: &[u8]) -> bool {
    match p {
        [] => s.is_empty(),
        [b'*', b'*', b'/', rest @ ..] => glob(rest, s) || (0..s.len()).any(|i| s[i] == b'/' && glob(rest, &s[i + 1..])),
        [b'*', b'*', rest @ ..] => (0..=s.len()).any(|i| glob(rest, &s[i..])),
        [b'*', rest @ ..] => (0..=s.len()).take_while(|&i| i == 0 || s[i - 1] != b'/').any(|i| glob(rest, &s[i..])),
        [b'?', rest @ ..] => matches!(s, [c, tail @ ..] if *c != b'/' && glob(rest, tail)),
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|&b| b == b']') else { return false };
            let (class, rest) = (&rest[..end], &rest[end + 1..]);
            let (neg, class) = match class {
                [b'^', c @ ..] => (true, c),
                c => (false, c),
            };
            let [c, tail @ ..] = s else { return false };
            let mut hit = false;
            let mut i = 0;
            while i < class.len() {
                if i + 2 < class.len() && class[i + 1] == b'-' {
                    hit |= class[i] <= *c && *c <= class[i + 2];
                    i += 3;
                } else {
                    hit |= class[i] == *c;
                    i += 1;
                }
            }
            hit != neg && glob(rest, tail)
        }
        [b'\\', c, rest @ ..] | [c, rest @ ..] => matches!(s, [d, tail @ ..] if c == d && glob(rest, tail)),
    }
}

pub fn match_path(pattern: &[u8], path: &[u8]) -> bool {
    glob(pattern, path)
}

pub fn has_wildcard(pattern: &[u8]) -> bool {
    let mut bytes = pattern.iter();
    while let Some(b) = bytes.next() {
        match b {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

pub fn apply_symbolic(spec: &str, mode: u32, is_dir: bool) -> Result<u32, String> {
    let mut mode = mode;
    for clause in spec.split(',') {
        let at = clause.find(['=', '+', '-']).ok_or_else(|| "bad".to_string())?;
        let mut who: u32 = 0;
        for c in clause[..at].chars() {
            who |= match c {
                'u' => 0o700,
                'g' => 0o070,
                'o' => 0o007,
                _ => 0o777,
            };
        }
        let who = if who == 0 { 0o777 } else { who };
        let mut bits = 0;
        for c in clause[at + 1..].chars() {
            bits |= match c {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if is_dir || mode & 0o111 != 0 => 0o111,
                'X' => 0,
                _ => return Err("bad".into()),
            };
        }
        match clause.as_bytes()[at] {
            b'=' => mode = mode & !who | bits & who,
            b'+' => mode |= bits & who,
            _ => mode &= !(bits & who),
        }
    }
    Ok(mode)
}
