//! Attributes: the constants that an operation carries, each with a text form that reads back exactly.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use cerium_ckks::basis::{Basis, Level, PrimeIndex};

/// A constant with a text form. `read(write(x)) == x`.
pub trait Attribute: Sized {
    /// Appends the text form.
    fn write(&self, out: &mut String);
    /// Reads a text form; the error says what was expected.
    fn read(text: &str) -> Result<Self, String>;
}

/// A finite or infinite real compared and hashed by its bits, so that operations can be hashed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Number(pub f64);

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for Number {}
impl Hash for Number {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The name of a function. Prints as `@name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(pub Arc<str>);

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

impl Attribute for Symbol {
    fn write(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }
    fn read(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix('@').filter(|name| !name.is_empty());
        name.map(|name| Symbol(name.into()))
            .ok_or_else(|| format!("`{text}` is not a function name like @main"))
    }
}

/// Text form by `Display` and `FromStr`.
macro_rules! plain_attribute {
    ($($type:ty: $what:literal),* $(,)?) => {$(
        impl Attribute for $type {
            fn write(&self, out: &mut String) {
                out.push_str(&self.to_string());
            }
            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!(concat!("`{}` is not ", $what), text))
            }
        }
    )*};
}
plain_attribute!(u8: "a number", u32: "a number", u64: "a number", i64: "an integer", usize: "a number", bool: "true or false");

impl Attribute for Number {
    fn write(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map(Number).map_err(|_| format!("`{text}` is not a number"))
    }
}

impl<T: Attribute> Attribute for Option<T> {
    fn write(&self, out: &mut String) {
        match self {
            Some(value) => value.write(out),
            None => out.push_str("none"),
        }
    }
    fn read(text: &str) -> Result<Self, String> {
        if text == "none" { Ok(None) } else { T::read(text).map(Some) }
    }
}

impl<T: Attribute> Attribute for Vec<T> {
    fn write(&self, out: &mut String) {
        out.push('[');
        for (i, item) in self.iter().enumerate() {
            if i > 0 {
                out.push(' ');
            }
            item.write(out);
        }
        out.push(']');
    }
    fn read(text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let inner = inner.ok_or_else(|| format!("`{text}` is not a list like [1 2 3]"))?;
        inner.split_whitespace().map(T::read).collect()
    }
}

impl Attribute for Level {
    fn write(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }
    fn read(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix('L').and_then(|t| t.parse().ok());
        number.map(Level).ok_or_else(|| format!("`{text}` is not a level like L3"))
    }
}

impl Attribute for PrimeIndex {
    fn write(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }
    fn read(text: &str) -> Result<Self, String> {
        let number: Option<u8> = text.strip_prefix('p').and_then(|t| t.parse().ok());
        let prime = number.filter(|&n| usize::from(n) < Basis::MAX_PRIMES).map(PrimeIndex);
        prime.ok_or_else(|| format!("`{text}` is not a prime index like p7"))
    }
}

impl Attribute for Basis {
    fn write(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }
    fn read(text: &str) -> Result<Self, String> {
        let error = || format!("`{text}` is not a basis like {{0-5,12}}");
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(error)?;
        let mut basis = Basis::EMPTY;
        for range in inner.split(',').filter(|r| !r.is_empty()) {
            let (start, end) = range.split_once('-').unwrap_or((range, range));
            let start: usize = start.parse().map_err(|_| error())?;
            let end: usize = end.parse().map_err(|_| error())?;
            if start > end || end >= Basis::MAX_PRIMES {
                return Err(error());
            }
            basis = basis.union(Basis::range(start, end + 1));
        }
        Ok(basis)
    }
}
