//! Methods of Python's `str` that minijinja's Python layer lacks.

use minijinja::value::Value;
use minijinja::{Error, ErrorKind};

/// Characters a text may be padded to.
const WIDEST: usize = 1 << 20;

/// The result of a method of a text; `None` for one that is not known here or called otherwise.
pub(super) fn text(text: &str, name: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
    let word = |index: usize| arguments.get(index).and_then(Value::as_str);
    let list = |items: &[&str]| items.iter().map(|item| Value::from(*item)).collect::<Value>();
    let parts = |items: [&str; 3]| list(&items);
    Some(Ok(match (name, arguments.len()) {
        ("casefold", 0) => Value::from(text.to_lowercase()),
        ("swapcase", 0) => {
            text.chars()
                .map(|c| {
                    if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() }
                })
                .collect::<String>()
                .into()
        }
        ("isdecimal", 0) => Value::from(!text.is_empty() && text.chars().all(char::is_numeric)),
        ("istitle", 0) => Value::from(is_title(text)),
        ("removeprefix", 1) => Value::from(text.strip_prefix(word(0)?).unwrap_or(text)),
        ("removesuffix", 1) => Value::from(text.strip_suffix(word(0)?).unwrap_or(text)),
        ("partition", 1) => {
            let by = word(0)?;
            parts(text.split_once(by).map_or([text, "", ""], |(a, b)| [a, by, b]))
        }
        ("rpartition", 1) => {
            let by = word(0)?;
            parts(text.rsplit_once(by).map_or(["", "", text], |(a, b)| [a, by, b]))
        }
        ("rsplit", 1) => list(&text.split(word(0)?).collect::<Vec<_>>()),
        ("rsplit", 2) => {
            let most = arguments[1].as_usize()?;
            let mut made: Vec<&str> = text.rsplitn(most.checked_add(1)?, word(0)?).collect();
            made.reverse();
            list(&made)
        }
        ("index" | "rindex", 1) => {
            let wanted = word(0)?;
            let at = if name == "index" { text.find(wanted) } else { text.rfind(wanted) };
            match at {
                Some(at) => Value::from(text[..at].chars().count()),
                None => {
                    return Some(Err(Error::new(ErrorKind::InvalidOperation, "substring not found")));
                }
            }
        }
        ("zfill", 1) => {
            let (sign, digits) = match text.as_bytes().first() {
                Some(b'+' | b'-') => text.split_at(1),
                _ => ("", text),
            };
            let gap = match gap(text, &arguments[0])? {
                Ok(gap) => gap,
                Err(error) => return Some(Err(error)),
            };
            Value::from(format!("{sign}{}{digits}", "0".repeat(gap)))
        }
        ("ljust" | "rjust" | "center", 1 | 2) => {
            let fill = match arguments.get(1) {
                None => " ",
                Some(fill) => fill.as_str().filter(|fill| fill.chars().count() == 1)?,
            };
            let gap = match gap(text, &arguments[0])? {
                Ok(gap) => gap,
                Err(error) => return Some(Err(error)),
            };
            let left = match name {
                "ljust" => 0,
                "rjust" => gap,
                // CPython gives the odd one to the left where the width is odd.
                _ => gap / 2 + (gap & arguments[0].as_usize()? & 1),
            };
            Value::from(format!("{}{text}{}", fill.repeat(left), fill.repeat(gap - left)))
        }
        _ => return None,
    }))
}

/// How many characters are missing to a width.
fn gap(text: &str, width: &Value) -> Option<Result<usize, Error>> {
    let width = usize::try_from(width.as_i64()?.max(0)).ok()?;
    if width > WIDEST {
        return Some(Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("a text may be padded to at most {WIDEST} characters"),
        )));
    }
    Some(Ok(width.saturating_sub(text.chars().count())))
}

/// `str.istitle()`: capitals begin words, small letters go on, and there is a letter.
fn is_title(text: &str) -> bool {
    let (mut before, mut any) = (false, false);
    for c in text.chars() {
        if c.is_uppercase() && before || c.is_lowercase() && !before {
            return false;
        }
        before = c.is_alphabetic();
        any |= before;
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_in_python() {
        let call = |s: &str, name: &str, arguments: &[Value]| {
            text(s, name, arguments).unwrap().map(|v| v.to_string()).unwrap_or_else(|e| e.to_string())
        };
        assert_eq!(call("-7", "zfill", &[4.into()]), "-007");
        assert_eq!(call("ab", "center", &[5.into(), "*".into()]), "**ab*");
        assert_eq!(call("abc", "center", &[6.into()]), " abc  ");
        assert_eq!(call("ab", "rjust", &[4.into()]), "  ab");
        assert_eq!(call("aBc", "swapcase", &[]), "AbC");
        assert_eq!(call("a.b.c", "rsplit", &[".".into(), 1.into()]), "['a.b', 'c']");
        assert_eq!(call("a.b.c", "rpartition", &[".".into()]), "['a.b', '.', 'c']");
        assert_eq!(call("Gi0/1", "removeprefix", &["Gi".into()]), "0/1");
        assert_eq!(call("éa", "index", &["a".into()]), "1");
        assert!(call("a", "index", &["x".into()]).contains("not found"));
        assert!(call("a", "ljust", &[(1i64 << 40).into()]).contains("at most"));
        assert_eq!(call("A Title", "istitle", &[]), "True");
        assert_eq!(call("A tItle", "istitle", &[]), "False");
    }
}
