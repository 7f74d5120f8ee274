//! The `Forwarded` header field (RFC 7239), one element per proxy.

use axum::http::HeaderMap;

const FORWARDED: &str = "forwarded";

/// Statement of one proxy about its peer and about the request that it received.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// Address of the peer, or an identifier that is no address.
    pub(super) node: Option<String>,
    pub(super) proto: Option<String>,
    pub(super) host: Option<String>,
}

/// Returns the elements of a request, the last proxy's first.
///
/// Ends at a malformed line: its elements, and the lines before it, cannot be attributed to proxies.
pub(super) fn elements(headers: &HeaderMap) -> Vec<Element> {
    let lines = headers.get_all(FORWARDED).iter().rev();
    let lines = lines.map_while(|line| parse(line.to_str().ok()?));
    lines.flat_map(|line| line.into_iter().rev()).collect()
}

/// Parses a line from left to right, because a quoted value may contain commas.
fn parse(line: &str) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    let mut names = Vec::new();
    let mut element = Element::default();
    let mut rest = line.trim();
    loop {
        if !rest.is_empty() && !rest.starts_with([';', ',']) {
            let (name, after) = rest.split_once('=')?;
            let (value, after) = value(after)?;
            let name = name.to_ascii_lowercase();
            if !is_token(&name) || names.contains(&name) {
                return None;
            }
            match name.as_str() {
                "for" => element.node = Some(value),
                "proto" => element.proto = Some(value),
                "host" => element.host = Some(value),
                _ => {}
            }
            names.push(name);
            rest = after.trim_start();
        }
        let Some(separator) = rest.chars().next() else {
            break;
        };
        match separator {
            ';' => {}
            ',' => finish(&mut elements, &mut names, &mut element),
            _ => return None,
        }
        rest = rest[1..].trim_start();
    }
    finish(&mut elements, &mut names, &mut element);
    Some(elements)
}

/// Adds the element unless it is empty.
fn finish(elements: &mut Vec<Element>, names: &mut Vec<String>, element: &mut Element) {
    if !names.is_empty() {
        elements.push(std::mem::take(element));
        names.clear();
    }
}

/// Parses a token or a quoted string, and returns what follows it. Many proxies do not quote addresses and hosts.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (!value.is_empty() && !value.contains('"')).then(|| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            other => value.push(other),
        }
    }
}

fn is_token(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(node: &str, proto: &str, host: &str) -> Element {
        let value = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Element {
            node: value(node),
            proto: value(proto),
            host: value(host),
        }
    }

    #[test]
    fn an_element_has_parameters_in_any_order_and_case() {
        for (line, expected) in [
            (
                "for=203.0.113.9;proto=https;host=blog.example",
                element("203.0.113.9", "https", "blog.example"),
            ),
            (
                " Host=\"blog.example:8443\" ; FOR=\"[2001:db8::7]:4711\" ;by=_x ",
                element("[2001:db8::7]:4711", "", "blog.example:8443"),
            ),
            ("proto=http;;host=[::1]:80", element("", "http", "[::1]:80")),
            ("host=\"a\\\"b,c;d\\\\\"", element("", "", "a\"b,c;d\\")),
            ("secret=x", element("", "", "")),
        ] {
            assert_eq!(parse(line), Some(vec![expected]), "{line}");
        }
        assert_eq!(parse(" , ;"), Some(Vec::new()));
    }

    #[test]
    fn a_malformed_line_has_no_elements() {
        for line in [
            "for",
            "for=",
            "for=;proto=https",
            "=a",
            "for =a",
            "for= a",
            "for=\"a",
            "for=\"a\\",
            "for=\"a\"b",
            "for=a\"b\"",
            "for=a b",
            "for=a;for=b",
            // A client leaves a quote open, to hide the element that a proxy appends.
            "host=\"evil, for=198.51.100.7;host=\"blog.example\"",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn lines_left_of_a_malformed_one_are_ignored() {
        let mut headers = HeaderMap::new();
        for line in ["for=1.1.1.1", "for=\"", "for=2.2.2.2, for=3.3.3.3", "for=4.4.4.4"] {
            headers.append(FORWARDED, line.parse().unwrap());
        }
        let nodes: Vec<_> = elements(&headers)
            .into_iter()
            .map(|element| element.node.unwrap())
            .collect();
        assert_eq!(nodes, ["4.4.4.4", "3.3.3.3", "2.2.2.2"]);
    }
}
