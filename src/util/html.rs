//! HTML pages that are one file, without scripts and without anything from a network.

const STYLE: &str = include_str!("html.css");

/// Escapes a text for HTML and XML, also inside quotes, and spells out control characters.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // These change the direction of the text after them.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => safe.extend(character.escape_unicode()),
            character if character.is_control() => safe.extend(character.escape_default()),
            character => safe.push(character),
        }
    }
    safe
}

/// Returns a page with this title. `body` is HTML.
pub fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
    )
}

/// Returns a section of a page. `about` and `content` are HTML.
pub fn section(heading: &str, about: &str, content: &str) -> String {
    let about = if about.is_empty() { String::new() } else { format!("<p>{about}</p>\n") };
    format!("<section>\n<h2>{}</h2>\n{about}{content}\n</section>\n", escape(heading))
}

/// Returns a list of names and values, which are texts.
pub fn facts(facts: &[(&str, String)]) -> String {
    let fact =
        |(name, value): &(&str, String)| format!("<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(value));
    format!("<dl>\n{}</dl>\n", facts.iter().map(fact).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        assert_eq!(
            escape("<b a=\"x\" c='y'>&\u{1b}[2J\u{202e}x"),
            "&lt;b a=&quot;x&quot; c=&#39;y&#39;&gt;&amp;\\u{1b}[2J\\u{202e}x"
        );
        let page = page("</title><script>", &section("<a>", "", &facts(&[("<b>", "<c>".into())])));
        assert!(
            !["</title><", "<script", "<a>", "<b>", "<c>"].iter().any(|markup| page.contains(markup)),
            "{page}"
        );
    }
}
