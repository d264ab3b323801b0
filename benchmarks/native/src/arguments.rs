//! `--name value` pairs, the whole command line of both programs.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

/// Options given on the command line; each may be taken once.
#[derive(Debug, Default)]
pub struct Arguments {
    values: HashMap<String, String>,
}

impl Arguments {
    /// Read `--name value` pairs.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut values = HashMap::new();
        while let Some(word) = words.next() {
            let name = word
                .strip_prefix("--")
                .ok_or_else(|| format!("expected an option, found {word:?}"))?;
            let value = words
                .next()
                .ok_or_else(|| format!("--{name} needs a value"))?;
            values.insert(name.to_owned(), value);
        }
        Ok(Self { values })
    }

    /// The value of `--name`, or `default` where it was not given.
    pub fn take<T>(&mut self, name: &str, default: T) -> Result<T, String>
    where
        T: FromStr,
        T::Err: Display,
    {
        match self.values.remove(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|error| format!("--{name} {text:?}: {error}")),
        }
    }

    /// Fail on an option that nobody took: a misspelt one must not be measured with its default.
    pub fn finish(self) -> Result<(), String> {
        match self.values.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("unknown option --{name}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Arguments;

    fn words(text: &str) -> impl Iterator<Item = String> {
        text.split(' ').map(str::to_owned)
    }

    #[test]
    fn takes_given_values_and_defaults() {
        let mut arguments = Arguments::parse(words("--rate 10.5 --path /x")).unwrap();
        assert!((arguments.take("rate", 0.0).unwrap() - 10.5_f64).abs() < 1e-9);
        assert_eq!(arguments.take("conns", 7_usize).unwrap(), 7);
        assert_eq!(arguments.take("path", String::new()).unwrap(), "/x");
        arguments.finish().unwrap();
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let arguments = Arguments::parse(words("--rtae 10")).unwrap();
        assert_eq!(arguments.finish().unwrap_err(), "unknown option --rtae");
        assert!(Arguments::parse(words("rate 10")).is_err());
        assert!(Arguments::parse(words("--rate")).is_err());
    }
}
