//! A line in words and options, and durations.

use super::NamedError;
use super::error::{fault, hint};

/// Words in order, and the options among them.
#[derive(Debug, Default)]
pub(super) struct Words<'a> {
    pub(super) words: Vec<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    /// Sorts `--name value` and `--name=value` out.
    pub(super) fn new(all: &'a [String]) -> Result<Self, NamedError> {
        let mut sorted = Self::default();
        let mut left = all.iter();
        while let Some(word) = left.next() {
            let Some(option) = word.strip_prefix("--") else {
                sorted.words.push(word);
                continue;
            };
            let (name, value) = match option.split_once('=') {
                Some(pair) => pair,
                None => match left.next() {
                    Some(value) => (option, value.as_str()),
                    None => return fault(format!("--{option}: its value is missing")),
                },
            };
            if sorted.options.iter().any(|(known, _)| *known == name) {
                return fault(format!("--{name} is given twice"));
            }
            sorted.options.push((name, value));
        }
        if sorted.words.last() == Some(&"-") {
            return fault(
                "the line ends in `-`: a shell takes the `>` of `->` for a redirection; write `do`",
            );
        }
        Ok(sorted)
    }

    /// The option's value, taken out.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.options.iter().position(|(known, _)| *known == name)?;
        Some(self.options.remove(at).1)
    }

    /// The option as a number from `least` to the type's largest, taken out.
    pub(super) fn number<T>(&mut self, name: &str, least: T) -> Result<Option<T>, NamedError>
    where
        T: Bounded + std::str::FromStr + std::fmt::Display + PartialOrd,
    {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        match text.replace('_', "").parse::<T>() {
            Ok(number) if number >= least => Ok(Some(number)),
            _ => fault(format!(
                "--{name}: {text:?} is not a number from {least} to {}",
                T::LARGEST
            )),
        }
    }

    /// The option as nanoseconds, taken out.
    pub(super) fn duration(&mut self, name: &str) -> Result<Option<i64>, NamedError> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        match parse_duration(text) {
            Some(ns) => Ok(Some(ns)),
            None => fault(format!(
                "--{name}: {text:?} is not a duration, such as 30s, 500ms, 5m or 1h"
            )),
        }
    }

    /// Refuses options that nobody took.
    pub(super) fn done(&self, what: &str, known: &[&str]) -> Result<(), NamedError> {
        match self.options.first() {
            None => Ok(()),
            Some((name, _)) => fault(format!(
                "{what} takes no --{name}{}",
                hint(name, known.iter().copied())
            )),
        }
    }
}

/// A number that has a largest one.
pub(super) trait Bounded {
    const LARGEST: Self;
}

impl Bounded for i32 {
    const LARGEST: Self = Self::MAX;
}

impl Bounded for u32 {
    const LARGEST: Self = Self::MAX;
}

impl Bounded for i64 {
    const LARGEST: Self = Self::MAX;
}

/// Words of a line: split at blanks, except between quotation marks. `#` begins
/// a comment.
pub(super) fn split(line: &str) -> Result<Vec<String>, NamedError> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '#' if word.is_none() => break,
            letter if letter.is_whitespace() => words.extend(word.take()),
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        Some('"') => break,
                        Some('\\') => word.extend(letters.next()),
                        Some(letter) => word.push(letter),
                        None => return fault("a quotation mark is not closed"),
                    }
                }
            }
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

/// A value as a word: between quotation marks where it has to be.
pub(super) fn quoted(value: &str) -> String {
    let plain = |letter: char| !letter.is_whitespace() && !matches!(letter, '"' | '\\' | '#');
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let mut text = "\"".to_owned();
    for letter in value.chars() {
        if matches!(letter, '"' | '\\') {
            text.push('\\');
        }
        text.push(letter);
    }
    text.push('"');
    text
}

const UNITS: [(&str, i64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

fn parse_duration(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    if number == "0" && unit.is_empty() {
        return Some(0);
    }
    let (_, ns) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<i64>().ok()?.checked_mul(*ns)
}

/// Exact, in the largest unit that divides it; the reverse of parsing.
pub(super) fn show_duration(ns: i64) -> String {
    let fits = |(_, unit): &&(&str, i64)| ns != 0 && ns % unit == 0;
    match UNITS.iter().filter(|(name, _)| *name != "h").find(fits) {
        Some((name, unit)) => format!("{}{name}", ns / unit),
        None => "0s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_and_values_quoted() {
        let line = r#"table t a="x y" b="say \"hi\" \\" # the rest"#;
        let words = split(line).unwrap();
        assert_eq!(words, ["table", "t", "a=x y", r#"b=say "hi" \"#]);
        for value in ["plain", "x y", r#"say "hi" \"#, "#1", ""] {
            assert_eq!(split(&quoted(value)).unwrap(), [value], "{value}");
        }
        assert!(split("a=\"open").is_err());
        assert_eq!(split("  # nothing").unwrap(), [""; 0]);
    }

    #[test]
    fn durations_are_exact() {
        for text in ["0s", "30s", "1500ms", "2m", "7us", "1ns"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(parse_duration("1h"), Some(3_600_000_000_000));
        for bad in ["", "s", "-1s", "5", "1 s", "9999999999h", "1.5s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_a_shell_ate_is_named() {
        let words = ["t".to_owned(), "-".to_owned()];
        let error = Words::new(&words).unwrap_err().to_string();
        assert!(error.contains("write `do`"), "{error}");
    }
}
