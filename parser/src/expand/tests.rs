use super::*;

fn expand(word: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let scope: HashMap<String, String> =
        variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let expansion = Expander::new('\\').word(word, &scope).map_err(|error| error.reason.to_string())?;
    Ok(expansion.text)
}

#[test]
fn quotes_and_escapes() {
    let cases = [
        (r"a\tb", "atb"),
        (r#""a\tb""#, r"a\tb"),
        (r#""a\"b\$v\\""#, r#"a"b$v\"#),
        (r"'a\tb$v'", r"a\tb$v"),
        (r"a\", "a"),
        ("a'b c'\"d\"e", "ab cde"),
        (r"\${v}", "${v}"),
        (r"\$v", "$v"),
        (r"x\\", r"x\"),
        ("", ""),
    ];
    for (word, expected) in cases {
        assert_eq!(expand(word, &[("v", "1")]).as_deref(), Ok(expected), "{word}");
    }
    let backtick = Expander::new('`').word(r"`$a\b`", &NoVariables).unwrap();
    assert_eq!(backtick.text, r"$a\b");
}

#[test]
fn names() {
    let variables = [("v", "V"), ("v_1é", "W"), ("HOME", "h")];
    let cases = [
        ("$v", "V"),
        ("${v}", "V"),
        ("$v_1é.", "W."),
        ("$vx", ""),
        ("$1x", "x"),
        ("$999aaa", "aaa"),
        ("x=$$y", "x=y"),
        ("$@$*$#$?$-$!$0", ""),
        ("he$.x", "he$.x"),
        ("a$", "a$"),
        ("\"$v$v\"", "VV"),
        ("'$HOME'", "$HOME"),
        ("$v/$HOME", "V/h"),
    ];
    for (word, expected) in cases {
        assert_eq!(expand(word, &variables).as_deref(), Ok(expected), "{word}");
    }
}

/// The table of D11.7: unset, empty, set.
#[test]
fn conditional_modifiers() {
    let cases = [
        ("${v:-w}", Ok("w"), Ok("w"), Ok("x")),
        ("${v-w}", Ok("w"), Ok(""), Ok("x")),
        ("${v:+w}", Ok(""), Ok(""), Ok("w")),
        ("${v+w}", Ok(""), Ok("w"), Ok("w")),
        ("${v:?w}", Err("v: w"), Err("v: w"), Ok("x")),
        ("${v?w}", Err("v: w"), Ok(""), Ok("x")),
        ("${v:?}", Err("v: is not allowed to be unset"), Err("v: is not allowed to be empty"), Ok("x")),
    ];
    for (word, unset, empty, set) in cases {
        let run = |variables: &[(&str, &str)]| expand(word, variables);
        for (variables, expected) in [(&[][..], unset), (&[("v", "")][..], empty), (&[("v", "x")][..], set)] {
            assert_eq!(run(variables), expected.map(String::from).map_err(String::from), "{word} {variables:?}");
        }
    }
}

#[test]
fn operands_expand_and_nest() {
    let variables = [("a", "1"), ("e", "")];
    let cases = [
        ("${v:-${w:-x}}", "x"),
        ("${v:-${a}}", "1"),
        ("${v:-$a}", "1"),
        ("${a:-b}}", "1}"),
        ("${v:-'a b'}", "a b"),
        ("${v:-\"a }\"}", "a }"),
        (r"${v:-a\}b}", "a}b"),
        ("${e:-${v:-${a:+deep}}}", "deep"),
    ];
    for (word, expected) in cases {
        assert_eq!(expand(word, &variables).as_deref(), Ok(expected), "{word}");
    }
}

#[test]
fn patterns() {
    let variables = [("v", "a/b/c"), ("s", r"x*y\z"), ("q", "a/*"), ("n", "aXbXc"), ("u", "é/ü")];
    let cases = [
        ("${v#*/}", "b/c"),
        ("${v##*/}", "c"),
        ("${v%/*}", "a/b"),
        ("${v%%/*}", "a"),
        ("${v/b/x}", "a/x/c"),
        (r"${v//\//-}", "a-b-c"),
        (r"${v/\//-}", "a-b/c"),
        ("${v#[ab]}", "a/b/c"),
        ("${v#?/}", "b/c"),
        ("${v#a}", "/b/c"),
        ("${v#b}", "a/b/c"),
        ("${v%?}", "a/b/"),
        ("${v#$q}", "b/c"),
        (r"${s#x\*}", r"y\z"),
        (r"${s%\\z}", "x*y"),
        ("${n/X/}", "abXc"),
        ("${n//X/}", "abc"),
        ("${n/X*/-}", "a-"),
        ("${n//?/.}", "....."),
        ("${u%/*}", "é"),
        ("${u#?}", "/ü"),
        ("${missing#a}", ""),
        ("${missing/*/x}", "x"),
        ("${v//#/x}", "a/b/c"),
        ("${n//X/$$}", "abc"),
    ];
    for (word, expected) in cases {
        assert_eq!(expand(word, &variables).as_deref(), Ok(expected), "{word}");
    }
    // D11.11a: escapes of the replacement stay.
    assert_eq!(expand(r"${v//\//\/}", &variables).as_deref(), Ok(r"a\/b\/c"));
    assert!(expand(r"${missing#\a}", &[]).unwrap_err().contains(r"invalid pattern (\a)"));
    assert!(expand(r"${v#\a}", &variables).unwrap_err().contains(r"invalid escape '\a'"));
}

#[test]
fn syntax_errors() {
    let cases = [
        ("${}", "bad substitution"),
        ("${{x}}", "bad substitution"),
        ("${:x}", "bad substitution"),
        ("${", "missing '}'"),
        ("${x", "missing '}'"),
        ("${x:-a", "missing '}'"),
        ("${x:-${y", "missing '}'"),
        ("${x=1}", "unsupported modifier (=)"),
        ("${v:=1}", "unsupported modifier (:=)"),
        ("${v:#a}", "unsupported modifier (:#)"),
        ("${v/a}", "missing '/' in ${}"),
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ("\"a", "unexpected end of statement while looking for matching double-quote"),
    ];
    for (word, message) in cases {
        let error = expand(word, &[]).unwrap_err();
        assert!(error.contains(message), "{word}: {error}");
    }
    let error = Expander::new('\\').word("\"a", &NoVariables).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"failed to process "\"a": unexpected end of statement while looking for matching double-quote"#
    );
}

#[test]
fn unset_names_are_reported_unless_provided_for() {
    let scope = vec![("a".to_owned(), "1".to_owned())];
    let expansion = Expander::new('\\').word("$a$b${c}${d:-x}${e#p}$$", &scope).unwrap();
    assert_eq!(expansion.unset.iter().map(String::as_str).collect::<Vec<_>>(), ["$", "b", "c", "e"]);
}

#[test]
fn splitting() {
    let scope = |name: &str| (name == "p").then(|| "80 81/udp".to_owned());
    let words = |text: &str| Expander::new('\\').words(text, &scope).unwrap().0;
    assert_eq!(words("$p"), ["80", "81/udp"]);
    assert_eq!(words("\"$p\""), ["80 81/udp"]);
    assert_eq!(words(r"a\ b c"), ["a b", "c"]);
    assert_eq!(words("x$p"), ["x80", "81/udp"]);
    assert!(words("$unset").is_empty());
}

#[test]
fn heredoc_bodies() {
    let scope = |name: &str| (name == "v").then(|| "1".to_owned());
    let body = |text: &str| Expander::new('`').heredoc(text, &scope).unwrap().text;
    assert_eq!(body("\"$v\" '$v'\n"), "\"1\" '1'\n");
    assert_eq!(body("a\\nb\n"), "anb\n");
    assert_eq!(body("\\\n"), "\n");
    assert_eq!(body("\\\\ \\$v it's\n"), "\\ $v it's\n");
    assert_eq!(body("a <<  b\n"), "a <<  b\n");
}

#[test]
fn display_keeps_quotes_and_unset_variables() {
    let scope = |name: &str| (name == "v").then(|| "1".to_owned());
    let display = |text: &str| Expander::new('\\').display(text, &scope);
    assert_eq!(display(r#"RUN echo "$v" '$v' $w ${w:-x} ${w}"#), r#"RUN echo "1" '$v' $w ${w:-x} ${w}"#);
    assert_eq!(display("RUN echo it's $v"), "RUN echo it's $v");
    assert_eq!(display("RUN ${"), "RUN ${");
}

#[test]
fn hostile_words_are_bounded() {
    let deep = format!("{}x{}", "${a:-".repeat(5000), "}".repeat(5000));
    assert_eq!(expand(&deep, &[]), Err(ExpandReason::TooDeep.to_string()));
    let long = "x".repeat(1 << 20);
    assert_eq!(expand(&"$v".repeat(20), &[("v", &long)]), Err(ExpandReason::TooLong.to_string()));
}

/// Each level would multiply the text by its length; a match from each of many places would never end.
#[test]
fn hostile_patterns_are_bounded() {
    let value = "v".repeat(1000);
    let scope = |name: &str| (name == "v").then(|| value.clone());
    let nested = (0..5).fold("x".to_owned(), |inner, _| format!("${{v//?/{inner}}}"));
    let error = Expander::new('\\').word(&nested, &scope).unwrap_err();
    assert_eq!(error.reason, ExpandReason::TooLong);
    let long = "v".repeat(1 << 20);
    let scope = |name: &str| (name == "v").then(|| long.clone());
    let error = Expander::new('\\').word("${v//v*x/}", &scope).unwrap_err();
    assert_eq!(error.reason, ExpandReason::TooSlow);
}
