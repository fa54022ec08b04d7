//! Text that is safe to stand in a page.
//!
//! Names come from files that others made. A page is put together from [`Html`], which text becomes by escaping only; and the
//! template is filled in one pass, so that what was filled in is never looked at again. This is all that the one page needs, so no
//! library of templates is used.

use std::fmt;

/// A piece of a page: well-formed, also as XML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Html(String);

impl Html {
    /// A piece written by hand. `trusted` has no part that came from a file.
    pub(super) fn raw(trusted: impl Into<String>) -> Html {
        Html(trusted.into())
    }

    /// Any text, as the content of an element or of an attribute in double quotes.
    pub(super) fn text(text: &str) -> Html {
        let mut escaped = String::with_capacity(text.len());
        for c in super::layers::printable(text).chars() {
            match c {
                '&' => escaped += "&amp;",
                '<' => escaped += "&lt;",
                '>' => escaped += "&gt;",
                '"' => escaped += "&quot;",
                '\'' => escaped += "&#39;",
                c => escaped.push(c),
            }
        }
        Html(escaped)
    }

    /// An element with attributes that are known to be harmless (`class="name"`), or none.
    pub(super) fn element(tag: &str, attributes: &str, content: &Html) -> Html {
        let space = if attributes.is_empty() { "" } else { " " };
        Html(format!("<{tag}{space}{attributes}>{content}</{tag}>"))
    }
}

impl fmt::Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromIterator<Html> for Html {
    fn from_iter<T: IntoIterator<Item = Html>>(parts: T) -> Html {
        Html(parts.into_iter().map(|part| part.0).collect())
    }
}

/// Puts parts into a template, each where its name stands in double braces.
///
/// # Panics
/// If the template names a part that is not given, or does not close its braces.
pub(super) fn fill(template: &str, parts: &[(&str, Html)]) -> String {
    let mut page = String::new();
    let mut pieces = template.split("{{");
    page += pieces.next().unwrap_or_default();
    for piece in pieces {
        let (name, rest) = piece.split_once("}}").expect("the template closes its braces");
        let part = parts.iter().find(|(known, _)| *known == name);
        page += &part.unwrap_or_else(|| panic!("the template names `{name}`, which is not given")).1.0;
        page += rest;
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let hostile = "</td><script>alert('1' & \"2\")</script>\u{1b}[2J\u{202e}";
        let expected = "&lt;/td&gt;&lt;script&gt;alert(&#39;1&#39; &amp; &quot;2&quot;)&lt;/script&gt;\u{fffd}[2J\u{fffd}";
        assert_eq!(Html::text(hostile).to_string(), expected);
    }

    #[test]
    fn what_is_filled_in_is_not_looked_at_again() {
        let parts = [("a", Html::text("{{b}}")), ("b", Html::raw("<br/>"))];
        assert_eq!(fill("<p>{{a}} and {{b}}{{a}}</p>", &parts), "<p>{{b}} and <br/>{{b}}</p>");
    }
}
