//! Grams: four consecutive bytes of a text, as positions in a bitmap. A bitmap of the grams of many texts tells that none of
//! them contains a text, or equals it, without reading them. The case of ASCII letters is ignored.

/// Number of positions.
pub(crate) const POSITIONS: usize = 1 << 17;

/// Number of bytes of a gram.
const LENGTH: usize = 4;

/// Bytes before and after a whole text, and before a severity. They do not occur in usual texts.
const START: u8 = 1;
const END: u8 = 2;
const SEVERITY: u8 = 3;

/// Lowest severity number of each level (OpenTelemetry logs data model).
const LEVELS: [u8; 6] = [1, 5, 9, 13, 17, 21];

/// Visits the grams of a text that is part of another one.
pub(crate) fn of_part(text: &[u8], mut visit: impl FnMut(u32)) {
    let mut gram = 0;
    for (index, byte) in text.iter().enumerate() {
        gram = gram << 8 | u32::from(byte.to_ascii_lowercase());
        if index + 1 >= LENGTH {
            visit(position(gram));
        }
    }
}

/// Visits the grams of a whole text, which include those of its parts.
pub(crate) fn of_whole(text: &[u8], mut visit: impl FnMut(u32)) {
    let mut gram = u32::from(START);
    for (index, byte) in text.iter().chain([&END]).enumerate() {
        gram = gram << 8 | u32::from(byte.to_ascii_lowercase());
        if index + 2 >= LENGTH {
            visit(position(gram));
        }
    }
}

/// Visits the positions of the levels up to `severity`.
pub(crate) fn of_severity(severity: u8, visit: impl FnMut(u32)) {
    let levels = LEVELS.into_iter().take_while(|level| *level <= severity);
    levels
        .map(|level| position(u32::from_be_bytes([SEVERITY, level, 0, 0])))
        .for_each(visit);
}

/// Returns the position of a gram by multiplicative hashing.
fn position(gram: u32) -> u32 {
    gram.wrapping_mul(0x9e37_79b1) >> (u32::BITS - POSITIONS.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grams_of_a_text_include_those_of_its_parts() {
        let whole = |text: &str| {
            let mut grams = Vec::new();
            of_whole(text.as_bytes(), |gram| grams.push(gram));
            grams
        };
        let part = |text: &str| {
            let mut grams = Vec::new();
            of_part(text.as_bytes(), |gram| grams.push(gram));
            grams
        };
        let text = whole("SELECT users");
        assert!(part("ect us").iter().all(|gram| text.contains(gram)) && part("ect us").len() == 3);
        assert!(!part("ect uz").iter().all(|gram| text.contains(gram)));
        assert!(
            !whole("select").iter().all(|gram| text.contains(gram)),
            "not the whole text"
        );
        assert_eq!(whole("a").len(), 0);
        assert_eq!(whole("ab").len(), 1);
        assert!(whole("é").iter().all(|gram| (*gram as usize) < POSITIONS));
    }
}
