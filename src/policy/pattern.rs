//! Model names with at most one `*`: `gpt-4o`, `claude-*`, `*-preview`, `*`.
//!
//! `*` stands for any bytes, none included. Matching is case-sensitive: model names are identifiers.
//! One star is the limit because what it stood for can be copied into the name of a target (`policy::route`).

/// A model name, exact or with one `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    Exact(Box<str>),
    Wild { before: Box<str>, after: Box<str> },
}

/// More than one `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyStars;

impl Pattern {
    /// Reads `text`. Errors: more than one `*`.
    pub fn new(text: &str) -> Result<Pattern, TooManyStars> {
        match text.split_once('*') {
            None => Ok(Pattern::Exact(text.into())),
            Some((_, after)) if after.contains('*') => Err(TooManyStars),
            Some((before, after)) => Ok(Pattern::Wild { before: before.into(), after: after.into() }),
        }
    }

    /// Whether `name` is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Exact(text) => **text == *name,
            Pattern::Wild { .. } => self.star(name).is_some(),
        }
    }

    /// Whether some name is meant by both.
    pub fn overlaps(&self, other: &Pattern) -> bool {
        match (self, other) {
            (Pattern::Exact(name), pattern) | (pattern, Pattern::Exact(name)) => pattern.matches(name),
            (Pattern::Wild { before: a, after: b }, Pattern::Wild { before: c, after: d }) => {
                (a.starts_with(&**c) || c.starts_with(&**a)) && (b.ends_with(&**d) || d.ends_with(&**b))
            }
        }
    }

    /// What the `*` stands for in `name`; none where `name` does not match or the pattern has no `*`.
    pub fn star<'n>(&self, name: &'n str) -> Option<&'n str> {
        match self {
            Pattern::Exact(_) => None,
            Pattern::Wild { before, after } => name.strip_prefix(&**before)?.strip_suffix(&**after),
        }
    }

    /// Bytes that are not the `*`: the longer, the more specific.
    pub fn literal_len(&self) -> usize {
        match self {
            Pattern::Exact(text) => text.len(),
            Pattern::Wild { before, after } => before.len() + after.len(),
        }
    }

    /// Whether it has a `*`.
    pub fn is_wild(&self) -> bool {
        matches!(self, Pattern::Wild { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::{Pattern, TooManyStars};

    #[test]
    fn a_star_stands_for_any_bytes_and_nothing_overlaps() {
        // pattern, name, what the star stands for
        let rows = [
            ("claude-*", "claude-sonnet-5", Some("sonnet-5")),
            ("claude-*", "claude-", Some("")),
            ("claude-*", "claude", None),
            ("claude-*", "xclaude-a", None),
            ("*-preview", "gpt-preview", Some("gpt")),
            ("*", "", Some("")),
            ("a*a", "a", None),
            ("a*a", "aa", Some("")),
            ("gpt-4o", "gpt-4o", None),
        ];
        for (pattern, name, star) in rows {
            assert_eq!(Pattern::new(pattern).unwrap().star(name), star, "{pattern} on {name}");
        }
        assert!(Pattern::new("gpt-4o").unwrap().matches("gpt-4o"));
        assert!(!Pattern::new("gpt-4o").unwrap().matches("gpt-4o-mini"));
    }

    #[test]
    fn patterns_overlap_where_one_name_fits_both() {
        let rows = [
            ("claude-*", "claude-*", true),
            ("claude-*", "claude-opus-*", true),
            ("claude-*", "*-latest", true),
            ("claude-*", "gpt-*", false),
            ("*-mini", "*-latest", false),
            ("claude-*", "claude-opus", true),
            ("claude-*", "gpt", false),
            ("gpt", "gpt", true),
        ];
        for (one, two, overlap) in rows {
            let (one, two) = (Pattern::new(one).unwrap(), Pattern::new(two).unwrap());
            assert_eq!((one.overlaps(&two), two.overlaps(&one)), (overlap, overlap), "{one:?} {two:?}");
        }
    }

    #[test]
    fn two_stars_are_refused() {
        assert_eq!(Pattern::new("a*b*"), Err(TooManyStars));
    }
}
